"""What every search through the known edge descends on: how near the features of a guess are to those seen."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from splitveil.lab.attacks.base import frozen
from splitveil.lab.attacks.view import View
from splitveil.lab.law import weights

SOLVED = 1e-5
"""Relative squared feature distance below which a gradient of zero is no fault."""
GAINED = 0.01
"""Share by which a search brings the distance down at least, unless it has found nothing."""
EXACT = 1e6
OUTSIDE = 10.0
"""Weight of the squared distance to [0, 1] beside the features' distance."""


class Likelihood:
    """``||E(x) - z||^2 / ||z - mean(z)||^2`` for each image, through the edge and the defence that the view grants.

    Relative, so that scaling z changes nothing. Where the defence adds noise of a known size after all else, its mean
    stands for draws of it, and each feature counts by how little noise it has: for Gaussian noise that is the
    likelihood itself. Where that size depends on the input it is taken at the guess, as in reweighted least squares,
    without the gradient that would make a guess attractive for its noise. Where a request follows one of several laws,
    the nearest counts. Where the view holds a `Law`, that says what is near.

    Args:
        view: for the edge, which is folded, and the defence.
        draws: of any other random defence, averaged whenever features are made; one is enough for one that draws none.
    """

    def __init__(self, view: View, draws: int) -> None:
        self.edge, self.defense = folded(view.edge), view.defense
        self.edge_draws, self.law = view.edge_draws, view.law
        self.exact = (
            view.stochastic
            and not view.edge_draws
            and (self.law is not None or bool(laws(self.defense, self.edge(_blank(view)))))
        )
        self.draws = draws if view.stochastic and not self.exact else 1

    @property
    def averaged(self) -> float:
        """Draws that a step averages, for the self-checks; the exact mean counts as `EXACT`."""
        return EXACT if self.exact else float(self.draws)

    def features(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Means over the noise (n, *cut), one for each law that it may follow, and the features' weights.

        x: (n, C, H, W); weights: (n or 1, elements), ones where the noise is not known.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        z = self.edge(x)
        if self.exact:
            return [(mean, weights(deviation.detach().expand_as(mean))) for mean, deviation in laws(self.defense, z)]
        draws = [self.defense(self.edge(x) if k and self.edge_draws else z) for k in range(self.draws)]
        return [(torch.stack(draws).mean(0) if self.draws > 1 else draws[0], z.new_ones(1, 1))]

    def to(self, z: Tensor) -> Callable[[Tensor], Tensor]:
        """The distance of images (n, C, H, W) from features z: (n, *cut), as a function; (n,)."""
        if self.law is not None:
            far = self.law.to(z)
            return lambda x: far(self.edge(x.contiguous(memory_format=torch.channels_last)))
        varying = (z.flatten(1) - z.flatten(1).mean(1, keepdim=True)).square()

        def under(mean: Tensor, weight: Tensor) -> Tensor:
            power = (varying * weight).sum(1)
            error = ((mean.float() - z).flatten(1).square() * weight).sum(1)
            return error / torch.where(power > 0, power, 1.0)

        return lambda x: torch.stack([under(*law) for law in self.features(x)]).amin(0)

    def blind(self, x: Tensor, z: Tensor) -> int:
        """Images from which a search could not begin: the gradient of the distance is zero or not finite."""
        x = x.detach().clamp(0, 1).requires_grad_(True)
        distance = self.to(z)(x)
        slope = torch.autograd.grad(distance.sum(), x)[0].flatten(1).abs().sum(1)
        return int((~slope.isfinite() | ((slope == 0) & (distance > SOLVED))).sum())

    def stuck(self, start: Tensor, found: Tensor, z: Tensor) -> int:
        """Images whose distance from z a search has not brought down, where there was something to bring down.

        Against a random defence none: there the distance is mostly noise, which no image takes away.
        """
        if self.exact or self.draws > 1:
            return 0
        with torch.no_grad():
            distance = self.to(z)
            before, after = distance(start.clamp(0, 1)), distance(found.clamp(0, 1))
        return int(((before > SOLVED) & ~(after < (1 - GAINED) * before)).sum())


def laws(defense: nn.Module, z: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and standard deviation of what a defence may make of z, if it can tell: see `Defense.laws`."""
    tell = getattr(defense, "laws", None)
    told: list[tuple[Tensor, Tensor]] = tell(z) if callable(tell) else []
    return told


def _blank(view: View) -> Tensor:
    return torch.zeros(1, *view.image_shape, device=view.z.device)


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
