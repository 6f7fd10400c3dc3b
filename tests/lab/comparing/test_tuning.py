import math

import pytest

from splitveil.lab.comparing.tuning import CLOSE, strongest


class Curve:
    """Accuracy that falls with strength, and how often it was asked for."""

    def __init__(self, fall: float, steep: float = 0.0) -> None:
        self.fall, self.steep, self.asked = fall, steep, list[float]()

    def __call__(self, strength: float) -> tuple[str, float]:
        self.asked.append(strength)
        return str(strength), 0.9 - self.fall * math.exp(self.steep * strength) * (strength if not self.steep else 1)


@pytest.mark.parametrize("lost", [0.01, 0.03])
def test_what_is_lost_exponentially_is_found_in_four(lost: float) -> None:
    """Noise of 0.01 to 10 costs 0.3 points at the middle of its range and all at its end."""
    curve = Curve(1e-5, 11.2)
    strength, accuracy = strongest(curve, 0.9 - lost, 6, reference=0.9)
    assert 0 <= accuracy - (0.9 - lost) <= CLOSE
    assert strength == pytest.approx(math.log(lost / 1e-5) / 11.2, abs=0.03)
    assert len(curve.asked) <= 4


def test_what_is_lost_in_proportion_is_found_too() -> None:
    curve = Curve(0.1)
    strength, accuracy = strongest(curve, 0.87, 6, reference=0.9)
    assert 0.3 - 1 / 64 <= strength <= 0.3
    assert accuracy >= 0.87
    assert len(curve.asked) <= 4


def test_what_is_known_is_not_asked_again() -> None:
    curve = Curve(0.1)
    strength, accuracy = strongest(curve, 0.87, 3, reference=0.9, known={0.5: 0.85, 0.2: 0.88})
    assert all(0.2 < asked < 0.5 for asked in curve.asked)
    assert 0.2 < strength <= 0.3
    assert accuracy == pytest.approx(0.9 - 0.1 * strength)
    assert strongest(Curve(0.1), 0.87, 1, reference=0.9, known={0.29: 0.871, 0.32: 0.868}) == (0.29, 0.871)


def test_the_last_trial_goes_to_an_end_that_is_open() -> None:
    """All pass: the strongest; none does: the weakest, to say how close it came."""
    assert strongest(Curve(0.0), 0.87, 3, reference=0.9) == (1.0, 0.9)
    none = Curve(0.1)
    assert strongest(none, 0.95, 3, reference=0.96) == (0.0, 0.9)
    assert none.asked[0] == 0.5
    assert 0 < none.asked[1] < 0.5
    assert none.asked[2] == 0.0


def test_accuracy_above_the_reference_is_no_loss() -> None:
    """Training is noisy: a weak setting may be above the undefended split."""
    strength, accuracy = strongest(Curve(0.1), 0.86, 5, reference=0.88)
    assert accuracy >= 0.86
    assert 0.3 <= strength <= 0.4


def test_a_knob_in_whole_steps_ends_the_search_where_it_repeats_itself() -> None:
    asked = []

    def bits(strength: float) -> tuple[str, float]:
        asked.append(round(8 - 6 * strength))
        return str(asked[-1]), asked[-1] / 10

    strength, accuracy = strongest(bits, 0.45, 20, reference=0.8)
    assert accuracy == 0.5
    assert round(8 - 6 * strength) == 5
    assert len(asked) <= 5


@pytest.mark.parametrize("edge", [0.1, 0.8])
def test_a_cliff_is_found_by_halving(edge: float) -> None:
    strength, _ = strongest(lambda s: (str(s), 0.9 if s < edge else 0.1), 0.89, 8, reference=0.9)
    assert edge - 0.05 <= strength < edge


@pytest.mark.parametrize(("known", "end"), [({0.5: 0.9, 1.0: 0.89}, 1.0), ({0.5: 0.5, 0.0: 0.8}, 0.0)])
def test_an_end_that_is_known_for_one_budget_is_the_answer_for_another(known: dict[float, float], end: float) -> None:
    """The knob of the first costs hardly anything, that of the second too much everywhere."""
    curve = Curve(0.1)
    assert strongest(curve, 0.87, 3, reference=0.9, known=known) == (end, known[end])
    assert curve.asked == []
