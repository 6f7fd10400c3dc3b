"""At least this leaks, beside at most this leaks: no attack may get below the floor that the noise guarantees."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.data import Dataset, Images
from splitveil.lab.metrics.bounds.dfil import certificate, sigma_for_floor
from splitveil.lab.metrics.bounds.prior import gaussian_score, noise_score
from splitveil.lab.protection import protect

from .conftest import Trained

ATTACKS = custom_suite(["linear", "decoder:size=tiny,epochs=4,steps=200", "mle:steps=30", "repeat:attack=linear,k=4"])


BLUR = 0.05


def faded(images: Images) -> Images:
    """At half the contrast, so that a blur stays within [0, 1]."""
    return replace(images, x=(64 + 0.5 * images.x).round().astype(np.uint8))


def blurred(images: Images, seed: int) -> Images:
    """Images with a density: the bound speaks of such, not of images whose pixels are exactly black."""
    noise = np.random.default_rng(seed).normal(0, 255 * BLUR, images.x.shape)
    return replace(images, x=(images.x + noise).round().clip(0, 255).astype(np.uint8))


@pytest.mark.long
@pytest.mark.parametrize("sigma", [0.5, pytest.param(3.0, marks=pytest.mark.long)])
def test_no_attack_gets_below_the_floor(trained: Trained, sigma: float) -> None:
    clear = Dataset("faded", faded(trained.data.train), faded(trained.data.test), trained.data.classes)
    data = Dataset("blurred", blurred(clear.train, 0), blurred(clear.test, 1), clear.classes)
    assert data.test.x.min() > 0 or (data.test.x == 0).mean() < 1e-4
    protected, _ = protect(trained.traced.split("relu1"), f"noise:sigma={sigma}", "raw", data)
    x = torch.from_numpy(clear.test.x).float() / 255
    noise = protected.defense.spread(protected.split.edge(x[:1]))
    assert noise is not None

    def f(x: torch.Tensor) -> torch.Tensor:
        return protected.defense.mean(protected.split.edge(x))

    subject = Subject.of_split(protected, model="small", weights="test")
    card = audit(subject, data, suite=ATTACKS, n=40, samples=0).card
    floors = {
        k: certificate(f, x, noise, score=noise_score(x[0].numel(), BLUR), queries=k).surest or 0.0 for k in (1, 4)
    }
    assert floors[1] > floors[4] > 0
    rows = [r for r in card.rows if r.defense != "none"]
    for row in rows:
        assert row.mse >= floors[4 if row.attack == "repeat" or row.attack.startswith("worst_case") else 1], row.attack
    # No empty promise: the floor lies within reach of what an attack gets.
    assert floors[1] > 0.2 * min(r.mse for r in rows if r.attack != "repeat")


def test_noise_solved_for_a_floor_keeps_it(trained: Trained) -> None:
    split = trained.traced.split("relu1")
    x = torch.from_numpy(trained.data.test.x).float() / 255
    score = gaussian_score(torch.from_numpy(trained.data.train.x).float() / 255)
    sigma = sigma_for_floor(split.edge, x, 0.004, score=score)
    found = certificate(split.edge, x, sigma, score=score)
    assert found.floor == pytest.approx(0.004, rel=1e-4)
    weaker = certificate(split.edge, x, sigma / 2, score=score)
    assert weaker.floor is not None
    assert weaker.floor < 0.004
