import pytest
import torch

from splitveil.lab.attacks.parts.generator import AutoEncoder, Generator, train_generator
from splitveil.lab.attacks.view import Aux

from .conftest import images, labels


def small(image: tuple[int, int, int] = (3, 16, 16)) -> Generator:
    torch.manual_seed(0)
    return Generator(image, torch.full(image, 0.5), width=8, blocks=1)


@pytest.mark.parametrize("image", [(3, 32, 32), (1, 28, 28), (3, 30, 22), (3, 12, 12), (3, 64, 48), (1, 112, 92)])
def test_any_image_shape_is_drawn_and_encoded(image: tuple[int, int, int]) -> None:
    both = AutoEncoder(small(image))
    x = both.generator(torch.randn(2, both.generator.length))
    assert x.shape == (2, *image)
    assert both.encode(x).shape == (2, both.generator.length)
    assert both(x).shape == (2,)


@pytest.mark.parametrize("image", [(3, 16, 16), (3, 30, 22)])
def test_every_shift_reaches_the_image(image: tuple[int, int, int]) -> None:
    generator = small(image)
    w, plain = torch.randn(1, generator.length), generator(torch.zeros(1, generator.length))
    shifts = [torch.zeros(1, *shape, requires_grad=True) for shape in generator.shifts]
    assert torch.equal(generator(torch.zeros_like(w), shifts), plain)
    generator(w, shifts).square().sum().backward()
    assert all(shift.grad is not None and shift.grad.abs().sum() > 0 for shift in shifts)


def test_inputs_are_what_shifts_are_added_to() -> None:
    generator = small()
    w = torch.randn(2, generator.length)
    for k, (given, shape) in enumerate(zip(generator.inputs(w), generator.shifts, strict=False)):
        assert given.shape == (2, *shape)
        shifts = [torch.zeros(2, *s) for s in generator.shifts]
        shifts[k] = -given
        rest = generator.draw(torch.zeros(2, *generator.grid), shifts)
        assert not torch.allclose(rest, generator(w))


@pytest.mark.parametrize("whole", [True, False])
def test_whitened_latents_are_standard_normal_and_come_back(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitveil.lab.attacks.parts.generator.WHOLE", 10_000 if whole else 0)
    generator = small()
    mixing = torch.randn(generator.length, generator.length) / generator.length**0.5
    latents = (3 + torch.randn(2000, generator.length) @ mixing).unflatten(1, generator.grid)
    generator.whiten(latents, torch.full_like(latents, 1e-8))
    w = generator.white(latents)
    assert torch.allclose(generator.latent(w), latents, atol=1e-3)
    assert w.mean(0).abs().max() < 1e-3
    covariance = w.T @ w / len(w)
    assert torch.allclose(covariance.diagonal(), torch.ones(generator.length), atol=1e-2)
    assert (covariance - torch.eye(generator.length)).abs().max() < (1e-2 if whole else 1)


def test_posterior_variance_keeps_directions_open_that_few_images_leave_flat() -> None:
    generator = small()
    same = torch.ones(4, *generator.grid)
    generator.whiten(same, torch.full_like(same, 0.25))
    assert torch.allclose(generator.latent(torch.randn(500, generator.length)).std(), torch.tensor(0.5), atol=0.02)


def test_training_learns_to_draw_the_adversarys_images() -> None:
    known, unseen = images(256, 2), images(32, 3).float() / 255
    torch.manual_seed(0)
    aux = Aux(known, labels(known))
    both = train_generator(
        aux, (3, 16, 16), width=16, blocks=1, steps=400, epochs=1, seed=0, checkpoint=None, what="generator"
    )
    both.requires_grad_(False)
    back = both.generator(both.encode(unseen))
    mean = aux.images().mean(0)
    assert (back - unseen).square().mean() < 0.4 * (mean - unseen).square().mean()
    drawn = both.generator(torch.randn(256, both.generator.length))
    assert 0.4 < float(drawn.std() / aux.images().std()) < 1.6
