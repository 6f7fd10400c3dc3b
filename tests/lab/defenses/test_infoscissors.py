import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses.base import Batch, Guess, Sample
from splitveil.lab.defenses.infoscissors import InfoScissors, image_bound, label_bound
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def told(x: Tensor, y: Tensor, guess: Guess) -> Batch:
    z = draws(len(x), 2)
    return Batch(x, y, z, z, draws(len(x), 3), nn.Identity(), lambda _: guess)


def test_the_image_bound_is_the_difference_of_log_likelihoods_over_all_pairs() -> None:
    x, guess, variance = draws(5, 2, 3, 3), draws(5, 2, 3, 3, seed=1), 0.3
    log = torch.tensor(
        [[torch.distributions.Normal(g, variance**0.5).log_prob(other).mean() for other in x] for g in guess]
    )
    assert image_bound(guess, x, variance).item() == pytest.approx((log.diag().mean() - log.mean()).item(), rel=1e-4)
    own = x.var(0, unbiased=False).mean()
    assert image_bound(x, x, own).item() == pytest.approx(1, rel=1e-5)
    assert image_bound(draws(2, 3, 3, seed=2).expand_as(x), x, own).item() == pytest.approx(0, abs=1e-6)


def test_the_label_bound_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]])
    # Right with 3/4, and with 1/4 for the other label: log 3/4 - (log 3/4 + log 1/4) / 2.
    wanted = math.log(0.75) - (math.log(0.75) + math.log(0.25)) / 2
    assert label_bound(logits, torch.tensor([0, 1])).item() == pytest.approx(wanted, rel=1e-5)
    assert label_bound(torch.zeros(4, 3), torch.tensor([0, 1, 2, 2])).item() == pytest.approx(0, abs=1e-6)


def test_the_whole_penalty_by_hand_and_its_floor() -> None:
    defense = InfoScissors(x=2.0, y=3.0, adversarial=0.5)
    x, y, label = draws(6, 3, 4, 4).sigmoid(), torch.arange(6) % 3, draws(6, 3, seed=4)
    defense.study(trace_of(), Sample(x, y, 0))
    variance = x.var(0, unbiased=False).mean()
    assert defense.variance.item() == pytest.approx(variance.item(), rel=1e-5)
    half = (x + x.mean(0)) / 2
    wanted = 2 * 0.5 + 0.5 * (1 - 0.25) + 3 * label_bound(label, y).clamp_min(0).item()
    assert defense.penalty(told(x, y, Guess(half, label))).item() == pytest.approx(wanted, rel=1e-4)
    mirrored = Guess(2 * x.mean(0) - x, -50 * torch.nn.functional.one_hot(y, 3).float())
    assert defense.penalty(told(x, y, mirrored)).item() == 0, "no reward beyond knowing nothing"
    assert defense.penalty(told(x, y, mirrored)._replace(guess=None)).item() == 0


def test_the_bound_pushes_the_guess_towards_knowing_nothing() -> None:
    defense, x, y = InfoScissors(adversarial=0.0, y=0.0), draws(6, 3, 4, 4).sigmoid(), torch.zeros(6).long()
    guess = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(defense.penalty(told(x, y, Guess(guess))), guess)
    with torch.no_grad():
        after = defense.penalty(told(x, y, Guess(guess - 0.1 * slope / slope.norm())))
        assert after < defense.penalty(told(x, y, Guess(guess)))


def test_noise_is_clipped_and_relative_and_may_be_none() -> None:
    z, noise = draws(32, 4, 4, 4), draws(32, 4, 4, 4, seed=1)
    none = InfoScissors(sigma=0.0, clip=1000.0)
    none.calibrate(z)
    assert torch.equal(none.apply_noise(z, noise), z)
    some = InfoScissors(sigma=0.5)
    some.calibrate(z)
    assert torch.allclose(some.mean(100 * z), some.mean(10 * z), atol=1e-4), "loud features are clipped"


def test_its_rival_guesses_images_and_labels() -> None:
    rival = InfoScissors().adversary((4, 4, 4), (3, 8, 8), 5)
    assert rival is not None
    guess = rival(draws(2, 4, 4, 4))
    assert guess.image.shape == (2, 3, 8, 8)
    assert guess.label is not None
    assert guess.label.shape == (2, 5)


def test_the_weight_on_the_image_makes_a_linear_guess_worse() -> None:
    """The direction only, of another adversary than the one that it trained with."""
    data = load_data("digits")
    few = Dataset("digits", data.train.take(np.arange(256)), data.test.take(np.arange(64)), data.classes)
    x = torch.from_numpy(few.train.x).float() / 255
    left = []
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        defense = InfoScissors(x=weight, y=0.0, adversarial=weight, sigma=0.3)
        protected, history = protect(trace_of(), defense, "raw", few, epochs=4)
        with torch.no_grad():
            torch.manual_seed(0)
            z = protected.observe(protected.split.edge(x)).flatten(1).double()
        z = torch.cat([z, torch.ones(len(z), 1, dtype=torch.float64)], 1)
        ridge = z.T @ z + 10 * torch.eye(z.shape[1], dtype=torch.float64)
        guess = z @ torch.linalg.solve(ridge, z.T @ x.flatten(1).double())
        left.append((guess - x.flatten(1)).square().mean().item())
    assert history.scores[-1] > 0.5
    assert left[1] > 1.1 * left[0], left


def test_bad_options_are_refused() -> None:
    for options in ({"x": -1.0}, {"y": -1.0}, {"adversarial": -1.0}, {"sigma": -1.0}):
        with pytest.raises(InputError, match="expected"):
            InfoScissors(**options)


def trace_of() -> Split:
    model = load_model("small", shape=(1, 8, 8), classes=10, weights=None).model
    return trace(model, torch.zeros(2, 1, 8, 8)).split("relu2")
