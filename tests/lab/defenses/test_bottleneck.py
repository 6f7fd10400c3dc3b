"""The passage starts with what the cloud half listens to."""

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import trace
from splitveil.lab.cut.pieces import Split
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Sample


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def listening(heard: int, scale: float = 1.0) -> Split:
    """Eight channels, of which the cloud half hears `heard` mixtures."""
    torch.manual_seed(0)
    first, mixed, head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, heard, 1), nn.Linear(heard * 16, 5)
    net = nn.Sequential(first, nn.Tanh(), mixed, nn.Flatten(), head)
    with torch.no_grad():
        mixed.weight.div_(scale)
        head.weight.mul_(3)
    split = trace(net, torch.zeros(2, 3, 8, 8)).split("1")
    return Split(Scaled(split.edge, scale), split.cloud, split.cut)


class Scaled(nn.Module):
    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.factor * self.net(x)
        return z


X, Y = draws(256, 3, 8, 8, seed=1).sigmoid(), torch.arange(256) % 5


def narrowed(split: Split, spec: str) -> Split:
    defense = DEFENSES.build(spec)
    installed = defense.install(split).eval()
    defense.study(installed, Sample(X, Y, 0))
    return installed


def test_what_the_cloud_does_not_hear_is_left_out_and_the_rest_stays() -> None:
    split = listening(2)
    with torch.no_grad():
        before = split(X)
        after = narrowed(listening(2), "bottleneck:channels=2")(X)
        less = narrowed(listening(2), "bottleneck:channels=1")(X)
    assert torch.allclose(after, before, atol=1e-3)
    assert not torch.allclose(less, before, atol=1e-1)


def test_channels_sent_have_unit_variance_and_do_not_correlate() -> None:
    with torch.no_grad():
        z = narrowed(listening(6), "bottleneck:channels=4").edge(X).transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(z), torch.eye(4), atol=2e-3)
    assert torch.allclose(z.mean(1), torch.zeros(4), atol=1e-4)


def test_the_scale_of_the_features_changes_nothing() -> None:
    with torch.no_grad():
        one, ten = (narrowed(listening(6, s), "bottleneck:channels=4") for s in (1.0, 10.0))
        assert torch.allclose(one.edge(X).abs(), ten.edge(X).abs(), atol=1e-3)
        assert torch.allclose(one(X), ten(X), atol=1e-3)


def test_half_the_resolution_and_its_costs() -> None:
    split = narrowed(listening(6), "bottleneck:channels=4,pool=2")
    assert split.cut.shape == split.edge(X[:2]).shape[1:] == (4, 2, 2)
    assert split.cut.edge_params == 8 * 4 + 4 + 8 * 27 + 8
    assert split(X[:2]).shape == (2, 5)


def test_dead_channels_are_no_fault() -> None:
    split = listening(2)
    with torch.no_grad():
        split.edge.get_parameter("net.0.weight")[0] = 0
        split.edge.get_parameter("net.0.bias")[0] = 0
        sent = narrowed(split, "bottleneck:channels=4").edge(X)
    assert sent.isfinite().all()


def test_what_it_cannot_do_is_refused() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 6), nn.ReLU(), nn.Linear(6, 10))
    with pytest.raises(InputError, match="expected a feature map"):
        DEFENSES.build("bottleneck").install(trace(flat, torch.zeros(2, 3, 8, 8)).split("2"))
    with pytest.raises(InputError, match="pool of 1, 2 or 4"):
        DEFENSES.build("bottleneck:pool=3")
    with pytest.raises(InputError, match="put bottleneck after"):
        narrowed(listening(2), "chain:of=[bottleneck:channels=4 + siftfunnel:replace=0]")
