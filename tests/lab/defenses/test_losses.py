"""Loss terms against values worked out by hand, and what each defence is for."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Batch, Guess, Protected
from splitveil.lab.defenses.label_smoothing import smoothed_cross_entropy
from splitveil.lab.defenses.parts.rival import Rival
from splitveil.lab.metrics.dependence import distance_correlation
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.lab.tensors import ssim
from splitveil.wire.codecs import CODECS


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def split_of(channels: int = 4) -> Split:
    net = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 16, 5))
    return trace(net, torch.zeros(2, 3, 8, 8)).split("1")


def batch(z: Tensor, guess: Tensor | None = None) -> Batch:
    x = draws(len(z), 3, 8, 8, seed=3).sigmoid()
    told = None if guess is None else lambda _: Guess(guess)
    return Batch(x, torch.zeros(len(z), dtype=torch.long), z, z, draws(len(z), 5), nn.Identity(), told)


def test_smoothed_labels_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    p = logits.softmax(1)[0]
    wanted = -(0.7 * p[0].log() + 0.15 * p[1].log() + 0.15 * p[2].log())
    assert smoothed_cross_entropy(logits, torch.tensor([0]), 0.3).item() == pytest.approx(wanted.item(), rel=1e-6)
    plain = F.cross_entropy(logits, torch.tensor([0]))
    assert smoothed_cross_entropy(logits, torch.tensor([0]), 0.0).item() == pytest.approx(plain.item(), rel=1e-6)


def test_positive_smoothing_turns_back_where_the_plain_loss_still_pulls() -> None:
    """Theory section of arXiv 2506.15412: the pull on the true logit changes sign once p exceeds 1 - alpha."""
    logits = torch.tensor([[6.0, 0.0, 0.0]], requires_grad=True)
    slopes = {}
    for alpha in (0.3, 0.0, -0.05):
        (slopes[alpha],) = torch.autograd.grad(smoothed_cross_entropy(logits, torch.tensor([0]), alpha), logits)
    assert slopes[0.3][0, 0] > 0 > slopes[0.0][0, 0] > slopes[-0.05][0, 0]


def test_nopeek_is_the_distance_correlation_and_ignores_scale() -> None:
    defense, z = DEFENSES.build("nopeek:weight=2.0"), draws(16, 4, 4, 4)
    own = batch(z)
    assert defense.penalty(own).item() == pytest.approx(2 * distance_correlation(own.x, z).item(), rel=1e-5)
    assert defense.penalty(batch(10 * z)).item() == pytest.approx(defense.penalty(own).item(), rel=1e-5)


def test_laplace_noise_is_laplace_of_the_stated_size() -> None:
    z = draws(512, 8, 4, 4)
    defense = DEFENSES.build("laplace:sigma=0.5,clip=1000.0")
    defense.calibrate(z)
    noise = (defense.apply_noise(z, draws(512, 8, 4, 4, seed=7)) - z).flatten().double().numpy()
    size = 0.5 * 1000 * z.flatten(1).norm(dim=1).median().item() / 128**0.5
    assert noise.std() == pytest.approx(size, rel=0.02)
    assert stats.kstest(noise, "laplace", args=(0, size / math.sqrt(2))).pvalue > 1e-3
    assert stats.kstest(noise, "norm", args=(0, size)).pvalue < 1e-6


def test_dropout_zeroes_its_share_and_leaves_the_rest() -> None:
    defense, z = DEFENSES.build("dropout:rate=0.7"), draws(64, 8, 4, 4) + 3
    torch.manual_seed(0)
    sent = defense(z)
    assert (sent == 0).float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert torch.equal(sent[sent != 0], z[sent != 0])
    assert torch.allclose(torch.stack([defense(z) for _ in range(200)]).mean(0), defense.mean(z), atol=0.6)


def test_the_bottleneck_begins_as_the_identity_and_its_price_is_the_divergence() -> None:
    defense, h = DEFENSES.build("vib:beta=1.0"), draws(8, 4, 4, 4)
    defense.install(split_of())
    assert torch.allclose(defense.mean(h), h, atol=1e-6)
    mean, deviation = h, torch.full_like(h, F.softplus(torch.tensor(-5.0)).item())
    known = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, deviation), torch.distributions.Normal(torch.tensor(0.0), torch.tensor(1.0))
    ).mean()
    assert defense.penalty(batch(h)).item() == pytest.approx(known.item(), rel=1e-4)


def test_cloak_is_paid_for_loudness_and_suppresses_the_loudest() -> None:
    defense = DEFENSES.build("cloak:weight=0.5,least=0.01,most=2.0,suppress=0.25")
    split = defense.install(split_of())
    z = draws(32, 4, 4, 4)
    defense.calibrate(z)
    sigma = 0.01 + 1.99 * 0.1
    assert defense.penalty(batch(z)).item() == pytest.approx(-0.5 * math.log(sigma), rel=1e-4)
    spread = defense.spread(z)
    assert spread is not None
    assert torch.allclose(spread, torch.full((4, 4, 4), sigma * z.square().mean().sqrt().item()), rtol=1e-4)
    with torch.no_grad():
        defense.get_parameter("rho")[0] = 5.0
    defense.finish(split)
    assert (defense.mean(z)[:, 0] == 0).all()
    assert torch.equal(defense.mean(z)[:, 1:], z[:, 1:])


def test_the_rival_learns_and_the_edge_never_moves_it() -> None:
    split = split_of()
    defense = DEFENSES.build("adversarial:weight=3.0,term=mse,aim=1.0")
    protected = Protected(split, defense, CODECS.build("raw"))
    protected.rival = defense.adversary(split.cut.shape, (3, 8, 8), 10)
    x, y = draws(6, 3, 8, 8, seed=3).sigmoid(), torch.zeros(6, dtype=torch.long)
    protected.loss(x, y).backward()
    assert protected.rival is not None
    own = [p.grad.clone() for p in protected.rival.parameters() if p.grad is not None]
    z = split.edge(x).detach()
    protected.rival.zero_grad()
    F.mse_loss(protected.rival(z).image, x).backward()
    # The rival's gradient is that of its own loss alone: what rewards the edge does not reach it.
    for before, parameter in zip(own, protected.rival.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.allclose(before, parameter.grad, atol=1e-7)
    assert split.edge.get_parameter("0.weight").grad is not None


def test_the_reward_for_fooling_ends_at_its_aim() -> None:
    defense = DEFENSES.build("adversarial:weight=2.0,term=ssim,aim=0.3")
    own = batch(draws(4, 4, 4, 4))
    same = batch(own.z, guess=own.x)
    assert defense.penalty(same).item() == pytest.approx(2 * (ssim(own.x, own.x).mean().item() - 0.3), rel=1e-4)
    assert defense.penalty(batch(own.z, guess=1 - own.x)).item() == 0
    assert defense.penalty(own).item() == 0


@pytest.mark.parametrize("cut", [(4, 4, 4), (3, 5, 5), (17,), (9, 6), (2, 16, 16)])
def test_a_rival_fits_any_cut(cut: tuple[int, ...]) -> None:
    assert Rival(cut, (3, 12, 12))(draws(2, *cut)).image.shape == (2, 3, 12, 12)


def test_top_k_keeps_the_largest() -> None:
    z = draws(5, 4, 4, 4)
    sent = DEFENSES.build("top_k:keep=0.25").apply_noise(z, None)
    assert ((sent != 0).flatten(1).sum(1) == 16).all()
    assert (sent.flatten(1).abs().amax(1) == z.flatten(1).abs().amax(1)).all()
    kept, left = sent != 0, z.abs().masked_fill(sent != 0, 0)
    assert (z.abs().masked_fill(~kept, 9e9).flatten(1).amin(1) >= left.flatten(1).amax(1)).all()
    assert torch.equal(sent[kept], z[kept])


def test_training_with_an_adversary_makes_its_own_guess_worse() -> None:
    """The direction only: a fresh adversary is what an audit brings."""
    data = load_data("digits")
    few = Dataset("digits", data.train.take(np.arange(512)), data.test.take(np.arange(64)), data.classes)
    x = torch.from_numpy(few.train.x).float() / 255
    left = []
    for weight in (0.0, 20.0):
        torch.manual_seed(0)
        model = load_model("small", shape=few.shape, classes=10, weights=None).model
        split = trace(model, torch.zeros(2, *few.shape)).split("relu2")
        protected, _ = protect(split, f"adversarial:weight={weight},term=mse,aim=0.2", "raw", few, epochs=4)
        with torch.no_grad():
            z = F.pad(protected.split.edge(x).flatten(1).double(), (0, 1), value=1.0)
        ridge = 1e-3 * torch.eye(z.shape[1], dtype=torch.float64)
        guess = z @ torch.linalg.solve(z.T @ z + ridge, z.T @ x.flatten(1).double())
        left.append((guess - x.flatten(1)).square().mean().item())
    assert left[1] > 1.2 * left[0]


@pytest.mark.parametrize(
    "spec", ["label_smoothing:alpha=1", "nopeek:weight=-1", "dropout:rate=1", "adversarial:term=lpips", "vib:beta=-1",
             "cloak:least=2,most=1", "top_k:keep=0"],
)  # fmt: skip
def test_bad_options_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"expected|unknown"):
        DEFENSES.build(spec)
