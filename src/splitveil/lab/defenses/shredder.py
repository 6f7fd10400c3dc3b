"""Shredder (Mireshghallah et al. 2020, ASPLOS): noise tensors learned for a frozen net, then drawn from anew."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Batch, Defense, Sample, Stage
from splitveil.lab.law import Law
from splitveil.lab.seeds import generator
from splitveil.wire.codecs import Codec

SMALLEST = 1e-7
"""Probability of a tail beyond which no draw lies; the graph on the device computes it in float32."""
DECAY = 0.98
"""Of the noise's weight in every step in which the target is reached."""
RATE = 5.0
"""Learning rate of a noise tensor, relative to a net's: its numbers are of size 1."""
MEMBER = "noise"


def laplace(noise: Tensor) -> Tensor:
    """Standard normal numbers -> Laplace numbers of location 0 and scale 1, in the same order; any shape."""
    tail = torch.special.erfc(noise.abs() / math.sqrt(2)).clamp_min(SMALLEST)
    drawn: Tensor = -noise.sign() * tail.log()
    return drawn


def order_statistics(n: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the sorted numbers of a Laplace sample of location 0 and scale 1: (n,) each.

    The tail beyond the r-th largest is Beta distributed and its logarithm's moments are known; near the median, where
    that is off by the chance of the other sign, hardly anything varies.
    """
    above = torch.arange(n, 0, -1, dtype=torch.float64)
    tail = torch.minimum(above, n + 1 - above)
    whole = torch.tensor(n + 1.0, dtype=torch.float64)
    size = torch.digamma(whole) - torch.digamma(tail) - math.log(2)
    variance = torch.polygamma(1, tail) - torch.polygamma(1, whole)
    return (torch.where(2 * above <= n + 1, size, -size)).float(), variance.sqrt().float()


class Members(Law):
    """What crossed of features with one of several known tensors added: the one that was is found and taken off.

    It is that without which the numbers vary least: two of the tensors differ by far more than features happen to look
    like their difference. What is left varies as little as the order statistics of one draw (our reading).

    Args:
        added: (members, *cut), what each adds on average.
        deviation: (*cut), about that, of one crossing.
        codec: see `Law`.
        times: crossings that are put together.
    """

    rewrites = True

    def __init__(self, added: Tensor, deviation: Tensor, codec: Codec | None, times: int) -> None:
        super().__init__(lambda h: h, codec, deviation=lambda h: deviation / times**0.5)
        self.added = added

    def member(self, z: Tensor) -> Tensor:
        """Which one each crossing followed: (n, *cut) -> (n,)."""
        left = [(z - own).flatten(1).var(1) for own in self.added]
        return torch.stack(left).argmin(0)

    def combined(self, seen: Tensor) -> Tensor:
        return torch.stack([z - self.added[self.member(z)] for z in seen]).mean(0)

    def cell(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, z


class Shredder(Defense):
    """``h + noise`` where the noise follows one of several learned tensors; both halves stay as they are.

    Each tensor begins as Laplace noise and is trained alone, on ``CE - weight * mean|noise|`` in units of the features'
    root mean square, so that scaling them buys nothing. Of each the location and scale of the Laplace distribution
    that fits it best are kept, and the rank order of its elements (the sampling of a public re-implementation, section
    6.3 of our notes: the paper leaves it open). A request draws a fresh Laplace sample, sorts it and places it in the
    rank order of one member, chosen by where the sample's largest number was drawn: that is independent of the sorted
    numbers, so that one standard normal tensor serves for both.

    What to know before trusting it: sorting takes nearly all randomness away. The order statistics of thousands of
    numbers hardly vary, so that an adversary who knows the collection subtracts the noise but for the choice of the
    member, and a decoder trained on what is sent learns to. Measured on digits (small net, relu2, 12 epochs, accuracy
    0.967 from 0.978): linear inversion reaches 32.2 dB with this defence and 32.2 without.

    Args:
        weight: of the noise's mean size beside the cross-entropy.
        collection: noise tensors learned, each in a share of the epochs.
        start: standard deviation of a new tensor, relative to the features' root mean square.
        target: root mean square of the noise, relative to the features'; the weight decays while it is reached.
    """

    name: ClassVar[str] = "shredder"
    stochastic: ClassVar[bool] = True
    trains: ClassVar[frozenset[str]] = frozenset()
    scale: Tensor
    left: Tensor
    location: Tensor
    width: Tensor
    ranks: Tensor

    def __init__(self, *, weight: float = 1.0, collection: int = 4, start: float = 1.0, target: float = 1.5) -> None:
        super().__init__()
        if not (weight >= 0 and collection >= 1 and start > 0 and target > 0):
            raise InputError(
                f"expected weight >= 0, collection >= 1, start > 0 and target > 0, got {weight}, {collection}, "
                f"{start}, {target}; use shredder:collection=4."
            )
        self.weight, self.collection = float(weight), collection
        self.start, self.target = float(start), float(target)
        self.learned = nn.ParameterList()
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("left", torch.tensor(1.0))
        # The member under training; its stored distribution follows when it is done.
        self._current: int | None = None

    def install(self, split: Split) -> Split:
        count = math.prod(split.cut.shape)
        # Flat, so that weight decay leaves them alone.
        self.learned = nn.ParameterList(torch.zeros(count) for _ in range(self.collection))
        self.register_buffer("location", torch.zeros(self.collection))
        self.register_buffer("width", torch.ones(self.collection))
        self.register_buffer("ranks", torch.zeros(self.collection, count, dtype=torch.int32))
        self._begin(0)
        return split

    def study(self, split: Split, sample: Sample) -> None:
        self._begin(sample.seed)

    def calibrate(self, z: Tensor) -> None:
        self.scale.copy_(z.square().mean().sqrt())

    def stages(self) -> tuple[Stage, ...]:
        own = Stage(share=1 / self.collection, trains=frozenset({"defense"}), rate=RATE, last=True)
        return tuple(own._replace(name=f"{MEMBER}{k + 1}") for k in range(self.collection))

    def enter(self, split: Split, stage: Stage) -> Split:
        self._store()
        self._current = int(stage.name.removeprefix(MEMBER)) - 1
        self.left.fill_(1.0)
        return split

    def finish(self, split: Split) -> Split:
        self._store()
        self._current = None
        return split

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        if self.training and self._current is not None:
            return z + self.scale * self.own(self._current).reshape(z.shape[1:])
        return z if noise is None else z + self.scale * self.placed(noise)

    def placed(self, noise: Tensor) -> Tensor:
        """What a request adds, in units of the features' root mean square. noise: standard normal (N, *cut)."""
        values, drawn_at = noise.flatten(1).sort(1)
        member = drawn_at[:, -1] * self.collection // values.shape[1]
        placed = laplace(values).gather(1, self.ranks[member].long())
        return (self.location[member, None] + self.width[member, None] * placed).reshape(noise.shape)

    def own(self, member: int) -> Tensor:
        """The learned tensor of one member, flat, in units of the features' root mean square."""
        learned: Tensor = self.learned[member]
        return learned

    def mean(self, z: Tensor) -> Tensor:
        """The collection's mean location added, the same for all inputs."""
        return z + self.scale * self.location.mean()

    def laws(self, z: Tensor) -> list[tuple[Tensor, Tensor]]:
        """One for each member: what it adds on average, and how little its order statistics vary."""
        mean, deviation = order_statistics(self.ranks.shape[1])
        return [
            (
                z + self.scale * (at + width * mean[rank]).reshape(z.shape[1:]),
                (self.scale * width * deviation[rank]).reshape(z.shape[1:]),
            )
            for at, width, rank in zip(self.location, self.width, self.ranks.long(), strict=True)
        ]

    def law(self, like: Tensor, codec: Codec | None = None, times: int = 1) -> Law | None:
        means, deviations = (torch.stack(parts) for parts in zip(*self.laws(torch.zeros_like(like)), strict=True))
        return Members(means[:, 0], deviations.square().mean(0).sqrt(), codec, times)

    def expected(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        """Over all members, each as likely as any other."""
        members = self.laws(z)
        means, deviations = (torch.stack(parts) for parts in zip(*members, strict=True))
        variance = (deviations.square() + (means - means.mean(0))[:, 0].square()).mean(0)
        return means.mean(0), variance.sqrt()

    def penalty(self, batch: Batch) -> Tensor:
        if self._current is None:
            return super().penalty(batch)
        noise = self.own(self._current)
        with torch.no_grad():
            self.left.mul_(DECAY if noise.square().mean().sqrt() >= self.target else 1.0)
        return -self.weight * self.left.clone() * noise.abs().mean()

    @torch.no_grad()
    def _begin(self, seed: int) -> None:
        for k, noise in enumerate(self.learned):
            drawn = torch.randn(noise.shape, generator=generator(seed, "shredder", k))
            noise.copy_(self.start / math.sqrt(2) * laplace(drawn))
        self._store()

    @torch.no_grad()
    def _store(self) -> None:
        """The Laplace distribution of greatest likelihood (median, mean distance from it) and each element's rank."""
        for k, noise in enumerate(self.learned):
            self.location[k] = noise.median()
            self.width[k] = (noise - self.location[k]).abs().mean()
            self.ranks[k] = noise.argsort(stable=True).argsort().int()
