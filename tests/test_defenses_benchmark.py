"""The directions that benchmarks/defenses.py reads from a record."""

from benchmarks.defenses import _compared

from splitveil.records import Estimate


def around(mean: float) -> Estimate:
    return Estimate(mean=mean, interval=(mean - 1, mean + 1), values=[mean, mean])


def test_a_direction_holds_or_it_says_plainly_that_it_does_not() -> None:
    def said(mean: float, *others: float) -> str:
        return _compared("it", ("a", around(mean)), dict(zip("bcd", map(around, others), strict=False)), more=True)[2]

    assert said(10.0, 5.0, 2.0) == "holds (intervals apart)"
    assert said(10.0, 5.0, 9.5) == "holds (intervals overlap)"
    assert said(10.0, 5.0, 15.0) == "**does not hold** (intervals apart)"
    assert _compared("it", ("a", around(1.0)), {"b": None}, more=True)[2] == "not measured"
    assert _compared("it", ("a", None), {"b": around(1.0)}, more=True)[1] == "no number for a"
