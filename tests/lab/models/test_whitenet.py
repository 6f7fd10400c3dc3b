"""Whitenet: what its constant first step shows, and that every step of it can be cut."""

import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.lab.cut import trace
from splitveil.lab.models.base import Normalize
from splitveil.lab.models.whitenet import Whitening, white_net


@pytest.mark.parametrize("channels", [1, 3])
def test_whitening_is_a_basis_and_its_negative(channels: int) -> None:
    filters = Whitening(Normalize(channels)).filters.flatten(1)
    count = 4 * channels
    assert filters.shape == (2 * count, count)
    assert torch.equal(filters[count:], -filters[:count])
    gram = filters[:count] @ filters[:count].T
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-3)
    assert gram.diagonal().min() > 0


def test_a_grey_image_shows_in_the_mean_of_grey_alone() -> None:
    normalize = Normalize(3, mean=(0.5,) * 3, std=(0.25,) * 3)
    shown = Whitening(normalize)(normalize(torch.full((1, 3, 4, 4), 0.75)))[0, :12, 0, 0]
    # 0.25 in 12 values of unit length 12 ** -0.5, over the standard deviation of that pattern, noise included
    assert shown[0].item() == pytest.approx(0.25 * 12**0.5 / (0.80**2 + 0.022**2) ** 0.5, rel=1e-5)
    assert shown[1:].abs().max() < 1e-5


def test_it_is_no_weight_and_has_no_gradient() -> None:
    net = white_net()
    assert not any("whiten" in name for name, _ in net.named_parameters())
    assert not any("whiten" in name for name in net.state_dict())


def test_every_stage_can_be_cut_and_the_first_is_far_from_the_last() -> None:
    net, x = white_net((3, 32, 32), 5).eval(), torch.rand(2, 3, 32, 32)
    traced = trace(net, x)
    cuts = {cut.name: cut for cut in traced.cuts()}
    stages = ["whiten", "stage1.0", "stage1", "stage2.0", "stage2", "stage3.0", "stage3"]
    assert set(stages) <= set(cuts)
    shares = [cuts[name].edge_macs / (cuts[name].edge_macs + cuts[name].cloud_macs) for name in stages]
    assert shares == sorted(shares)
    assert shares[0] < 0.01
    assert shares[-1] > 0.99
    assert cuts["stage3"].shape == (256, 3, 3)
    with torch.inference_mode():
        for name in stages:
            assert torch.equal(traced.split(name)(x), net(x)), name


def test_images_of_two_channels_are_refused() -> None:
    with pytest.raises(InputError, match="1 or 3 channels, got 2"):
        white_net((2, 32, 32))
