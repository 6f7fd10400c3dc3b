"""`Defense`: the interface of every defence, with its `Stage` and `Batch`; `Protected`: the split behind one."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.registry import Named
from splitveil.lab.cut import Split
from splitveil.lab.law import Law
from splitveil.wire.codecs import Codec

EPOCHS = 4
"""Least epochs of a defence that works by training, from trained weights."""
LEARNS_BY = ("install", "stages", "task_loss", "penalty", "adversary")
"""Methods of a `Defense` which do nothing before it is trained."""


class Sample(NamedTuple):
    """Training images that a defence may study before it is trained, none of them held out.

    Attributes:
        x: (M, C, H, W) in [0, 1].
        y: (M,).
        seed: for whatever the defence draws.
    """

    x: Tensor
    y: Tensor
    seed: int


class Stage(NamedTuple):
    """A part of training.

    Attributes:
        name: for progress and checkpoints; one word.
        share: of the epochs; the shares of all stages are brought to a sum of 1.
        trains: what moves: ``edge``, ``cloud``, ``defense``; all else stays as it is, in eval mode.
        rate: learning rate, relative to the first one.
        task_only: no penalty and no co-trained adversary.
        last: the last epoch's weights are kept, not the most accurate epoch's: for noise that is to grow louder, where
            the most accurate epoch is the quietest.
    """

    name: str = "training"
    share: float = 1.0
    trains: frozenset[str] = frozenset({"edge", "cloud", "defense"})
    rate: float = 1.0
    task_only: bool = False
    last: bool = False


class Guess(NamedTuple):
    """What a co-trained adversary makes of z.

    Attributes:
        image: (N, C, H, W), not clipped.
        label: (N, K) logits, where it also guesses labels.
    """

    image: Tensor
    label: Tensor | None = None


class Batch(NamedTuple):
    """One training step as a penalty sees it.

    Attributes:
        x: (N, C, H, W) in [0, 1].
        y: (N,).
        h: (N, *cut), the edge half's features before the defence.
        z: (N, *cut), what leaves the device.
        logits: (N, K).
        edge: the edge half itself, for penalties on its slope.
        guess: what the co-trained adversary makes of any z, where the defence has one; gradients reach that z and never
            the adversary.
        reached: (N, *cut) that each part of a chain was given.
    """

    x: Tensor
    y: Tensor
    h: Tensor
    z: Tensor
    logits: Tensor
    edge: nn.Module
    guess: Callable[[Tensor], Guess] | None = None
    reached: "Mapping[Defense, Tensor]" = MappingProxyType({})


class Defense(Named, nn.Module):
    """Everything that one paper does; subclasses override what they need.

    Hyperparameters are keyword-only and ``repr()`` is the registry's spec. Noise is never drawn inside `apply`: it is
    an input, so that the exported edge half takes it as one and every request draws its own.
    """

    name: ClassVar[str]
    stochastic: ClassVar[bool] = False
    """Noise is drawn afresh for every request."""
    trains: ClassVar[frozenset[str]] = frozenset({"edge", "cloud"})
    """Halves whose weights training moves; the others stay as they are, in eval mode. The defence's own always move."""
    measures: ClassVar[bool] = False
    """`study` or a penalty measures the edge half's own features, so that nothing may act on them before."""

    @property
    def needs_training(self) -> bool:
        """Whether it works by training: through a loss, a rival, stages of its own, or layers that it installs.

        What acts on features that a net has anyway, such as noise, needs none. Default: as its methods say.
        """
        return any(getattr(type(self), name) is not getattr(Defense, name) for name in LEARNS_BY)

    @property
    def least_epochs(self) -> int:
        """Epochs that it needs, one a stage at least; 0 where it works without."""
        return max(EPOCHS, len(self.stages())) if self.needs_training else 0

    @property
    def acts(self) -> bool:
        """Whether features may change between the halves; False where all of the defence is in the halves."""
        return type(self).apply_noise is not Defense.apply_noise

    def install(self, split: Split) -> Split:
        """Architecture surgery before training (funnel, masks, deeper cut). Default: unchanged."""
        return split

    def study(self, split: Split, sample: Sample) -> None:
        """Learn what needs images and labels before training (channels to keep, noise for a floor). Default: nothing.

        split: as installed, in eval mode; weights and buffers may change, shapes may not.
        """

    def restored(self, split: Split, weights: dict[str, Tensor]) -> Split:
        """The architecture that `finish` left behind, for the weights of a bundle's edge half. Default: as installed.

        split: of the model as it was before the defence; weights: by name in the edge half.
        """
        return self.install(split)

    def stages(self) -> tuple[Stage, ...]:
        """The parts of training, in order. Default: one, which moves what `trains` names."""
        return (Stage(trains=self.trains | {"defense"}),)

    def enter(self, split: Split, stage: Stage) -> Split:
        """Called before each stage trains. Default: unchanged."""
        return split

    def rest(self) -> nn.Module | None:
        """The part of the edge half that the defence took over, between its first layer and the cut. Default: none."""
        return None

    def noise_shape(self, h: tuple[int, ...]) -> tuple[int, ...]:
        """Standard normal numbers that one request draws. h: shape of one sample's edge features. Default: the same."""
        return h

    def calibrate(self, z: Tensor) -> None:
        """Fix scales from features of training images, before and while training. z: (M, *cut). Default: nothing."""

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """What leaves the device. z: (N, *cut); noise: standard normal (N, *noise_shape); None if deterministic."""
        return z

    def mean(self, z: Tensor) -> Tensor:
        """What leaves the device without its noise, clipping included: (N, *cut) -> (N, *cut)."""
        return self.apply_noise(z, z.new_zeros(self._drawn(z)) if self.stochastic else None)

    def spread(self, z: Tensor) -> Tensor | None:
        """Standard deviation of every feature's noise, one size for all inputs. z: (N, *cut), for its shape -> (*cut).

        Bounds need it. Zeros for a deterministic defence; None, the default of the others, where the noise is no
        Gaussian added last, or of a size that depends on the input.
        """
        return None if self.stochastic else z.new_zeros(z.shape[1:])

    def deviation(self, z: Tensor) -> Tensor | None:
        """Standard deviation of what leaves for z about `mean`: (N, *cut) -> (*cut) or (N, *cut).

        Only where `mean` is what leaves on average, as with noise of mean 0 added last. Default: `spread`; None where
        that does not hold.
        """
        return self.spread(z)

    def expected(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation of what leaves for z, see `deviation`; None where they are not known.

        For adversaries, who know the defence and then need no draws of its noise.
        """
        deviation = self.deviation(z) if self.stochastic else None
        return None if deviation is None else (self.mean(z), deviation)

    def laws(self, z: Tensor) -> list[tuple[Tensor, Tensor]]:
        """As `expected`, for each of several that a request may follow; an adversary recognises the one it followed.

        Default: the one, or none where it is not known.
        """
        told = self.expected(z)
        return [] if told is None else [told]

    def law(self, like: Tensor, codec: Codec | None = None, times: int = 1) -> Law | None:
        """What an adversary who knows the defence can tell of features from `times` crossings; None: not exactly.

        Default: exactly what leaves where nothing is random, Gaussian noise of a known size where `deviation` tells it.
        What does another thing to features says its own: which numbers are sent as they are, and which not at all.

        like: (1, *h), features of any image, for their shape; codec: that they go through.
        """
        if not self.stochastic:
            return Law(lambda h: self.apply_noise(h, None), codec)
        if type(self).laws is not Defense.laws or self.deviation(like) is None:
            return None

        def deviation(h: Tensor) -> Tensor:
            found = self.deviation(h)
            return torch.zeros_like(h) if found is None else found / times**0.5

        return Law(self.mean, codec, deviation=deviation)

    @property
    def lawful(self) -> bool:
        """Whether `law` tells more than what leaves on average and how much noise it has. Default: where it has one."""
        return type(self).law is not Defense.law

    def forward(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """z: (N, *cut) -> (N, *cut); draws fresh noise when none is given."""
        return self.apply_noise(z, self.drawn(z) if noise is None else noise)

    def drawn(self, z: Tensor) -> Tensor | None:
        """Fresh noise for z: (N, *cut) -> (N, *noise_shape), standard normal; None if deterministic."""
        return torch.randn(self._drawn(z), dtype=z.dtype, device=z.device) if self.stochastic else None

    def traced(self, z: Tensor, noise: Tensor | None = None) -> "tuple[Tensor, dict[Defense, Tensor]]":
        """As `forward`, and what reached it and each of its parts, for penalties of a chain."""
        return self(z, noise), {self: z}

    def task_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Scalar; cross-entropy unless the paper says otherwise."""
        return F.cross_entropy(logits, y)

    def penalty(self, batch: Batch) -> Tensor:
        """Scalar, joined to the task loss. Default: 0."""
        return batch.z.new_zeros(())

    def adversary(self, cut: tuple[int, ...], image: tuple[int, int, int], classes: int) -> "Adversary | None":
        """What trains beside the defence, where the paper has one. cut: (C, h, w) and the like; image: (C, H, W).

        It learns from z without its gradient; `penalty` may ask for its guess. It never leaves training: a defence is
        judged by adversaries that it was not trained with.
        """
        return None

    def finish(self, split: Split) -> Split:
        """After training: physical pruning, freezing. Default: unchanged."""
        return split

    def _drawn(self, z: Tensor) -> tuple[int, ...]:
        return (len(z), *self.noise_shape(tuple(z.shape[1:])))


class Adversary(nn.Module):
    """A net that trains beside a defence: ``forward(z)`` gives a `Guess`. z: (N, *cut)."""

    def loss(self, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """What it minimises: the mean squared error of its images, and cross-entropy where it guesses labels."""
        guess: Guess = self(z)
        error = F.mse_loss(guess.image, x)
        return error if guess.label is None else error + F.cross_entropy(guess.label, y)

    def unmoved(self, z: Tensor) -> Guess:
        """Its guess, with a gradient that reaches z and not its weights."""
        fixed = {name: value.detach() for name, value in self.state_dict(keep_vars=True).items()}
        guess: Guess = torch.func.functional_call(self, fixed, (z,))
        return guess


class Protected(nn.Module):
    """A split with its defence and codec: what is trained, audited and bundled.

    ``forward`` is what the deployed system answers, `loss` what training minimises.
    """

    rival: Adversary | None
    """The co-trained adversary, there while training only."""
    stage: Stage | None
    """The part of training under way."""
    smoothing: float
    """Share of the task's loss that pulls to no class, there while training only."""
    epochs: int | None
    """Of training with the defence; None where nobody recorded it, as in a split that was put together by hand."""

    def __init__(self, split: Split, defense: Defense, codec: Codec) -> None:
        super().__init__()
        self.split, self.defense, self.codec, self.rival, self.stage = split, defense, codec, None, None
        self.smoothing = 0.0
        self.epochs: int | None = None

    @property
    def untrained(self) -> bool:
        """The defence works by training and is known to have had none."""
        return self.epochs == 0 and self.defense.needs_training

    def parts(self) -> dict[str, nn.Module]:
        """What a stage may train, by name."""
        return {"edge": self.split.edge, "cloud": self.split.cloud, "defense": self.defense}

    def train(self, mode: bool = True) -> "Protected":
        """What the stage does not train stays in eval mode."""
        super().train(mode)
        for name, part in self.parts().items():
            if self.stage is not None and name not in self.stage.trains:
                part.eval()
        return self

    @property
    def twin(self) -> nn.Module:
        """The edge half as torch can differentiate it, and whose architecture is public: itself, unless it ships."""
        return self.split.edge

    @property
    def graph_sha256(self) -> str:
        """Of the graph that ships in place of the edge half; empty where none does."""
        return ""

    def features(self, x: Tensor) -> Tensor:
        """What `observe` begins with: (N, C, H, W) -> (N, *h), the edge half's features."""
        z: Tensor = self.split.edge(x)
        return z

    def observe(self, z: Tensor) -> Tensor:
        """What an adversary reads when the edge half computed z: (N, *h) -> (N, *cut). Fresh noise each call."""
        seen: Tensor = self.codec.decode(self.codec.encode(self.defense(z)))
        return seen

    def sent(self, x: Tensor) -> Tensor:
        """What an adversary reads when the device is given images: (N, C, H, W) -> (N, *cut)."""
        return self.observe(self.features(x))

    def bare(self, z: Tensor) -> Tensor:
        """What would cross if neither defence nor codec touched it. z: (N, *h), as for `observe` -> (N, *cut)."""
        rest = self.defense.rest()
        whole: Tensor = z if rest is None else rest(z)
        return whole

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) in [0, 1] -> logits (N, K)."""
        logits: Tensor = self.split.cloud(self.sent(x))
        return logits

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Scalar, of the stage under way, without the codec. x: (N, C, H, W) in [0, 1]; y: (N,)."""
        h = self.split.edge(x)
        z, reached = self.defense.traced(h)
        logits = self.split.cloud(z)
        loss = self.defense.task_loss(logits, y)
        if self.smoothing:
            loss = (1 - self.smoothing) * loss - self.smoothing * F.log_softmax(logits, 1).mean()
        if self.stage is not None and self.stage.task_only:
            return loss
        if self.rival is not None:
            loss = loss + self.rival.loss(z.detach(), x, y)
        guess = None if self.rival is None else self.rival.unmoved
        return loss + self.defense.penalty(Batch(x, y, h, z, logits, self.split.edge, guess, reached))
