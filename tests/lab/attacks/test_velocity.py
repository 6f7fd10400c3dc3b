import math

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.attacks.parts.velocity import Matching, Velocity, follow
from splitveil.lab.attacks.parts.whitening import Whitening


@pytest.mark.parametrize("image", [(3, 32, 32), (1, 28, 28), (3, 30, 22), (1, 112, 92)])
@pytest.mark.parametrize("features", [(8, 16, 16), (64, 4, 4), (17, 24), (20,)])
def test_any_features_and_images_fit(features: tuple[int, ...], image: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    velocity = Velocity(features, image, width=8, blocks=1)
    nn.init.normal_(velocity.head.weight)
    z, guess = torch.randn(2, *features, requires_grad=True), torch.rand(2, *image, requires_grad=True)
    out = velocity(torch.randn(2, *image), torch.rand(2), velocity.context(z, guess))
    assert out.shape == (2, *image)
    out.square().sum().backward()
    assert z.grad is not None
    assert guess.grad is not None
    assert z.grad.abs().sum() > 0
    assert guess.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in velocity.parameters())


def test_following_is_exact_on_straight_paths_and_second_order_on_curved_ones() -> None:
    torch.manual_seed(0)
    noise, end = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)

    def growing(r: Tensor, t: Tensor) -> Tensor:
        return r

    assert torch.allclose(follow(lambda r, t: end - noise, noise, 3), end, atol=1e-5)
    errors = [(follow(growing, noise, k) - noise * math.e).abs().max().item() for k in (8, 16)]
    assert errors[1] < 0.35 * errors[0]


def test_noise_has_the_residuals_spread() -> None:
    torch.manual_seed(0)
    r = torch.randn(2000, 3, 8, 8) * torch.linspace(0.1, 1, 8)
    space = Whitening.of(r, (3, 8, 8))
    drawn = space.image(torch.randn(2000, 3, 8, 8))
    assert drawn.std().item() == pytest.approx(r.std().item(), rel=0.05)


def test_a_net_that_knows_nothing_pays_for_noise_and_residual() -> None:
    torch.manual_seed(0)
    r = 0.1 * torch.randn(512, 3, 8, 8)
    matching = Matching(Velocity((4, 2, 2), (3, 8, 8), width=8, blocks=1), Whitening.of(r, (3, 8, 8)), 0.1)
    loss = matching(torch.randn(512, 4, 2, 2), torch.rand(512, 3, 8, 8), r)
    assert loss.item() == pytest.approx(2, rel=0.05)
