import pytest
import torch
from torch import nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.view import Knows
from splitveil.lab.metrics import METRICS

from .conftest import Make

DECODER = "decoder=[decoder:size=tiny,epochs=1,steps=100]"
QUICK = f"glass:width=16,steps=60,epochs=1,starts=2,rough=5,fine=20,free=30,{DECODER}"
WHITE = Knows.WEIGHTS | Knows.DEFENSE | Knows.AUX


def build(spec: str) -> Attack:
    attack = ATTACKS.build(spec)
    assert isinstance(attack, Attack)
    return attack


def conv_edge() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())


def psnr(truth: torch.Tensor, x_hat: torch.Tensor) -> float:
    return METRICS.build("psnr")(truth, x_hat).mean().item()


def test_the_search_adds_to_the_decoder_that_it_starts_from(make_view: Make) -> None:
    view, truth = make_view(conv_edge())
    alone = psnr(truth, build("decoder:size=tiny,epochs=1,steps=100")(view).x_hat)
    assert psnr(truth, build(QUICK)(view).x_hat) > alone + 0.1


def test_without_queries_it_starts_at_the_generators_mean_and_still_inverts(make_view: Make) -> None:
    view, truth = make_view(conv_edge(), knows=WHITE)
    found = build(QUICK.replace("steps=60", "steps=200").replace("fine=20", "fine=60"))(view)
    assert view.observed == 0
    assert psnr(truth, found.x_hat) > psnr(truth, view.aux.images().mean(0).expand_as(truth)) + 1


def test_evidence_tells_of_draws_and_dead_gradients(make_view: Make) -> None:
    view, _ = make_view(conv_edge(), sigma=0.1)
    assert build(QUICK)(view).evidence == {"draws": 4.0, "gradient": 0.0}

    class Step(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x > 0.5).float() + 0 * x

    view, _ = make_view(Step())
    assert build(QUICK)(view).evidence["gradient"] == 1


def test_the_generator_is_trained_once(make_view: Make) -> None:
    view, _ = make_view(conv_edge())
    build(QUICK)(view)
    made = dict(view.shared.made)
    build(QUICK.replace("starts=2", "starts=1"))(view)
    assert made == view.shared.made


@pytest.mark.long
def test_results_repeat(make_view: Make) -> None:
    first = build(QUICK)(make_view(conv_edge(), sigma=0.1)[0]).x_hat
    torch.rand(7)
    assert torch.equal(first, build(QUICK)(make_view(conv_edge(), sigma=0.1)[0]).x_hat)


@pytest.mark.parametrize("spec", ["glass:steps=0", "glass:starts=0", "glass:decoder=mle", "glass:free=0"])
def test_bad_options_are_one_sentence(spec: str) -> None:
    with pytest.raises(InputError, match=r"; use "):
        build(spec)


def test_the_registry_rebuilds_it_from_its_repr() -> None:
    attack = build(QUICK)
    assert repr(build(repr(attack))) == repr(attack)
