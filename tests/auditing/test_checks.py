import pytest
import torch

from splitveil.attacks import ATTACKS
from splitveil.auditing.checks import EXPLANATIONS, check_row
from splitveil.auditing.suites import FLOORS, SUITES, custom_suite, find_suite
from splitveil.errors import UnknownNameError


def scores(psnr: float, n: int = 100) -> dict[str, torch.Tensor]:
    return {"psnr": torch.full((n,), float(psnr)), "ssim": torch.full((n,), 0.5), "mse": torch.full((n,), 0.01)}


def test_a_sound_row_raises_nothing() -> None:
    assert check_row("mle", scores(20), 12.0, finite=True) == []


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("not finite", check_row("mle", scores(20), 12.0, finite=False)),
        ("not finite", check_row("mle", scores(float("nan")), 12.0, finite=True)),
        ("few images", check_row("mle", scores(20, n=5), 12.0, finite=True)),
        ("below the floor", check_row("mle", scores(10), 12.0, finite=True)),
    ],
)
def test_each_check_is_raised_alone_and_explained(reason: str, found: list[str]) -> None:
    assert [f.partition(":")[0] for f in found] == [reason]
    assert EXPLANATIONS[reason].startswith("Raised if")


def test_floors_are_not_held_against_the_mean_image() -> None:
    assert check_row("nearest", scores(9), 12.0, finite=True) == []
    assert check_row("mle", scores(11.8), 12.0, finite=True) == []


def test_suites_name_real_attacks() -> None:
    assert list(SUITES) == ["smoke", "standard", "strong"]
    for suite in SUITES.values():
        for spec in (*FLOORS, *suite.attacks):
            assert ATTACKS.build(spec).name == spec.partition(":")[0]
    assert custom_suite(["mle"]).label == "custom"
    with pytest.raises(UnknownNameError, match="Did you mean 'smoke'"):
        find_suite("smok")
