import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack, frozen
from splitveil.lab.attacks.mle import MaximumLikelihood
from splitveil.lab.attacks.view import PRESETS, Aux, Knows, View
from splitveil.lab.metrics import METRICS

from .conftest import Make, images


def classes(x: Tensor) -> Tensor:
    """Four: is red bright, is green bright."""
    bright = (x.float().mean((2, 3)) > 127).long()
    return bright[:, 0] + 2 * bright[:, 1]


def conv_edge() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())


def query_free(known: bool = True) -> tuple[View, Tensor]:
    """A trained split whose edge nobody may query, and the private images."""
    torch.manual_seed(3)
    edge, cloud = conv_edge(), nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam([*edge.parameters(), *cloud.parameters()], 3e-3)
    x = images(1000, 9)
    for _ in range(150):
        batch = x[torch.randint(len(x), (64,))]
        optimizer.zero_grad()
        F.cross_entropy(cloud(edge(batch.float() / 255)), classes(batch)).backward()
        optimizer.step()
    private, aux = images(64, 1), images(600, 2)
    z = frozen(edge)(private.float() / 255)
    y = classes(aux) if known else torch.full((len(aux),), -1)
    view = View(
        z, (3, 16, 16), knows=PRESETS["query-free"], aux=Aux(aux, y), edge=edge, cloud=frozen(cloud), seed=0
    )  # fmt: skip
    return view, private.float() / 255


def build(spec: str) -> Attack:
    attack = ATTACKS.build(spec)
    assert isinstance(attack, Attack)
    return attack


def psnr(truth: Tensor, guess: Tensor) -> float:
    return METRICS.build("psnr")(truth, guess).mean().item()


def test_the_cloud_half_stays_in_eval_mode_and_as_it_is(make_view: Make) -> None:
    cloud = nn.Sequential(nn.BatchNorm2d(16), nn.Flatten())
    view, _ = make_view(conv_edge(), cloud=frozen(cloud))
    build("shadow:steps=8,via=mle")(view)
    assert isinstance(norm := cloud[0], nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert (norm.running_mean == 0).all()
    assert not cloud.training


@pytest.mark.parametrize("arch", ["same", pytest.param("other", marks=pytest.mark.long)])
def test_queries_give_a_stand_in_that_speaks_like_the_edge(
    arch: str, make_view: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitveil.lab.attacks.parts.stand_in.WIDTH", 16)
    torch.manual_seed(3)
    view, truth = make_view(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh()))
    build(f"shadow:learn=queries,arch={arch},steps=150")(view)
    (made,) = [v for k, v in view.shared.made.items() if k.startswith("stand-in")]
    assert isinstance(made, nn.Module)
    wanted = view.query(truth)
    error = (made(truth) - wanted).square().mean((0, 2, 3)) / wanted.var((0, 2, 3))
    assert error.mean() < 0.1


@pytest.mark.long
def test_the_cloud_and_the_features_seen_are_enough_to_beat_the_mean_where_labels_are_known() -> None:
    found = {}
    for labelled in (True, False):
        view, truth = query_free(labelled)
        found[labelled] = psnr(truth, build("shadow:steps=300")(view).x_hat)
    assert found[True] > psnr(truth, build("mean")(view).x_hat) + 1
    assert found[True] > found[False] + 0.5


def test_what_is_needed_follows_from_the_choices() -> None:
    same, other = build("shadow:learn=queries"), build("shadow:learn=queries,arch=other")
    assert same.needs == Knows.AUX | Knows.QUERIES | Knows.CLOUD
    assert other.needs == Knows.AUX | Knows.QUERIES
    assert build("shadow:arch=other").needs == build("shadow").needs == PRESETS["query-free"]


@pytest.mark.parametrize("spec", ["shadow:learn=tea", "shadow:arch=gothic", "shadow:via=magic", "shadow:steps=0"])
def test_bad_options_are_one_sentence(spec: str) -> None:
    with pytest.raises(InputError, match=r"(choose from|use shadow)"):
        ATTACKS.build(spec)


def test_it_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitveil.lab.attacks.shadow.MaximumLikelihood", lambda: MaximumLikelihood(steps=3))
    first, again = (build("shadow:steps=8,via=mle")(query_free()[0]).x_hat for _ in range(2))
    assert torch.equal(first, again)
