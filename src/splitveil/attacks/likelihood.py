"""What every search through the known edge descends on: how near the features of a guess are to those seen."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from splitveil.attacks.base import frozen
from splitveil.attacks.view import View

SOLVED = 1e-5
"""Relative squared feature distance below which a gradient of zero is no fault."""
OUTSIDE = 10.0
"""Weight of the squared distance to [0, 1] beside the features' distance."""


class Likelihood:
    """``||E(x) - z||^2 / ||z - mean(z)||^2`` for each image, through the edge and the defence that the view grants.

    Relative, so that scaling z changes nothing.

    Args:
        view: for the edge, which is folded, and the defence.
        draws: of a random defence, averaged whenever features are made; one is enough for any other.
    """

    def __init__(self, view: View, draws: int) -> None:
        self.edge, self.defense, self.draws = folded(view.edge), view.defense, draws if view.stochastic else 1

    def features(self, x: Tensor) -> Tensor:
        """x: (n, C, H, W) -> (n, *cut), the mean over the draws."""
        z = self.edge(x.contiguous(memory_format=torch.channels_last))
        return torch.stack([self.defense(z) for _ in range(self.draws)]).mean(0) if self.draws > 1 else self.defense(z)

    def to(self, z: Tensor) -> Callable[[Tensor], Tensor]:
        """The distance of images (n, C, H, W) from features z: (n, *cut), as a function; (n,)."""
        power = (z.flatten(1) - z.flatten(1).mean(1, keepdim=True)).square().sum(1)
        power = torch.where(power > 0, power, 1.0)
        return lambda x: (self.features(x).float() - z).flatten(1).square().sum(1) / power

    def blind(self, x: Tensor, z: Tensor) -> int:
        """Images from which a search could not begin: the gradient of the distance is zero or not finite."""
        x = x.detach().clamp(0, 1).requires_grad_(True)
        distance = self.to(z)(x)
        slope = torch.autograd.grad(distance.sum(), x)[0].flatten(1).abs().sum(1)
        return int((~slope.isfinite() | ((slope == 0) & (distance > SOLVED))).sum())


def folded(edge: nn.Module) -> nn.Module:
    """A copy of a traced edge with BatchNorm folded into the convolutions before it; any other edge as it is."""
    if not isinstance(edge, fx.GraphModule):
        return edge
    copied = copy.deepcopy(edge)
    for node in copied.graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        conv, norm = copied.get_submodule(str(source.target)), copied.get_submodule(str(node.target))
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            parent, _, name = str(source.target).rpartition(".")
            setattr(copied.get_submodule(parent), name, fuse_conv_bn_eval(conv, norm))
            parent, _, name = str(node.target).rpartition(".")
            setattr(copied.get_submodule(parent), name, nn.Identity())
    return frozen(copied)
