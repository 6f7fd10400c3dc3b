import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.records.device import Link
from splitveil.device.profiling.links import LINKS, SEGMENT, find_link, transmission_seconds

BYTES = st.integers(0, 10**8)
BANDWIDTHS = st.floats(1e3, 1e10)
LOSSES = st.floats(0, 0.9)


def link(bandwidth: float = 8e6, rtt: float = 0.05, loss: float = 0.0) -> Link:
    return Link(name="given", bandwidth_bits=bandwidth, rtt_seconds=rtt, loss=loss)


@given(BYTES, BYTES, BANDWIDTHS, st.floats(0, 10))
def test_without_loss_it_is_the_plain_formula(payload: int, answer: int, bandwidth: float, rtt: float) -> None:
    found = transmission_seconds(payload, link(bandwidth, rtt), answer)
    assert found == pytest.approx(8 * (payload + answer) / bandwidth + rtt)


@given(BYTES, BYTES, BANDWIDTHS, LOSSES)
def test_more_bytes_take_no_less_time(few: int, more: int, bandwidth: float, loss: float) -> None:
    few, more = sorted((few, more))
    way = link(bandwidth, loss=loss)
    assert transmission_seconds(few, way) <= transmission_seconds(more, way)
    assert transmission_seconds(10, way, few) <= transmission_seconds(10, way, more)


@given(BYTES.filter(bool), BANDWIDTHS, BANDWIDTHS, LOSSES)
def test_more_bandwidth_takes_no_more_time(payload: int, narrow: float, wide: float, loss: float) -> None:
    narrow, wide = sorted((narrow, wide))
    assert transmission_seconds(payload, link(wide, loss=loss)) <= transmission_seconds(
        payload, link(narrow, loss=loss)
    )


@given(BYTES, LOSSES, LOSSES)
def test_more_loss_takes_no_less_time(payload: int, little: float, much: float) -> None:
    little, much = sorted((little, much))
    rounding = 1 + 1e-12
    assert transmission_seconds(payload, link(loss=little)) <= rounding * transmission_seconds(payload, link(loss=much))


def test_loss_by_hand() -> None:
    # Two packets and one; each sent 1 / 0.9 times; one of three lost with chance 1 - 0.9^3.
    found = transmission_seconds(2 * SEGMENT, link(rtt=0.1, loss=0.1), answer_bytes=1)
    assert found == pytest.approx(8 * (2 * SEGMENT + 1) / 8e6 / 0.9 + 0.1 + 0.1 * (1 - 0.9**3))
    assert transmission_seconds(0, link(rtt=0.1, loss=0.1)) == 0.1


def test_presets() -> None:
    times = {name: transmission_seconds(32768, found) for name, found in LINKS.items()}
    assert list(times) == ["3g", "lte", "wifi", "5g"]
    assert times["3g"] > times["lte"] > max(times["wifi"], times["5g"])
    for name, found in LINKS.items():
        assert find_link(name) == found
        assert "not a measurement" in found.source
        assert found.loss > 0


@pytest.mark.parametrize(
    ("text", "bandwidth", "rtt", "loss"),
    [
        ("10M/50ms", 10e6, 0.05, 0),
        ("10M/50ms/1%", 10e6, 0.05, 0.01),
        ("2.5g/0.2s/0.5%", 2.5e9, 0.2, 0.005),
        ("64k/0ms", 64e3, 0, 0),
        ("9600/1s", 9600, 1, 0),
    ],
)
def test_a_link_as_figures(text: str, bandwidth: float, rtt: float, loss: float) -> None:
    found = find_link(text)
    assert (found.name, found.source) == (text, "given")
    assert (found.bandwidth_bits, found.rtt_seconds, found.loss) == pytest.approx((bandwidth, rtt, loss))


def test_a_link_in_a_file(tmp_path: Path) -> None:
    link(loss=0.25).save(tmp_path / "link.json")
    assert find_link(str(tmp_path / "link.json")) == link(loss=0.25)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'wifi'"):
        find_link("wify")
    for text in ("10M/50", "10X/50ms", "M/50ms", "10M/50ms/1", "1.2.3M/50ms", "10M/-5ms", "/", "lte/5"):
        with pytest.raises(InputError, match=r"expected a link.*for example 10M/50ms/1%"):
            find_link(text)
    for text in ("0M/50ms", "10M/50ms/100%"):
        with pytest.raises(InputError, match="bandwidth above 0 and a loss below 100 %"):
            find_link(text)
    with pytest.raises(InputError, match="cannot read"):
        find_link(str(tmp_path / "none.json"))
    for size in (-1, math.nan, math.inf):
        with pytest.raises(InputError, match="0 bytes or more"):
            transmission_seconds(size, LINKS["3g"])
        with pytest.raises(InputError, match="0 bytes or more"):
            transmission_seconds(1, LINKS["3g"], size)
