import pytest
import torch
from torch import nn

from splitveil.lab.attacks.parts.likelihood import folded
from splitveil.lab.attacks.parts.whitening import Whitening, cosines, opponents
from splitveil.lab.cut import split
from splitveil.lab.models.resnet import resnet20

from .conftest import images


def test_folding_keeps_the_features() -> None:
    net = resnet20((3, 16, 16))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    edge, x = split(net, "layer2", torch.zeros(2, 3, 16, 16)).edge, torch.rand(3, 3, 16, 16)
    small = folded(edge)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in small.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in edge.modules())
    assert torch.allclose(small(x), edge(x), atol=1e-4)


@pytest.mark.parametrize("n", [4, 7, 32])
def test_cosines_are_orthonormal(n: int) -> None:
    assert torch.allclose(cosines(n) @ cosines(n).T, torch.eye(n), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colour_axes_are_orthonormal(channels: int) -> None:
    assert torch.allclose(opponents(channels) @ opponents(channels).T, torch.eye(channels), atol=1e-6)


def test_whitened_aux_images_are_about_standard_normal() -> None:
    x = images(512, 0)
    centred = x.float() / 255 - (x.float() / 255).mean(0)
    space = Whitening.of(centred, (3, 16, 16))
    p = torch.einsum("cd,ndhw->nchw", space.colours, space.rows @ centred @ space.columns.T) / space.scale
    assert p.std(0).max().item() == pytest.approx(1, abs=0.1)
    assert torch.allclose(space.image(p), centred, atol=1e-4)


def test_without_aux_the_space_has_a_natural_spread() -> None:
    space = Whitening.of(None, (3, 16, 24))
    assert torch.equal(space.image(torch.zeros(2, 3, 16, 24)), torch.zeros(2, 3, 16, 24))
    drawn = space.image(torch.randn(64, 3, 16, 24, generator=torch.Generator().manual_seed(0)))
    assert 0.05 < drawn.std() < 0.5
