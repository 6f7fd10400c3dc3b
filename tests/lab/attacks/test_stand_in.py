import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from splitveil.lab.attacks.parts.stand_in import Likeness, OwnEdge, Reviving, StandInEdge, revivable

CUTS = [(7, 16, 16), (8, 8, 8), (5, 3, 5), (4, 20, 20), (64, 1, 1), (9,), (16, 6), (17, 6), (11, 6)]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("rectified", [False, True])
def test_an_edge_of_its_own_ends_in_the_shape_of_the_features(cut: tuple[int, ...], rectified: bool) -> None:
    net = OwnEdge((3, 16, 16), cut, rectified=rectified)
    z = net(torch.rand(8, 3, 16, 16))
    assert z.shape == (8, *cut)
    assert bool((z >= 0).all()) == rectified
    z.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(("cut", "stride"), [((7, 28, 28), 1), ((7, 24, 24), 1), ((7, 14, 14), 2), ((7, 10, 10), 2)])
def test_features_lie_where_convolutions_with_or_without_padding_put_them(cut: tuple[int, ...], stride: int) -> None:
    """What moves by one cell in the picture does so in the features, and the middle of one is that of the other."""
    torch.manual_seed(0)
    net = OwnEdge((1, 28, 28), cut, rectified=False).requires_grad_(False)
    x = torch.zeros(1, 1, 28, 28)
    x[..., 12:16, 12:16] = torch.rand(4, 4)
    empty = net(torch.zeros_like(x))
    here, moved = net(x) - empty, net(x.roll(stride, 3)) - empty
    assert (here[..., :-1] - moved[..., 1:]).norm() < 0.05 * here.norm()
    columns = here.square().sum((0, 1, 2))
    middle = (torch.arange(cut[2]) * columns).sum() / columns.sum()
    assert abs(float(middle) - (cut[2] - 1) / 2) < 0.75


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_stand_in_begins_with_the_mean_and_spread_of_the_features(scale: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(256, 3, 16, 16)
    seen = scale * (3 + 2 * nn.Conv2d(3, 6, 3)(x).detach())
    seen[:, 2] = -5.0 * scale
    z = StandInEdge(nn.Conv2d(3, 6, 3), seen, x)(x)
    assert torch.allclose(z.mean((0, 2, 3)), seen.mean((0, 2, 3)), rtol=1e-3)
    assert torch.allclose(z.std((0, 2, 3)), seen.std((0, 2, 3)), rtol=1e-3, atol=1e-3 * scale)


def test_zeros_of_a_rectified_stand_in_stay_zeros() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), torch.rand(64, 3, 16, 16)
    z = StandInEdge(net, torch.relu(torch.randn(64, 6, 14, 14)), x)(x)
    assert torch.equal(z == 0, net(x) == 0)


@pytest.mark.parametrize("shape", [(6, 4, 4), (12,), (9, 6)])
def test_likeness_vanishes_for_the_edge_itself(shape: tuple[int, ...]) -> None:
    seen = torch.randn(64, *shape)

    class Known(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return seen + 0 * x.mean()

    x, unknown = torch.rand(64, 3, 8, 8), torch.full((64,), -1)
    stand_in = StandInEdge(Known(), seen, x)
    assert Likeness(stand_in, seen, None)(x, seen).item() == pytest.approx(0, abs=1e-6)
    assert Likeness(stand_in, seen, nn.Flatten())(x, unknown).item() == pytest.approx(0, abs=1e-6)
    assert Likeness(stand_in, seen, nn.Flatten())(x, unknown + 1).item() > 0.1
    assert Likeness(stand_in, seen, None)(x, 1 + seen).item() > 0.1
    assert Likeness(stand_in, 2 + 3 * seen, nn.Flatten())(x, unknown).item() > 0.1


class Called(nn.Module):
    """ReLUs in every way of writing them."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Sequential(nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = F.relu(x) + torch.relu(x - 1) + self.act(x + 1).relu()
        return z


def test_a_revived_net_says_the_same_and_its_silence_has_a_gradient() -> None:
    x = torch.randn(64, requires_grad=True)
    net, plain = revivable(fx.symbolic_trace(Called())), Called()
    for training in (True, False):
        assert torch.equal(net.train(training)(x), plain(x))
    assert sum(isinstance(m, Reviving) for m in net.modules()) == 4
    silent = x.detach() < -1
    assert silent.any()
    (learning,) = torch.autograd.grad(net.train()(x).sum(), x)
    (asleep,) = torch.autograd.grad(net.eval()(x).sum(), x)
    assert (learning[silent] > 0).all()
    assert (asleep[silent] == 0).all()


def test_a_silent_channel_learns_to_speak() -> None:
    torch.manual_seed(0)
    net = revivable(nn.Sequential(nn.Linear(4, 1), nn.ReLU()))
    linear = net.get_submodule("0")
    assert isinstance(linear, nn.Linear)
    nn.init.constant_(linear.bias, -10.0)
    optimizer = torch.optim.Adam(net.parameters(), 0.3)
    for _ in range(100):
        optimizer.zero_grad()
        (net(torch.rand(32, 4)) - 1).square().mean().backward()
        optimizer.step()
    assert net.eval()(torch.rand(32, 4)).mean().item() == pytest.approx(1, abs=0.3)
