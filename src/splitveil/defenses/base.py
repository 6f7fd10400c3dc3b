"""What every defence may do, and the split that it protects."""

from typing import ClassVar, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.codecs import Codec
from splitveil.cut import Split
from splitveil.registry import Spec, Value


class Batch(NamedTuple):
    """One training step as a penalty sees it.

    Attributes:
        x: (N, C, H, W) in [0, 1].
        y: (N,).
        h: (N, *cut), the edge half's features before the defence.
        z: (N, *cut), what leaves the device.
        logits: (N, K).
        guess: (N, C, H, W), what the co-trained adversary makes of z, where the defence has one; its gradient reaches
            z and never the adversary.
    """

    x: Tensor
    y: Tensor
    h: Tensor
    z: Tensor
    logits: Tensor
    guess: Tensor | None = None


class Defense(nn.Module):
    """Everything that one paper does; subclasses override what they need.

    Hyperparameters are keyword-only and ``repr()`` is the registry's spec. Noise is never drawn inside `apply`: it is
    an input, so that the exported edge half takes it as one and every request draws its own.
    """

    name: ClassVar[str]
    stochastic: ClassVar[bool] = False
    """Noise is drawn afresh for every request."""
    trains: ClassVar[frozenset[str]] = frozenset({"edge", "cloud"})
    """Halves whose weights training moves; the others stay as they are, in eval mode. The defence's own always move."""

    refit: float = 0.0
    """Share of the epochs after which the cloud half alone trains on the task alone, all else frozen."""

    def install(self, split: Split) -> Split:
        """Architecture surgery before training (funnel, masks, deeper cut). Default: unchanged."""
        return split

    def calibrate(self, z: Tensor) -> None:
        """Fix scales from features of training images, before training. z: (M, *cut). Default: nothing."""

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """What leaves the device. z: (N, *cut); noise: standard normal, as z; None for a deterministic defence."""
        return z

    def mean(self, z: Tensor) -> Tensor:
        """What leaves the device without its noise, clipping included: (N, *cut) -> (N, *cut)."""
        return self.apply_noise(z, torch.zeros_like(z) if self.stochastic else None)

    def spread(self, z: Tensor) -> Tensor | None:
        """Standard deviation of every feature's noise, one size for all inputs. z: (N, *cut), for its shape -> (*cut).

        Bounds need it. Zeros for a deterministic defence; None, the default of the others, where the noise is no
        Gaussian added last, or of a size that depends on the input.
        """
        return None if self.stochastic else z.new_zeros(z.shape[1:])

    def forward(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """z: (N, *cut) -> (N, *cut); draws fresh noise when none is given."""
        if self.stochastic and noise is None:
            noise = torch.randn_like(z)
        return self.apply_noise(z, noise)

    def task_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Scalar; cross-entropy unless the paper says otherwise."""
        return F.cross_entropy(logits, y)

    def penalty(self, batch: Batch) -> Tensor:
        """Scalar, joined to the task loss. Default: 0."""
        return batch.z.new_zeros(())

    def adversary(self, cut: tuple[int, ...], image: tuple[int, int, int]) -> nn.Module | None:
        """A net from z (N, *cut) to images (N, *image) that trains beside the defence, where the paper has one.

        It learns to reconstruct, from z without its gradient; `penalty` sees its guess. It never leaves training: a
        defence is judged by adversaries that it was not trained with.
        """
        return None

    def finish(self, split: Split) -> Split:
        """After training: physical pruning, freezing. Default: unchanged."""
        return split

    def options(self) -> dict[str, Value]:
        """Hyperparameters as the registry reads them."""
        return {}

    @final
    def __repr__(self) -> str:
        return str(Spec(self.name, self.options()))


class Protected(nn.Module):
    """A split with its defence and codec: what is trained, audited and bundled.

    ``forward`` is what the deployed system answers; calling it with labels as well gives the training loss.
    """

    rival: nn.Module | None
    """The co-trained adversary, there while training only."""
    refitting: bool
    """Only the cloud half trains, on the task alone."""

    def __init__(self, split: Split, defense: Defense, codec: Codec) -> None:
        super().__init__()
        self.split, self.defense, self.codec, self.rival = split, defense, codec, None
        self.refitting = False

    def train(self, mode: bool = True) -> "Protected":
        """Halves that the defence does not train stay in eval mode."""
        super().train(mode)
        if self.refitting:
            self.split.edge.eval()
            self.defense.eval()
            return self
        for name, half in (("edge", self.split.edge), ("cloud", self.split.cloud)):
            if name not in self.defense.trains:
                half.eval()
        return self

    def observe(self, z: Tensor) -> Tensor:
        """What an adversary reads when the edge half computed z: (N, *cut) -> (N, *cut). Fresh noise each call."""
        seen: Tensor = self.codec.decode(self.codec.encode(self.defense(z)))
        return seen

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """x: (N, C, H, W) in [0, 1] -> logits (N, K), or the scalar training loss where y: (N,) is given."""
        if y is None:
            logits: Tensor = self.split.cloud(self.observe(self.split.edge(x)))
            return logits
        if self.refitting:
            with torch.no_grad():
                z = self.defense(self.split.edge(x))
            return self.defense.task_loss(self.split.cloud(z), y)
        h = self.split.edge(x)
        z = self.defense(h)
        logits = self.split.cloud(z)
        loss, guess = self.defense.task_loss(logits, y), None
        if self.rival is not None:
            loss = loss + F.mse_loss(self.rival(z.detach()), x)
            fixed = {name: value.detach() for name, value in self.rival.state_dict(keep_vars=True).items()}
            guess = torch.func.functional_call(self.rival, fixed, (z,))
        return loss + self.defense.penalty(Batch(x, y, h, z, logits, guess))
