"""PriPro: the noise's size, what it is paid for, its budget, its averaging, and layers before the cut."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses.base import Batch, Guess
from splitveil.lab.defenses.parts.frozen_parts import image_like, parted, places
from splitveil.lab.defenses.parts.self_attention import averages
from splitveil.lab.defenses.pripro import Injection, PriPro
from splitveil.lab.export import save
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import Bundle

SHAPES = [(4, 4, 4), (3, 5, 7), (300, 2, 2), (4, 11, 9), (17,), (600,), (9, 6)]


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def split_of() -> Split:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )
    return trace(net, torch.zeros(2, 3, 8, 8)).split("3")


def installed(split: Split | None = None, **options: float | int | str) -> PriPro:
    torch.manual_seed(1)
    defense = PriPro(**options)  # type: ignore[arg-type]
    defense.install(split or split_of())
    return defense


def batch(h: Tensor, guess: Tensor | None = None) -> Batch:
    x = draws(len(h), 3, 8, 8, seed=3).sigmoid()
    told = None if guess is None else lambda _: Guess(guess)
    return Batch(x, torch.zeros(len(h), dtype=torch.long), h, h, draws(len(h), 5), nn.Identity(), told)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(640)), data.test.take(np.arange(64)), data.classes)


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> nn.Module:
    torch.manual_seed(0)
    model = load_model("small", shape=digits.shape, classes=10, weights=None).model
    split = trace(model, torch.zeros(2, *digits.shape)).split("relu3")
    protected, _ = protect(split, "none", "raw", digits, epochs=5, lr=1e-2)
    model.load_state_dict(protected.split.edge.state_dict() | protected.split.cloud.state_dict())
    return model


@pytest.mark.parametrize("tokens", ["channels", "positions"])
@pytest.mark.parametrize("shape", SHAPES)
def test_sigma_is_within_its_bounds_and_of_its_own_for_every_input(shape: tuple[int, ...], tokens: str) -> None:
    if tokens == "positions" and len(shape) == 1:
        return
    torch.manual_seed(0)
    layer = Injection(shape, tokens=tokens, width=8, least=0.05, most=2.0)
    h = draws(16, *shape)
    layer.calibrate(h)
    for z in (h, 1e4 * h, torch.zeros_like(h)):
        mu, sigma = layer.moments(z)
        assert 0.05 <= sigma.min() <= sigma.max() <= 2.0
        assert mu.expand_as(h).shape == sigma.expand_as(h).shape == h.shape
    sigma = layer.moments(h)[1]
    assert sigma.std(0).min() > 1e-4
    alike = sigma.expand_as(h).flatten(2).std(2) if tokens == "channels" and len(shape) == 3 else torch.zeros(1)
    assert (alike < 1e-6).all()


def test_only_what_a_token_covers_shares_a_sigma() -> None:
    torch.manual_seed(0)
    for tokens, own, shared in (("channels", 1, (2, 3)), ("positions", 2, (1,))):
        layer = Injection((4, 3, 3), tokens=tokens, width=8, least=0.05, most=2.0)
        sigma = layer.moments(draws(2, 4, 3, 3))[1].expand(2, 4, 3, 3)
        assert (sigma.std(shared) < 1e-6).all()
        assert (sigma.std(own) > 1e-4).all()


def test_windows_average_as_adaptive_pooling() -> None:
    x = draws(2, 3, 11, 9)
    ours = averages(8, 11) @ x @ averages(4, 9).T
    assert torch.allclose(ours, F.adaptive_avg_pool2d(x, (8, 4)), atol=1e-6)


def silenced(defense: PriPro) -> float:
    """Attention that says nothing: mu of zero, sigma of the starting size, which is the answer."""
    with torch.no_grad():
        for name, weight in defense.named_parameters():
            if "attention.out" in name:
                weight.zero_()
    return defense.least + (defense.most - defense.least) * 0.1


def test_a_silent_module_adds_noise_of_the_known_size_and_is_paid_its_logarithm() -> None:
    defense, h = installed(weight=0.5, least=0.1, most=2.1), 3 * draws(32, 4, 4, 4)
    defense.calibrate(h)
    sigma, noise = silenced(defense), draws(32, 4, 4, 4, seed=5)
    wanted = h + h.square().mean().sqrt() * sigma * noise
    assert torch.allclose(defense.apply_noise(h, noise), wanted, atol=1e-5)
    assert torch.allclose(defense.mean(h), h)
    assert defense.spread(h) is None
    assert defense.penalty(batch(h)).item() == pytest.approx(-0.5 * math.log(sigma), rel=1e-4)


def test_laplace_noise_has_the_variance_of_the_normal() -> None:
    defense, h = installed(noise="laplace"), torch.zeros(256, 4, 4, 4)
    sigma = silenced(defense)
    sent = defense.apply_noise(h, draws(256, 4, 4, 4, seed=5)).detach().flatten().double().numpy()
    assert sent.std() == pytest.approx(sigma, rel=0.03)
    assert stats.kstest(sent, "laplace", args=(0, sigma / math.sqrt(2))).pvalue > 1e-3


def test_scale_buys_nothing() -> None:
    one, ten = installed(), installed()
    h, noise = draws(32, 4, 4, 4), draws(32, 4, 4, 4, seed=5)
    one.calibrate(h)
    ten.calibrate(10 * h)
    assert torch.allclose(ten.apply_noise(10 * h, noise) / 10, one.apply_noise(h, noise), atol=1e-5)
    assert ten.penalty(batch(10 * h)).item() == pytest.approx(one.penalty(batch(h)).item(), rel=1e-5)


def test_noise_on_dead_channels_earns_nothing() -> None:
    defense, h = installed(weight=1.0), draws(32, 4, 4, 4)
    h[:, 1] = 0.0
    defense.calibrate(h)
    loud = [s.expand_as(h).clone() for s in defense.sigmas(h)]
    loud[0][:, 1] = 3.0
    (layer,) = defense._installed()
    quiet = layer.loudness(defense.sigmas(h)[0])
    assert layer.loudness(loud[0]).item() == pytest.approx(quiet.item(), rel=1e-5)
    loud[0][:, 2] = 3.0
    assert layer.loudness(loud[0]) > quiet + 0.1


def test_averaging_k_requests_helps_as_their_root() -> None:
    defense, h = installed(), draws(8, 4, 4, 4)
    defense.calibrate(h)
    torch.manual_seed(0)
    with torch.no_grad():
        many = torch.stack([defense(h) for _ in range(64 * 16)]).reshape(16, 64, *h.shape)
        one, averaged = ((t - defense.mean(h)).square().mean().sqrt() for t in (many[:, :1], many.mean(1)))
    assert (one / averaged).item() == pytest.approx(8, rel=0.05)


def test_the_reward_for_the_nets_failure_ends_at_its_aim() -> None:
    defense, h = installed(adversarial=2.0, aim=0.3), draws(4, 4, 4, 4)
    own = batch(h)
    alone = defense.penalty(own).item()
    assert defense.penalty(batch(h, guess=own.x)).item() - alone == pytest.approx(2 * 0.3, rel=1e-4)
    assert defense.penalty(batch(h, guess=own.x + 1)).item() == pytest.approx(alone)
    assert defense.adversary((4, 4, 4), (3, 8, 8), 5) is not None
    assert installed().adversary((4, 4, 4), (3, 8, 8), 5) is None


def test_the_weight_rises_within_the_budget_and_falls_over_it() -> None:
    split, h = split_of(), draws(16, 4, 4, 4)
    for budget, rises in ((100.0, True), (1e-4, False)):
        defense = installed(split, weight=1.0, budget=budget)
        (stage,) = defense.stages()
        defense.enter(split, stage)
        own = batch(h)._replace(logits=split.cloud(h) * torch.tensor([-9.0, 1, 1, 1, 1]))
        for _ in range(10):
            defense.penalty(own)
        plain = F.cross_entropy(split.cloud(h), own.y)
        excess = (F.cross_entropy(own.logits, own.y) - plain).item() * (1 - 0.9**10)
        assert defense.excess.item() == pytest.approx(excess, rel=1e-4)
        assert (defense.factor > 1) == rises
        assert defense.factor.item() == pytest.approx(math.exp(0.5 if rises else -0.5), rel=0.1)
        assert defense.finish(split) is split
        assert not defense._cloud


def test_a_generous_budget_is_spent_on_louder_noise() -> None:
    split = split_of()
    h = split.edge(draws(256, 3, 8, 8)).detach()
    split.cloud.get_parameter("5.weight").data.mul_(60)
    y = split.cloud(h).argmax(1)
    own, loud = batch(h)._replace(y=y), []
    for budget in (0.2, 1.0):
        defense = installed(split, budget=budget, most=10.0)
        defense.calibrate(h)
        defense.enter(split, defense.stages()[0])
        optimizer = torch.optim.Adam(defense.parameters(), lr=5e-3)
        torch.manual_seed(0)
        for _ in range(200):
            optimizer.zero_grad()
            logits = split.cloud(defense(h))
            (F.cross_entropy(logits, y) + defense.penalty(own._replace(logits=logits))).backward()
            optimizer.step()
        loud.append(defense.sigmas(h)[0].log().mean().exp().item())
        with torch.no_grad():
            spent = np.mean([F.cross_entropy(split.cloud(defense(h)), y).item() for _ in range(20)])
        spent -= F.cross_entropy(split.cloud(h), y).item()
        assert spent == pytest.approx(budget, rel=0.5)
    assert loud[1] > 1.5 * loud[0]


def test_parts_of_an_edge_half_are_the_edge_half() -> None:
    model = load_model("resnet20", shape=(3, 16, 16), classes=10, weights=None).model
    split = trace(model, torch.zeros(2, 3, 16, 16)).split("layer2")
    assert len(places(split.edge)) == 6  # type: ignore[arg-type]
    x = image_like(split.edge, split.cut.shape, split.cut.edge_macs)
    assert x.shape == (1, 3, 16, 16)
    z = x = draws(*x.shape)
    with torch.no_grad():
        for part in parted(split.edge, 4):
            z = part(z)
        assert torch.equal(z, split.edge(x))


def test_two_layers_train_ship_and_come_back(digits: Dataset, trained: nn.Module, tmp_path: Path) -> None:
    split = trace(trained, torch.zeros(2, *digits.shape)).split("relu2")
    protected, _ = protect(split, "pripro:layers=2,noise=laplace,budget=0.1", "raw", digits, epochs=1)
    defense = protected.defense
    assert isinstance(defense, PriPro)
    assert defense.shapes == ((32, 8, 8), (48, 8, 8))
    assert protected.split.cut == split.cut
    x, drawn = torch.rand(3, *digits.shape), draws(3, *defense.noise_shape((32, 8, 8)))
    with torch.no_grad():
        h = protected.split.edge(x)
        assert torch.equal(protected.split.cloud(defense.parts[0](h)), trained.eval()(x))
        assert defense(h).shape == (3, 48, 8, 8)
        sent = defense.apply_noise(h, drawn)
        for part in (slice(0, 2048), slice(2048, None)):
            other = drawn.clone()
            other[:, part] += 1
            assert not torch.equal(defense.apply_noise(h, other), sent)
    save(
        protected, tmp_path / "b", name="b", model_spec="small", image_shape=digits.shape, classes=digits.classes
    )  # fmt: skip
    again = restore(Bundle.load(tmp_path / "b"))
    with torch.no_grad():
        assert torch.allclose(again.defense.apply_noise(again.split.edge(x), drawn), sent, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"least": 0.0}, {"least": 2.0, "most": 1.0}, {"weight": -1.0}, {"noise": "uniform"}, {"layers": 0},
                {"tokens": "words"}, {"weight": 0.0, "budget": 1.0}],
)  # fmt: skip
def test_bad_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"expected|unknown"):
        PriPro(**options)  # type: ignore[arg-type]


def test_more_layers_than_the_edge_half_has_are_refused() -> None:
    with pytest.raises(InputError, match="layers=2 or less"):
        installed(layers=3)
    with pytest.raises(InputError, match="layers=1"):
        parted(nn.Identity(), 2)
