"""Curves whose transition is known, and those that fooled the published detector."""

import pytest
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.records import Cut
from splitveil.core.records.plan import CutCurve, Figure
from splitveil.lab.metrics.geometry import class_radius
from splitveil.lab.metrics.zone import lasting_drops, transition
from splitveil.lab.planning.transition import METHODS, find_zone, find_zones


def curve(index: int, values: dict[str, float], half: float | None = 0.02) -> CutCurve:
    place = Cut(
        name=f"block{index}", index=10 * index, shape=(4,), bytes_fp32=16, bytes_u8=4, edge_macs=index + 1,
        cloud_macs=9 - index, edge_params=1, cloud_params=1, edge_share=(index + 1) / 10, edge_peak_bytes=64,
    )  # fmt: skip
    figures = {
        name: Figure(value=v, measured=True, interval=None if half is None else (max(0, v - half), v + half))
        for name, v in values.items()
    }
    return CutCurve(cut=place, numbers=figures)


def series(*values: float, half: float | None = 0.02, name: str = "rc2") -> list[CutCurve]:
    return [curve(k, {name: v}, half) for k, v in enumerate(values)]


def first(*values: float, half: float | None = 0.02, least: float = 0.2) -> str | None:
    return find_zone(series(*values, half=half), "rc2", least=least).first


def test_the_zone_begins_behind_the_largest_drop_and_is_told_by_name() -> None:
    zone = find_zone(series(0.95, 0.9, 0.85, 0.4, 0.35), "rc2")
    assert (zone.first, zone.last, zone.edge_share, zone.verified, zone.gain) == ("block3", "block4", 0.4, None, None)
    assert zone.words == (
        "zone by rc2 from block3 on: falls from 0.85 to 0.4 behind block2; the device does 40% of the MACs there"
    )


def test_the_order_in_which_curves_come_does_not_matter() -> None:
    shuffled = [series(0.95, 0.9, 0.4, 0.35)[k] for k in (2, 0, 3, 1)]
    assert find_zone(shuffled, "rc2").first == "block2"


@pytest.mark.parametrize(
    "values",
    [(0.95, 0.9, 0.86, 0.8), (0.5, 0.5, 0.5), (0.2, 0.5, 0.9), (0.0, 0.0, 0.0)],
    ids=["gentle", "flat", "rising", "constant"],
)
def test_no_zone_is_an_answer(values: tuple[float, ...]) -> None:
    zone = find_zone(series(*values, half=None), "rc2")
    assert (zone.first, zone.last, zone.edge_share) == (None, None, None)
    assert zone.words.startswith("no zone by rc2: no lasting drop of 20%")


def test_a_drop_whose_intervals_overlap_is_none() -> None:
    assert first(0.9, 0.9, 0.6, 0.6, half=0.1) == "block2"
    assert first(0.9, 0.9, 0.6, 0.6, half=0.2) is None


@pytest.mark.parametrize(
    "values",
    [(0.9, 0.4, 0.9, 0.85, 0.5, 0.5), (0.9, 0.9, 0.4, 0.88, 0.5, 0.45), (0.9, 2.0, 0.9, 0.85, 0.5, 0.5)],
    ids=["dip", "later dip", "bump"],
)
def test_what_comes_back_behind_a_skip_connection_is_no_transition(values: tuple[float, ...]) -> None:
    """The published rule takes the dip or the bump for it."""
    assert first(*values) == "block4"
    published = transition(values)
    assert published is not None
    assert published[0] != 4


def test_the_published_detector_is_a_choice() -> None:
    dip = series(0.9, 0.4, 0.9, 0.85, 0.5, 0.5)
    zone = find_zone(dip, "rc2", detector="published")
    assert (zone.first, zone.last) == ("block1", "block5")
    assert zone.words == (
        "zone by rc2 from block1 on: falls from 0.9 to 0.4 behind block0; the device does 20% of the MACs there; "
        "a second drop before block4; published detector"
    )
    assert [z.first for z in find_zones(dip, detector="published")] == ["block1"]
    assert find_zone(series(0.9, 0.85), "rc2", detector="published").words == (
        "no zone by rc2: no drop of 20%; the largest, 6%, is before block1"
    )
    with pytest.raises(InputError, match="lasting, published"):
        find_zone(dip, "rc2", detector="second")


def test_zigzag_inside_blocks_is_none() -> None:
    assert first(0.9, 0.6, 0.9, 0.6, 0.9, 0.6, 0.9) is None


def test_sums_over_unequal_dimensions_are_no_transition() -> None:
    """Half the dimensions halve the published sum with no change of meaning."""
    labels = torch.arange(400) % 4
    draws = torch.Generator().manual_seed(0)

    def features(channels: int) -> Tensor:
        return torch.randn(400, channels, 4, 4, generator=draws)

    radii = [class_radius(features(c), labels, 4, resamples=100) for c in (32, 32, 16, 16)]
    assert transition([r.uncorrected for r in radii]) == (2,)
    figures = [Figure(value=r.per_dimension, measured=True, interval=r.per_dimension_interval) for r in radii]
    curves = [CutCurve(cut=c.cut, numbers={"rc2": f}) for c, f in zip(series(1, 1, 1, 1), figures, strict=True)]
    assert find_zone(curves, "rc2").first is None


def test_a_pattern_over_positions_is_no_transition_of_the_share() -> None:
    """What every image has alike at a position makes channels wide, and R_c^2/D small, without a word on classes."""
    draws = torch.Generator().manual_seed(0)
    labels, z = torch.arange(400) % 4, torch.randn(400, 8, 4, 4, generator=draws)
    pattern = torch.randn(8, 4, 4, generator=draws)
    radii = [class_radius(z + size * pattern, labels, 4, resamples=100) for size in (0, 0, 2, 2)]
    assert transition([r.per_dimension for r in radii]) == (2,)
    curves = [
        CutCurve(
            cut=c.cut,
            numbers={"rc2_relative": Figure(value=r.relative, measured=True, interval=r.relative_interval)},
        )
        for c, r in zip(series(1, 1, 1, 1), radii, strict=True)
    ]
    assert [z.first for z in find_zones(curves)] == [None]


def test_one_zone_for_each_method_that_was_measured() -> None:
    falling, flat = (0.9, 0.9, 0.3), (0.9, 0.9, 0.9)
    curves = [
        curve(k, {"rc2": a, "rank": 100 * a, "within": b, "elements": 1.0, "rc2_predicted": a})
        for k, (a, b) in enumerate(zip(falling, flat, strict=True))
    ]
    zones = find_zones(curves)
    assert [(z.method, z.first) for z in zones] == [
        ("rc2", "block2"), ("rc2_predicted", "block2"), ("within", None), ("rank", "block2"),
    ]  # fmt: skip
    assert [z.method for z in zones] == [m for m in METHODS if m != "rc2_relative"]
    only = find_zones(series(*falling))
    assert [z.method for z in only] == ["rc2"]
    assert find_zones([]) == []
    assert find_zone(series(0.9), "rc2").words.startswith("no zone by rc2: it takes two cuts")


def test_a_cut_without_the_number_is_left_out() -> None:
    curves = series(0.9, 0.88, 0.86, 0.3)
    curves[2] = CutCurve(cut=curves[2].cut, numbers={})
    zone = find_zone(curves, "rc2")
    assert zone.first == "block3"
    assert "behind block1" in zone.words


def test_an_error_rises_towards_the_zone() -> None:
    mse = series(0.002, 0.003, 0.0035, 0.012, 0.013, half=0.0002, name="decoder_mse")
    assert find_zone(mse, "decoder_mse", least=1 / 3, rises=True).first == "block3"
    wide = series(0.002, 0.003, 0.0035, 0.012, 0.013, half=0.006, name="decoder_mse")
    assert find_zone(wide, "decoder_mse", least=1 / 3, rises=True).first is None


def test_a_second_drop_is_told() -> None:
    assert find_zone(series(0.9, 0.6, 0.6, 0.2), "rc2").words.endswith("; a second drop before block1")


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="one place; give each cut once"):
        find_zone([*series(0.9, 0.8), *series(0.9)], "rc2")
    with pytest.raises(InputError, match=r"between 0 and 1, got 1\.5"):
        find_zones(series(0.9, 0.8), least=1.5)
    with pytest.raises(InputError, match="of 0 or more"):
        find_zone(series(0.9, -0.8, half=None), "rc2")
    with pytest.raises(InputError, match="leave rises out"):
        find_zone(series(0.0, 0.8), "rc2", rises=True)
    with pytest.raises(InputError, match="expected 2 intervals, got 1"):
        lasting_drops([1.0, 0.5], [(0.9, 1.1)])


def test_lasting_drops_of_a_staircase_are_its_steps() -> None:
    assert lasting_drops([1.0, 0.5, 0.5, 0.25]) == pytest.approx((0.5, 0.0, 0.5))
    assert lasting_drops([1.0]) == ()
