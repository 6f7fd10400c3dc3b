"""Ensembler (arXiv 2401.10859): several cloud bodies, of which a secret choice answers."""

import copy
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Batch, Sample, Stage
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.seeds import generator

NETS = Stage("nets", trains=frozenset({"edge", "cloud"}))
JOINT = Stage("joint", trains=frozenset({"edge", "defense"}))


class Ensemble(nn.Module):
    """Cloud bodies whose logits are averaged with fixed shares: (N, *cut) -> (N, K).

    Args:
        bodies: used, not copied.

    Attributes:
        shares: one for each body, a buffer, with a sum of 1.
        only: the bodies that are computed; None for all, so that serving time does not tell which ones count.
    """

    shares: Tensor

    def __init__(self, bodies: list[nn.Module]) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)
        self.register_buffer("shares", torch.full((len(bodies),), 1 / len(bodies)))
        self.only: tuple[int, ...] | None = None

    def forward(self, z: Tensor) -> Tensor:
        parts = [self.shares[i] * self.bodies[i](z) for i in self.only or range(len(self.bodies))]
        return torch.stack(parts).sum(0)


class Apart(nn.Module):
    """Independent nets, each with its own part of every batch: each batch is parted in order. Training only.

    Args:
        nets: one for each part.
        shifts: added to what each net gives; empty for nothing.
    """

    def __init__(self, nets: list[nn.Module], shifts: list[Tensor]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.shifts = shifts

    def forward(self, z: Tensor) -> Tensor:
        parts = [(i, part) for i, part in enumerate(z.tensor_split(len(self.nets))) if len(part)]
        return torch.cat([self.nets[i](part) + self._shift(i, part) for i, part in parts])

    def _shift(self, net: int, like: Tensor) -> Tensor | float:
        return self.shifts[net].to(like.device) if self.shifts else 0.0


class Ensembler(GaussianNoise):
    """Edge features that differ from those of the single nets which the cloud bodies were trained with.

    1. ``nets``: as many independent nets as bodies, each with its own fixed noise behind its edge. Here they begin as
       copies of the given one, and each step gives each net its part of the batch, so that an epoch costs what plain
       training costs and a net sees a share of the images in each (our reading).
    2. Selection: `chosen` of the bodies at random, from the run's seed.
    3. ``joint``: a new edge, with a fixed noise of its own, learns the task through the chosen bodies, which stay as
       they are, plus ``weight * max over the chosen nets of the cosine similarity`` with their edges' features, per
       image. (The paper trains the device's own tail as well; here the device has none.)

    What is secret: in the paper the bodies answer and the device selects and mixes them. In this protocol one answer
    comes back, so that the cloud half holds all bodies and the shares of the chosen, and **whoever holds the cloud
    half's weights knows the choice**. The secrecy counts against outsiders only, and the audit assumes it known. The
    fixed noise is a constant: a trained decoder learns it as a bias. What protects is the clipped fresh noise of each
    request, as for ``noise``, and whatever the edge became. The cloud computes all bodies for every answer.

    Args:
        nets: cloud bodies.
        chosen: of them.
        weight: of the cosine similarity beside the cross-entropy; dear where the bodies are few and trained briefly.
        fixed: size of the fixed noises, relative to the features' root mean square.
        sigma: noise-to-signal ratio of the fresh noise, as for ``noise``.
        clip: as for ``noise``.

    Raises:
        InputError: an option out of range.
    """

    name: ClassVar[str] = "ensembler"
    measures: ClassVar[bool] = True
    secret: Tensor

    def __init__(
        self,
        *,
        nets: int = 4,
        chosen: int = 2,
        weight: float = 0.3,
        fixed: float = 0.5,
        sigma: float = 0.1,
        clip: float = 1.0,
    ) -> None:
        super().__init__(sigma=sigma, clip=clip)
        if not 1 <= chosen <= nets <= 16 or min(weight, fixed) < 0:
            raise InputError(
                f"expected 1 <= chosen <= nets <= 16 and weight and fixed of at least 0, got chosen={chosen}, "
                f"nets={nets}, {weight}, {fixed}; use ensembler:nets=4,chosen=2."
            )
        self.nets, self.chosen, self.weight, self.fixed = nets, chosen, float(weight), float(fixed)
        self.register_buffer("secret", torch.zeros(()))
        self._draws: list[Tensor] = []
        self._picked: tuple[int, ...] = tuple(range(chosen))
        # Lists, so that these do not become parts of the defence, its state and its weights.
        self._ready: list[Split] = []
        self._others: list[nn.Module] = []

    def install(self, split: Split) -> Split:
        cut = split.cut
        bodies = [split.cloud, *(copy.deepcopy(split.cloud) for _ in range(self.nets - 1))]
        cloud_macs = self.nets * cut.cloud_macs
        changed = cut.model_copy(
            update={
                "cloud_macs": cloud_macs,
                "cloud_params": self.nets * cut.cloud_params,
                "edge_share": cut.edge_macs / max(1, cut.edge_macs + cloud_macs),
            }
        )
        self.secret = torch.zeros(cut.shape)
        return Split(split.edge, Ensemble(bodies).eval(), changed, split.image)

    def study(self, split: Split, sample: Sample) -> None:
        """Draws the choice and all fixed noises from the sample's seed."""
        draws = generator(sample.seed, "ensembler")
        self._picked = tuple(torch.randperm(self.nets, generator=draws)[: self.chosen].sort().values.tolist())
        self._draws = [torch.randn(split.cut.shape, generator=draws) for _ in range(self.nets + 1)]
        ensemble = _ensemble(split)
        ensemble.shares.zero_()
        ensemble.shares[list(self._picked)] = 1 / self.chosen
        self.secret.copy_(self._draws[-1])

    def stages(self) -> tuple[Stage, ...]:
        return NETS, JOINT

    def enter(self, split: Split, stage: Stage) -> Split:
        if stage.name == NETS.name:
            self._ready = [split]
            size = self.fixed * float(self.radius.detach()) / math.prod(split.cut.shape) ** 0.5
            edges = [copy.deepcopy(split.edge) for _ in range(self.nets)]
            self.secret.zero_()
            apart = Apart(edges, [size * draw for draw in self._draws[: self.nets]])
            return Split(apart, Apart(list(_ensemble(split).bodies), []), split.cut, split.image)
        if not self._ready or not isinstance(split.edge, Apart):
            return split
        self._others = [split.edge.nets[i].eval().requires_grad_(False) for i in self._picked]
        ready = self._ready.pop()
        _ensemble(ready).only = self._picked
        self.secret.copy_(self._draws[-1])
        return ready

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        shift: Tensor = self.fixed * self.radius / z[0].numel() ** 0.5 * self.secret
        return super().apply_noise(z, noise) + shift

    def penalty(self, batch: Batch) -> Tensor:
        if not self._others or not self.weight:
            return super().penalty(batch)
        with torch.no_grad():
            single = [edge.to(batch.x.device)(batch.x) for edge in self._others]
        return self.weight * likeness(batch.h, single)

    def finish(self, split: Split) -> Split:
        self._others, self._ready = [], []
        _ensemble(split).only = None
        return split


def likeness(h: Tensor, single: list[Tensor]) -> Tensor:
    """Largest cosine similarity of each image's features with those of other nets, mean over images, from 0 up.

    Args:
        h: (N, *cut).
        single: (N, *cut) each.
    """
    flat = h.flatten(1).float()
    each = torch.stack([F.cosine_similarity(flat, other.flatten(1).float(), dim=1) for other in single])
    return each.amax(0).clamp_min(0).mean()


def _ensemble(split: Split) -> Ensemble:
    if not isinstance(split.cloud, Ensemble):
        raise InputError("expected a split with several cloud bodies; install the defence in it first.")
    return split.cloud
