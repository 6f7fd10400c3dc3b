import pytest

from splitveil.sweeps.tuning import strongest


class Curve:
    """Accuracy that falls with strength, and how often it was asked for."""

    def __init__(self, fall: float) -> None:
        self.fall, self.asked = fall, list[float]()

    def __call__(self, strength: float) -> tuple[str, float]:
        self.asked.append(strength)
        return str(strength), 0.9 - self.fall * strength


def test_six_trials_come_within_a_64th_of_the_answer() -> None:
    curve = Curve(0.1)
    strength, accuracy = strongest(curve, 0.87, 6)
    assert 0.3 - 1 / 64 <= strength <= 0.3
    assert accuracy >= 0.87
    assert len(curve.asked) == 6


def test_what_is_known_is_not_asked_again() -> None:
    curve = Curve(0.1)
    strength, _ = strongest(curve, 0.87, 2, {0.5: 0.85, 0.25: 0.875})
    assert curve.asked == [0.375, 0.3125]
    assert strength == 0.25
    assert strongest(Curve(0.1), 0.87, 1, {0.28: 0.872, 0.32: 0.868})[0] == pytest.approx(0.3)


def test_the_last_trial_goes_to_an_end_that_is_open() -> None:
    """All pass: the strongest; none does: the weakest, to say how close it came."""
    assert strongest(Curve(0.0), 0.87, 3) == (1.0, 0.9)
    none = Curve(0.1)
    assert strongest(none, 0.95, 3) == (0.0, 0.9)
    assert none.asked == [0.5, 0.25, 0.0]


def test_a_knob_in_whole_steps_ends_the_search_where_it_repeats_itself() -> None:
    asked = []

    def bits(strength: float) -> tuple[str, float]:
        asked.append(round(8 - 6 * strength))
        return str(asked[-1]), asked[-1] / 10

    strength, accuracy = strongest(bits, 0.45, 20)
    assert accuracy == 0.5
    assert round(8 - 6 * strength) == 5
    assert len(asked) <= 5
