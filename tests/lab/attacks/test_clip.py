"""Clips: how frames are made and laid together, and what several of them are worth."""

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.clip import Clip
from splitveil.lab.attacks.parts.frames import Camera, laid_over, moved
from splitveil.lab.attacks.view import PRESETS, Aux, View
from splitveil.lab.metrics import METRICS

from .conftest import KNOWN, PRIVATE, SIZE, images, labels

MLE = "mle:steps=25,start=mean,prior=0.1,rate=0.1"


def test_frames_are_shifted_relit_and_noisy_and_the_first_is_the_image() -> None:
    x = images(64, 0).float() / 255
    still = Camera(0, 0.0, 0.0)
    assert torch.equal(still.frame(x, 3, 0), x)
    camera = Camera(2, 0.1, 0.01)
    assert torch.equal(camera.frame(x, 0, 0), x)
    assert torch.equal(camera.frame(x, 1, 0), camera.frame(x, 1, 0))
    assert not torch.equal(camera.frame(x, 1, 0), camera.frame(x, 2, 0))
    noise = Camera(0, 0.0, 0.01).frame(x, 1, 0) - x
    assert noise.std().item() == pytest.approx(0.01, rel=0.1)
    light = Camera(0, 0.1, 0.0).frame(0.5 * x, 1, 0).mean((1, 2, 3)) / (0.5 * x).mean((1, 2, 3))
    assert 0.9 <= light.min() < light.max() <= 1.1


def test_an_image_is_moved_and_laid_back_over_the_first() -> None:
    x = images(8, 0).float() / 255
    by = torch.tensor([[a, b] for a in (-2, 1) for b in (0, 1, -1, 2)])
    frame = moved(x, by)
    assert torch.equal(frame[6, :, 1:, :-1], x[6, :, :-1, 1:])
    back = laid_over(0.9 * frame, x, 2)
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    assert torch.allclose(back[inside], x[inside], atol=0.02)
    assert (back - x).abs().mean() < 0.01


def view_of(sigma: float, frames: int, camera: Camera) -> View:
    """Through an edge that hides a little, under noise; frames as an audit makes them."""
    torch.manual_seed(3)
    edge = nn.Conv2d(3, 12, 3, 2, 1).eval()
    private, known = images(PRIVATE, 1).float() / 255, images(KNOWN, 2)

    def sent(x: Tensor) -> Tensor:
        with torch.no_grad():
            z: Tensor = edge(x)
            return z + sigma * torch.randn_like(z)

    torch.manual_seed(0)
    z, *more = (sent(camera.frame(private, k, 7)) for k in range(frames))
    return View(
        z, (3, SIZE, SIZE), knows=PRESETS["white-box"], aux=Aux(known, labels(known)), edge=edge, query=sent,
        observe=lambda index: sent(known[index].float() / 255), defense=nn.Identity(), cloud=nn.Flatten(), seed=0,
        again=torch.stack(more), stochastic=True,
    )  # fmt: skip


def test_a_clip_under_noise_tells_more_than_one_picture() -> None:
    found = {}
    for spec in (MLE, f"clip:attack=[{MLE}],frames=6,shift=1"):
        attack = ATTACKS.build(spec)
        assert isinstance(attack, Attack)
        view = view_of(0.3, 6, attack.camera or Camera(0, 0.0, 0.0))
        found[spec] = METRICS.build("psnr")(images(PRIVATE, 1).float() / 255, attack(view).x_hat).mean().item()
    once, often = found.values()
    assert often > once + 1


def test_options_needs_and_refusals() -> None:
    attack = ATTACKS.build("clip:attack=linear,frames=3,shift=1")
    assert isinstance(attack, Clip)
    assert (attack.crossings, attack.camera) == (3, Camera(1, 0.1, 0.01))
    assert attack.needs == ATTACKS.build("linear").needs
    assert repr(ATTACKS.build(repr(attack))) == repr(attack)
    assert ATTACKS.build("linear").camera is None
    with pytest.raises(InputError, match="raise its frames"):
        ATTACKS.build("clip:attack=[repeat:attack=linear,k=2]")
    with pytest.raises(InputError, match="use clip:frames=8"):
        ATTACKS.build("clip:frames=1")
