import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.deep_prior import DeepPrior, Generators
from splitveil.lab.attacks.view import Knows
from splitveil.lab.metrics import METRICS

from .conftest import Make


def psnr(truth: Tensor, guess: Tensor) -> float:
    return METRICS.build("psnr")(truth, guess).mean().item()


def narrow_edge() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 2, 1), nn.ReLU())


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28), (3, 11, 7), (1, 8, 8), (3, 64, 48)])
def test_generators_begin_at_the_guess_and_every_weight_learns(shape: tuple[int, int, int]) -> None:
    guess = torch.rand(2, *shape)
    nets = Generators(guess, 4, torch.Generator().manual_seed(0))
    assert torch.equal(nets(), guess)
    with torch.no_grad():
        nets.head.normal_(generator=torch.Generator().manual_seed(1))
    (nets() * torch.rand(2, *shape)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in nets.parameters())


def test_no_image_depends_on_those_beside_it(make_view: Make) -> None:
    attack = DeepPrior(steps=20, width=8, prior=0, start="mean")
    view, _ = make_view(narrow_edge(), knows=Knows.WEIGHTS | Knows.DEFENSE)
    alone, _ = make_view(narrow_edge(), knows=Knows.WEIGHTS | Knows.DEFENSE)
    alone.z = alone.z[5:7]
    assert (attack(view).x_hat[5:7] - attack(alone).x_hat).abs().max() < 0.02


def test_without_aux_it_starts_from_grey_and_still_inverts(make_view: Make) -> None:
    view, truth = make_view(nn.Conv2d(3, 16, 3, 1, 1), knows=Knows.WEIGHTS | Knows.DEFENSE)
    assert psnr(truth, DeepPrior(steps=200)(view).x_hat) > 20


def test_the_generator_adds_to_the_linear_inverse(make_view: Make) -> None:
    found = []
    for attack in (ATTACKS.build("linear"), DeepPrior(steps=150, width=16)):
        view, truth = make_view(narrow_edge())
        assert isinstance(attack, Attack)
        found.append(psnr(truth, attack(view).x_hat))
    assert found[1] > found[0] + 1


def test_it_tells_of_draws_and_missing_gradients(make_view: Make) -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x > 0.5).float() + 0 * x

    view, _ = make_view(Step())
    assert DeepPrior(steps=2, start="mean", width=4)(view).evidence == {"draws": 1.0, "gradient": 1.0}
    view, _ = make_view(narrow_edge(), sigma=0.1)
    assert DeepPrior(steps=2, start="mean", width=4, draws=3)(view).evidence == {"draws": 3.0, "gradient": 0.0}


@pytest.mark.parametrize("option", ["steps=0", "rate=0", "prior=-1", "prior=much", "start=attribute", "draws=0"])
def test_bad_options_are_one_sentence(option: str) -> None:
    with pytest.raises(InputError, match=r"; use "):
        ATTACKS.build(f"deep_prior:{option}")


def test_its_name_is_its_options() -> None:
    attack = DeepPrior(steps=7, prior=0.5)
    assert repr(ATTACKS.build(repr(attack))) == repr(attack)


def test_runs_repeat_and_noise_hurts_but_does_not_blind(make_view: Make) -> None:
    attack, found = DeepPrior(steps=60, width=8), []
    for sigma in (0.05, 0.05, 0.0):
        view, truth = make_view(narrow_edge(), sigma=sigma)
        found.append(attack(view).x_hat)
        torch.rand(7)
    assert torch.equal(found[0], found[1])
    floor = view.aux.images().mean(0).expand_as(truth)
    assert psnr(truth, floor) < psnr(truth, found[0]) < psnr(truth, found[2])
