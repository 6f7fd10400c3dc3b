"""Axes."""

from hypothesis import given
from hypothesis import strategies as st

from splitveil.report.scale import Scale, round_scale

values = st.lists(st.floats(-200, 200, allow_nan=False), min_size=1, max_size=9)


@given(values)
def test_an_axis_holds_its_values_and_has_marks(found: list[float]) -> None:
    scale = round_scale(found, 100.0, 0.0)
    assert scale.low <= min(found) + 1e-6
    assert scale.high >= max(found) - 1e-6
    assert scale.high > scale.low
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(0 <= t.at <= 100 for t in ticks)
    assert len({t.text for t in ticks}) == len(ticks)


def test_values_beyond_the_axis_stay_on_paper() -> None:
    scale = Scale(0, 10, 50, 150)
    assert [scale(v) for v in (-5, 0, 5, 10, 99)] == [50, 50, 100, 150, 150]
    assert [t.text for t in scale.ticks()] == ["0", "2", "4", "6", "8", "10"]
