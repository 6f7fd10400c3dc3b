"""Intervals of shares, against SciPy and against published examples."""

import math

import pytest
from scipy.stats import binomtest, multinomial

from splitveil.core.errors import InputError
from splitveil.core.proportions import paired, wilson
from splitveil.core.records import Accuracy, Lost


@pytest.mark.parametrize(
    ("right", "n"), [(0, 1), (1, 1), (0, 7), (7, 7), (1, 2), (24, 33), (33, 33), (599, 600), (9173, 10_000)]
)
def test_wilson_is_that_of_scipy(right: int, n: int) -> None:
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= wilson(right, n)[0] <= right / n <= wilson(right, n)[1] <= 1
    assert wilson(right, n)[0] < wilson(right, n)[1], "never sure, whatever the share"


@pytest.mark.parametrize(("right", "n"), [(0, 0), (2, 1), (-1, 3), (math.nan, 4)])
def test_no_share_of_that_is_refused(right: float, n: int) -> None:
    with pytest.raises(InputError, match="expected 0 to n right"):
        wilson(right, n)


def test_paired_intervals_are_those_published() -> None:
    """Airway hyper-responsiveness (Fagerland, Lydersen and Laake 2014, Table IV), and Newcombe 1998, Table II."""
    assert paired(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert paired(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_a_paired_interval_is_narrower_than_two_side_by_side_and_turns_round() -> None:
    low, high = paired(900, 30, 20, 50)
    one, two = wilson(930, 1000), wilson(920, 1000)
    assert high - low < 0.65 * math.hypot(one[1] - one[0], two[1] - two[0])
    assert paired(900, 20, 30, 50) == pytest.approx((-high, -low))
    assert paired(10, 0, 0, 0)[0] < 0 < paired(10, 0, 0, 0)[1], "ten images cannot prove that two nets are alike"
    with pytest.raises(InputError, match="at least one image"):
        paired(0, 0, 0, 0)


def test_a_paired_interval_holds_the_truth_in_about_95_of_100_cases() -> None:
    """Exactly, over all outcomes of 25 images: two nets at 76 % and 64 % right that are right together at 60 %."""
    truth, n = (0.60, 0.16, 0.04, 0.20), 25
    held = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            for c in range(n + 1 - a - b):
                low, high = paired(a, b, c, n - a - b - c)
                if low <= truth[1] - truth[2] <= high:
                    held += float(multinomial.pmf((a, b, c, n - a - b - c), n, truth))
    assert 0.94 < held < 0.985


def test_records_say_it_in_per_cent_and_points() -> None:
    assert str(Accuracy.of(24, 33)) == "72.73% (55.78 to 84.93)"
    assert Accuracy.known(0.8799999952316284, 600) == Accuracy.of(528, 600), "a float32 mean"
    assert Accuracy.known(0.9, 0) is None
    assert Accuracy.known(None, 10) is None
    lost = Lost.of(500, 30, 12, 58)
    assert (str(lost), lost.told) == ("3.00 points (0.87 to 5.21)", True)
    assert not Lost.of(24, 1, 0, 8).told
    assert Accuracy.from_json(Accuracy.of(1, 3).to_json()) == Accuracy.of(1, 3)
    over = Lost.mean([Lost.of(500, 30, 12, 58), Lost.of(500, 24, 12, 64)])
    assert over.points == pytest.approx(2.5)
    assert over.interval[1] - over.interval[0] > 0.9 * (lost.interval[1] - lost.interval[0]), "seeds add no image"
