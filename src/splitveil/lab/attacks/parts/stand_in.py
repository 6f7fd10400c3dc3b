"""What stands in for an edge that the adversary does not have, and how far it is from that edge."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from splitveil.lab.attacks.parts.blocks import ScaledBlock
from splitveil.lab.attacks.parts.features import ChannelScale, map_shape

WIDTH = 32
CROWD = 32
"""Private features from which on their means and spreads at single positions are worth matching."""
NEAR = 0.5
"""Differences of means and spreads count by their square below this many spreads and by their size above: with squares
throughout, a few features that rarely speak drown all others and nets with ReLUs die."""
LEAK = 0.1
"""Slope of a ReLU below zero as the gradient sees it in training."""
RELUS = (F.relu, torch.relu, torch.ops.aten.relu.default, torch.ops.aten.relu_.default, "relu", "relu_")


class Reviving(nn.Module):
    """A ReLU through whose zeros the gradient leaks in training, so that a channel that fell silent can speak again."""

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(x)
        if not self.training:
            return z
        silent = LEAK * x.clamp(max=0)
        return z + (silent - silent.detach())


def revivable(net: nn.Module) -> nn.Module:
    """`net` with `Reviving` in place of its ReLUs, modules and traced calls alike; changed in place."""
    if isinstance(net, fx.GraphModule):
        for node in net.graph.nodes:
            if node.op in ("call_function", "call_method") and node.target in RELUS:
                net.add_submodule(name := f"revived_{node.name}", nn.ReLU())
                node.op, node.target, node.args, node.kwargs = "call_module", name, (node.all_input_nodes[0],), {}
        net.recompile()
    for parent in list(net.modules()):
        for name, part in list(parent.named_children()):
            if type(part) is nn.ReLU:
                setattr(parent, name, Reviving())
    return net


class Middle(nn.Module):
    """The middle of a map, as convolutions without padding leave it: pooled instead, a stand-in's images are shrunk."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W), at least as large as `size` -> (N, C, *size)."""
        top, left = ((have - wanted) // 2 for have, wanted in zip(x.shape[-2:], self.size, strict=True))
        return x[..., top : top + self.size[0], left : left + self.size[1]]


class OwnEdge(nn.Module):
    """A small net from images to features of any shape, for an adversary who does not know the edge's architecture.

    It halves the sides while it can; a map that is still larger is cropped, for sides that are no halves of the image's
    come of convolutions without padding.

    Args:
        image: (C, H, W).
        cut: shape of z for one sample: a map, tokens in a square with or without a class token, or flat.
        rectified: whether no feature is negative, as after a ReLU.
    """

    def __init__(self, image: tuple[int, int, int], cut: tuple[int, ...], *, rectified: bool) -> None:
        super().__init__()
        self.cut = cut
        self.last: nn.Module = Reviving() if rectified else nn.Identity()
        channels, height, width = image
        c, h, w = map_shape(cut)
        self.flat = h * w == 1
        layers: list[nn.Module] = [nn.Conv2d(channels, WIDTH, 3, 1, 1), ScaledBlock(WIDTH, 3)]
        least = (4, 4) if self.flat else (h, w)
        while height >= 2 * least[0] and width >= 2 * least[1]:
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), ScaledBlock(WIDTH, 3)]
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        crops = not self.flat and height >= h and width >= w
        fitted = Middle((h, w)) if crops else nn.AdaptiveAvgPool2d(least)
        self.body = nn.Sequential(*layers, ScaledBlock(WIDTH, 3), fitted)
        self.head: nn.Module = nn.Linear(16 * WIDTH, c) if self.flat else nn.Conv2d(WIDTH, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) in [0, 1] -> (N, *cut)."""
        deep = self.body(x)
        z: Tensor = self.head(deep.flatten(1) if self.flat else deep)
        if len(self.cut) == 2 and not self.flat:
            tokens = z[:, : self.cut[1]].flatten(2).transpose(1, 2)
            extra = z[:, self.cut[1] :].mean((2, 3))[:, None] if z.shape[1] > self.cut[1] else tokens[:, :0]
            z = torch.cat([extra, tokens], 1)
        last: Tensor = self.last(z.reshape(len(x), *self.cut))
        return last


class StandInEdge(nn.Module):
    """A net whose features begin with the mean and spread of those seen, by channel. x: (N, C, H, W) -> (N, *cut).

    Where no feature seen is negative the net's zeros stay zeros; only channels that never change are shifted.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, seen: Tensor, images: Tensor) -> None:
        super().__init__()
        self.net = net
        with torch.no_grad():
            own, wanted = ChannelScale(net.eval()(images)), ChannelScale(seen)
        gain = torch.where(wanted.scale > 0, own.scale / wanted.scale, 0.0)
        # A channel that is dead at birth may yet live: it gets the usual gain.
        gain = torch.where((own.scale == 0) & (wanted.scale > 0), gain[gain > 0].mean(), gain)
        shift = wanted.shift - gain * own.shift
        self.register_buffer("gain", gain)
        self.register_buffer("shift", torch.where(gain > 0, 0.0, shift) if bool((seen >= 0).all()) else shift)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x) * self.gain + self.shift
        return z


class Likeness(nn.Module):
    """How far a stand-in is from what the adversary knows of the edge; everything in units of the features' spread.

    With features of the same images: their mean squared distance. Without: cross-entropy of the cloud half where
    labels are known, plus the distances of mean and spread to those of the private features.
    """

    def __init__(self, stand_in: StandInEdge, seen: Tensor, cloud: nn.Module | None) -> None:
        super().__init__()
        self.stand_in, self.cloud, self.scale = stand_in, cloud, ChannelScale(seen)
        self.axes = tuple(i for i, n in enumerate(self.scale.shift.shape) if n == 1)
        self.means, self.spreads, self.each_mean, self.each_spread = (
            nn.Buffer(moment, persistent=False) for moment in self._moments(self.scale(seen))
        )
        self.used = 4 if len(seen) >= CROWD else 2

    def train(self, mode: bool = True) -> "Likeness":
        """The cloud half stays in eval mode."""
        super().train(mode)
        if self.cloud is not None:
            self.cloud.eval()
        return self

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """x: (n, C, H, W); target: labels (n,), -1 where unknown, or features (n, *cut) -> scalar."""
        z = self.stand_in(x)
        units = self.scale(z.float())
        if self.cloud is None:
            return F.mse_loss(units, self.scale(target))
        terms = zip(self._moments(units), (self.means, self.spreads, self.each_mean, self.each_spread), strict=True)
        distances = [F.smooth_l1_loss(own, wanted, beta=NEAR) for own, wanted in terms]
        loss = torch.stack(distances[: self.used]).sum()
        known = target >= 0
        return loss + F.cross_entropy(self.cloud(z)[known].float(), target[known]) if known.any() else loss

    def _moments(self, units: Tensor) -> Sequence[Tensor]:
        """Mean and spread of channels, then of single features."""
        spread, mean = torch.std_mean(units, self.axes, correction=0)
        each_spread, each_mean = torch.std_mean(units, 0, correction=0)
        return mean, spread, each_mean, each_spread
