"""The floor asked for is the floor that the finished split has."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected, Sample
from splitveil.lab.defenses.noise import GaussianNoise, LaplaceNoise, privacy_words
from splitveil.lab.defenses.noise_for_floor import NoiseForFloor
from splitveil.lab.metrics.bounds import Certificate, certificate, gaussian_score, noise_score
from splitveil.lab.metrics.bounds.accounting import gaussian_delta, laplace_epsilon
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(256)), data.test.take(np.arange(64)), data.classes)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def rotation(scale: float) -> Split:
    """An edge whose Jacobian is `scale` times a rotation."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(48, 5))
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        net.get_parameter("0.weight").copy_((scale * turn)[:, :, None, None])
        net.get_parameter("0.bias").zero_()
    return trace(net.eval(), torch.zeros(2, 3, 4, 4)).split("0")


def told(protected: Protected, x: Tensor, sample: Tensor) -> Certificate:
    """The certificate as an audit prints it."""
    noise = protected.defense.spread(protected.split.edge(x[:1]))
    assert noise is not None
    return certificate(
        lambda x: protected.defense.mean(protected.split.edge(x)), x, noise.double(),
        score=gaussian_score(sample), seed=5,
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_a_rotation_has_the_closed_form(scale: float) -> None:
    sample, split = Sample(images(128), torch.zeros(128, dtype=torch.long), 0), rotation(scale)
    z = torch.zeros(1, 3, 4, 4)
    plain = NoiseForFloor(mse=0.02, adversary="unbiased", clip=1e3)
    plain.study(split, sample)
    spread = plain.spread(z)
    assert spread is not None
    assert torch.allclose(spread, torch.full((3, 4, 4), scale * math.sqrt(0.02)), rtol=1e-4)
    every = NoiseForFloor(mse=0.005, clip=1e3)
    every.study(split, sample)
    prior = gaussian_score(sample.x).trace
    spread = every.spread(z)
    assert spread is not None
    sigma = scale * math.sqrt(48 / (48 / 0.005 - prior))
    assert torch.allclose(spread, torch.full((3, 4, 4), sigma), rtol=1e-4)


@pytest.mark.parametrize(("adversary", "mse"), [("any", 0.01), ("unbiased", 0.05)])
def test_the_finished_split_has_the_floor(adversary: str, mse: float, digits: Dataset) -> None:
    model = load_model("small", shape=digits.shape, classes=10, weights=None).model
    split = trace(model, torch.zeros(2, *digits.shape)).split("relu2")
    before = next(split.edge.parameters()).detach().clone()
    defense = NoiseForFloor(mse=mse, adversary=adversary)
    protected, _ = protect(split, defense, "raw", digits, epochs=2, lr=2e-2)
    assert not torch.equal(before, next(split.edge.parameters()))
    x = torch.from_numpy(digits.train.x).float() / 255
    found = told(protected, x[:128], x)
    floor = found.floor if adversary == "any" else found.unbiased
    assert floor is not None
    assert 0.93 * mse < floor < 1.5 * mse
    assert defense._kept is None
    assert not any("kept" in name for name in defense.state_dict())


def test_the_edge_cannot_gain_by_scale() -> None:
    sample, noise = Sample(images(128), torch.zeros(128, dtype=torch.long), 0), torch.randn(128, 3, 4, 4)
    sent = []
    for scale in (1.0, 10.0):
        split, defense = rotation(scale), NoiseForFloor(mse=0.005)
        defense.study(split, sample)
        with torch.no_grad():
            sent.append(defense.apply_noise(split.edge(sample.x), noise) / scale)
    assert torch.allclose(sent[0], sent[1], rtol=1e-4, atol=1e-5)


def test_a_floor_beyond_what_an_adversary_guesses_blindly_is_refused() -> None:
    sample, split = Sample(images(128), torch.zeros(128, dtype=torch.long), 0), rotation(1.0)
    with pytest.raises(InputError, match="reads nothing"):
        NoiseForFloor(mse=0.2).study(split, sample)
    NoiseForFloor(mse=0.2, adversary="unbiased").study(split, sample)
    with pytest.raises(InputError, match="above 0"):
        NoiseForFloor(mse=0.0)
    with pytest.raises(InputError, match="above 0"):
        NoiseForFloor(blur=-1.0)
    with pytest.raises(InputError, match="any or unbiased"):
        NoiseForFloor(adversary="all")


def test_large_images_get_what_holds_for_all_data() -> None:
    assert noise_score(5000, 0.1).trace == pytest.approx(5000 / 0.01)
    net = nn.Sequential(nn.Conv2d(1, 2, 8, 8), nn.Flatten(), nn.Linear(162, 5))
    split = trace(net.eval(), torch.zeros(2, 1, 72, 72)).split("0")
    x = torch.rand(8, 1, 72, 72, generator=torch.Generator().manual_seed(0))
    defense = NoiseForFloor(mse=0.009)
    defense.study(split, Sample(x, torch.zeros(8, dtype=torch.long), 0))
    with pytest.raises(InputError, match="reads nothing"):
        NoiseForFloor(mse=0.011).study(split, Sample(x, torch.zeros(8, dtype=torch.long), 0))


def test_epsilon_is_that_of_the_clip_and_the_noise() -> None:
    cut = (4, 4, 4)
    defense = GaussianNoise(sigma=2.0, clip=0.5)
    z = torch.randn(32, *cut, generator=torch.Generator().manual_seed(0))
    defense.calibrate(z)
    spread = defense.spread(z)
    assert spread is not None
    two = defense.mean(torch.stack([1e3 * z[0], -1e3 * z[0]]))
    apart, sigma = (two[0] - two[1]).norm().item(), spread.flatten()[0].item()
    assert gaussian_delta(apart, sigma, defense.epsilon(cut, delta=1e-5)) == pytest.approx(1e-5, rel=1e-3)
    laplace = LaplaceNoise(sigma=2.0)
    laplace.calibrate(z)
    corner = laplace.radius.item() / 64**0.5  # the two points of the ball that L1 calls farthest apart
    wanted = laplace_epsilon(2 * 64 * corner, 2.0 * corner / 2**0.5)
    assert laplace.epsilon(cut) == pytest.approx(wanted, rel=1e-5)


def test_only_clipped_noise_is_called_private() -> None:
    assert privacy_words(GaussianNoise(sigma=1.0), (4, 4, 4)).startswith("local DP of one answer: epsilon = 1")
    assert "delta = 0," in privacy_words(LaplaceNoise(sigma=1.0), (4, 4, 4))
    assert privacy_words(NoiseForFloor(), (4,)).startswith("local DP")
    for spec in ("noise:sigma=0.0", "none", "vib", "cloak", "dropout"):
        assert privacy_words(DEFENSES.build(spec), (4, 4, 4)).startswith("no differential privacy")
