"""The search of a generator's latents for images whose features are those seen, all images of a batch at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.parts.generator import Generator
from splitveil.lab.attacks.parts.likelihood import OUTSIDE, Likelihood

ROUGH = 0.7
"""Share of the steps in bf16 where the machine has it; the choice of the best iterate is in float32."""
RATE = 0.1
"""Largest step of Adam in standard deviations."""


@dataclass(frozen=True, slots=True)
class LatentTarget:
    """What is searched for: features, and what is expected before they are looked at.

    z: (n, *cut); w: (n, D), where the prior is centred; rest: (n, C, H, W), what the image is there beside the
    generator's.
    """

    z: Tensor
    w: Tensor
    rest: Tensor

    def repeat(self, times: int) -> "LatentTarget":
        """The whole batch again and again."""
        return LatentTarget(*(t.repeat(times, *[1] * (t.ndim - 1)) for t in (self.z, self.w, self.rest)))

    def part(self, index: slice) -> "LatentTarget":
        """Some of the images."""
        return LatentTarget(self.z[index], self.w[index], self.rest[index])

    def split(self, size: int) -> "list[LatentTarget]":
        """The images in parts."""
        return [self.part(slice(k, k + size)) for k in range(0, len(self.z), size)]


LatentPoint = tuple[Tensor, ...]
"""Where a search stands, in standard deviations of the prior: u (n, D), then what is added as in `Generator.shifts`."""


class LatentSearch:
    """Descent on ``|E(x) - z|^2 / |z - mean(z)|^2 + weights * prior``, all images of a batch at once.

    Args:
        likelihood: of an image, given features.
        net: the generator, frozen.
        units: standard deviations of the prior: of w (D,), then a number for each of `Generator.shifts`.
    """

    def __init__(self, likelihood: Likelihood, net: Generator, units: Sequence[Tensor]) -> None:
        self.likelihood, self.net, self.units = likelihood, net, units

    def image(self, target: LatentTarget, point: LatentPoint) -> Tensor:
        """(n, C, H, W), not clipped."""
        w, *shifts = (t * unit for t, unit in zip(point, self.units, strict=False))
        x: Tensor = self.net(target.w + w, shifts) + target.rest
        return x

    def blind(self, target: LatentTarget) -> int:
        """Images from whose centre the search could not begin."""
        with torch.no_grad():
            centre = self.image(target, (torch.zeros_like(target.w),))
        return self.likelihood.blind(centre, target.z)

    def descend(
        self, target: LatentTarget, start: LatentPoint, weights: Tensor, steps: int, *, rough: bool = False
    ) -> LatentPoint:
        """The point that was best by the objective, the start included; what that does not hold is not freed.

        Args:
            target: n images.
            start: where to begin.
            weights: (n, 2), of the prior on w and on what is added.
            steps: of Adam, with a cosine rate.
            rough: all in bf16, where the machine has it.
        """
        point = tuple(t.clone().requires_grad_() for t in start)
        best, least = tuple(t.clone() for t in start), torch.full((len(target.z),), math.inf, device=target.z.device)
        optimizer = torch.optim.Adam(point, lr=RATE, betas=(0.9, 0.99), eps=1e-12)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda k: 0.02 + 0.49 * (1 + math.cos(math.pi * k / steps))
        )
        far = self.likelihood.to(target.z)
        where = Accelerator.of(target.z)
        exact = 0 if not where.bf16 else 0 if rough else int(ROUGH * steps)
        for step in range(steps + 1):
            with where.autocast(enabled=where.bf16 and (rough or 0 < step < exact)):
                x = self.image(target, point)
                inside = x.clamp(0, 1)
                distance = far(inside) + OUTSIDE * (x - inside).square().mean((1, 2, 3))
            lengths = torch.stack([t.square().flatten(1).mean(1) for t in point], 1)
            value = distance + weights[:, 0] * lengths[:, 0] + weights[:, 1] * lengths[:, 1:].sum(1)
            better = (value.detach() < least) & (step == 0 or step >= exact)
            least = torch.where(better, value.detach(), least)
            best = tuple(
                torch.where(better.reshape(-1, *[1] * (now.ndim - 1)), now.detach(), kept)
                for kept, now in zip(best, point, strict=True)
            )
            if step == steps:
                break
            gradients = torch.autograd.grad(value.sum(), point)
            for tensor, gradient in zip(point, gradients, strict=True):
                tensor.grad = gradient
            optimizer.step()
            schedule.step()
        return best
