import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError, ThreatModelError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.attribute import WIDEST, AttributeInference, Embedding, Head, Ridge
from splitveil.lab.attacks.base import LabelAttack
from splitveil.lab.attacks.view import Knows

from .conftest import KNOWN, Make, labels

FEW = {"linear": "attribute:head=linear", "mlp": "attribute:head=mlp,epochs=1", "auto": "attribute:epochs=1"}


class OneHot(nn.Module):
    """The label and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(labels(x * 255), 2).float()


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 8, 4, 4) + 0 * x.mean()


def conv_edge() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())


def build(spec: str) -> LabelAttack:
    attack = ATTACKS.build(spec)
    assert isinstance(attack, LabelAttack)
    return attack


def accuracy(spec: str, make_view: Make, edge: nn.Module, scale: float = 1.0, sigma: float = 0.0) -> float:
    view, truth = make_view(edge, scale=scale, sigma=sigma)
    scores = build(spec)(view, view.aux.y, 2).scores
    return (scores.argmax(1) == labels(truth * 255)).float().mean().item()


@pytest.mark.parametrize("head", FEW)
def test_a_label_that_crosses_is_read(head: str, make_view: Make) -> None:
    assert accuracy(FEW[head], make_view, OneHot()) == 1


@pytest.mark.parametrize("head", FEW)
def test_a_constant_gives_every_image_the_same_scores(head: str, make_view: Make) -> None:
    view, _ = make_view(Constant())
    scores = build(FEW[head])(view, view.aux.y, 2).scores
    assert torch.allclose(scores, scores[:1].expand_as(scores), atol=1e-4)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_real_edge_leaks_and_scaling_it_changes_nothing(head: str, make_view: Make) -> None:
    found = [accuracy(FEW[head], make_view, conv_edge(), scale=s) for s in (1.0, 10.0)]
    _, truth = make_view(conv_edge())
    assert found[0] > labels(truth * 255).bincount().max().item() / len(truth) + 0.1
    assert found[0] == pytest.approx(found[1], abs=0.05)


def test_noise_is_drawn_afresh_and_hurts(make_view: Make) -> None:
    noisy = accuracy(FEW["linear"], make_view, OneHot(), sigma=2.0)
    assert 0.5 < noisy < 1
    view, _ = make_view(conv_edge(), sigma=0.1)
    build(FEW["linear"])(view, view.aux.y, 2)
    assert view.observed >= 2 * KNOWN


@pytest.mark.long
def test_runs_repeat_whatever_ran_before(make_view: Make) -> None:
    found = []
    for _ in range(2):
        view, _ = make_view(conv_edge(), sigma=0.1)
        found.append(build(FEW["auto"])(view, view.aux.y, 2).scores)
        torch.rand(7)
    assert torch.equal(*found)


def test_images_without_a_label_are_not_used(make_view: Make) -> None:
    view, truth = make_view(OneHot())
    known = view.aux.y.clone()
    known[::2] = -1
    scores = build(FEW["linear"])(view, known, 2).scores
    assert (scores.argmax(1) == labels(truth * 255)).all()
    for fewer, share in ((torch.full_like(known, -1), 0.0), (torch.where(known == 1, 1, -1), 1.0)):
        assert build(FEW["linear"])(view, fewer, 2).scores[0].tolist() == [0.0, share]


def test_the_accuracy_on_images_set_aside_is_told(make_view: Make) -> None:
    view, _ = make_view(OneHot())
    assert build(FEW["auto"])(view, view.aux.y, 2).evidence == {"accuracy": 1.0}


@pytest.mark.parametrize("shape", [(7,), (5, 4, 4), (64, 16, 16), (3000,), (17, 12), (2500, 2, 2), (12, 48, 48)])
def test_any_features_embed_and_score(shape: tuple[int, ...]) -> None:
    z = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    embedded = Embedding(z, draws[0])(z)
    assert 2 <= embedded.shape[1] <= WIDEST
    assert embedded.std(0).mean().item() == pytest.approx(1, abs=0.05)
    assert torch.allclose(Embedding(10 * z, draws[1])(10 * z), embedded, atol=1e-3)
    assert Head(shape, 3, width=8)(z).shape == (8, 3)


def test_ridge_is_least_squares_when_the_penalty_is_small() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(200, 5), torch.randn(200, 3)
    ridge = Ridge(5, 3)
    for part in (slice(0, 90), slice(90, 200)):
        ridge.add(a[part], b[part])
    wide = torch.cat([a, torch.ones(200, 1)], 1)
    assert torch.allclose(ridge.solve(1e-7)(a), wide @ torch.linalg.lstsq(wide, b).solution, atol=1e-4)


def test_needs_are_enforced(make_view: Make) -> None:
    view, _ = make_view(OneHot(), knows=Knows.AUX | Knows.WEIGHTS)
    with pytest.raises(ThreatModelError, match="QUERIES"):
        AttributeInference()(view, view.aux.y, 2)


@pytest.mark.parametrize(("option", "remedy"), [("head=deep", "choose from auto, linear, mlp"), ("epochs=0", "; use")])
def test_bad_options_are_one_sentence(option: str, remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        ATTACKS.build(f"attribute:{option}")
