import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError, ThreatModelError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.repeat import Averaged, Repeat, mean_of
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.metrics import METRICS

from .conftest import Make, Passing

INNER = ["linear", "mle:steps=40,start=mean,prior=0.03,rate=0.1"]


class Labels(LabelAttack):
    name = "labels"
    needs = Knows.NOTHING

    def run(self, view: View, labels: Tensor, classes: int) -> Tensor:
        return torch.zeros(len(view.z), classes)


def build(spec: str) -> Attack:
    attack = ATTACKS.build(spec)
    assert isinstance(attack, Attack)
    return attack


def psnr(attack: Attack, make_view: Make, sigma: float) -> float:
    torch.manual_seed(5)
    view, truth = make_view(nn.Conv2d(3, 12, 3, 2, 1), sigma=sigma, crossings=16)
    return METRICS.build("psnr")(truth, attack(view).x_hat).mean().item()


@pytest.mark.parametrize("inner", INNER)
def test_sixteen_crossings_beat_one_where_there_is_noise(inner: str, make_view: Make) -> None:
    once, often = (psnr(build(f"repeat:attack=[{inner}],k={k}"), make_view, 0.5) for k in (1, 16))
    assert often > once + 2


@pytest.mark.parametrize("inner", INNER)
def test_without_noise_it_is_the_inner_attack(inner: str, make_view: Make) -> None:
    assert psnr(build(f"repeat:attack=[{inner}],k=16"), make_view, 0) == psnr(build(inner), make_view, 0)


def test_every_crossing_counts_once(make_view: Make) -> None:
    view, _ = make_view(nn.Identity(), sigma=0.3, crossings=5)
    seen: list[View] = []

    class Looking(Attack):
        name = "looking"
        needs = Knows.AUX | Knows.QUERIES | Knows.DEFENSE

        def run(self, view: View) -> Tensor:
            seen.append(view)
            return torch.zeros(len(view.z), *view.image_shape)

    attack = Repeat(attack="mean", k=4)
    attack.attack = Looking()
    attack(view)
    assert torch.allclose(seen[0].z, view.crossings[:4].mean(0))
    index = torch.arange(64)
    noise = seen[0].observe(index) - view.aux.images(index)
    assert noise.std().item() == pytest.approx(0.3 / 2, rel=0.05)
    assert (seen[0].query(torch.zeros(64, 3, 16, 16)).std()).item() == pytest.approx(0.3 / 2, rel=0.05)
    assert seen[0].defense(torch.zeros(64, 3, 16, 16)).std().item() == pytest.approx(0.3 / 2, rel=0.05)
    assert view.observed == 4 * 64


def test_a_mean_of_draws() -> None:
    draws = iter(torch.tensor([1.0, 2.0, 6.0]))
    assert mean_of(lambda: next(draws), 3) == 3
    assert Averaged(Passing(1.0), 400)(torch.zeros(1000)).std().item() == pytest.approx(0.05, rel=0.2)


def test_it_asks_for_what_the_inner_attack_needs(make_view: Make) -> None:
    attack = build("repeat:attack=[mle:steps=1],k=3")
    assert attack.needs == build("mle").needs
    assert attack.crossings == 3
    assert repr(build(repr(attack))) == repr(attack)
    with pytest.raises(ThreatModelError, match="sent 3 times"):
        attack(make_view(nn.Identity(), crossings=2)[0])


def test_attacks_on_labels_and_other_repeats_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"'repeat'.* raise its k"):
        build("repeat:attack=[repeat:attack=mean,k=2]")
    with pytest.raises(InputError, match="use repeat:k=8"):
        build("repeat:k=0")
    monkeypatch.setattr(ATTACKS, "build", lambda spec: Labels())
    with pytest.raises(InputError, match=r"'labels' gives labels; use decoder"):
        Repeat(attack="labels")
