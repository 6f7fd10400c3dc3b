"""What every attack is: `Attack` gives images back, `LabelAttack` gives labels; neither can score itself."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from splitveil.core.errors import SplitVeilError, ThreatModelError
from splitveil.core.registry import Named
from splitveil.lab.attacks.parts.frames import Camera
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.seeds import derive


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What an attack returned. x_hat: (N, C, H, W) in [0, 1] on the CPU."""

    x_hat: Tensor
    seconds: float
    clipped: float
    """Share of values that lay outside [0, 1]."""
    evidence: Mapping[str, float] = field(default_factory=dict)
    """What the attack told of itself; see `splitveil.lab.auditing.checks`."""


@dataclass(frozen=True, slots=True)
class LabelScores:
    """What a label attack returned. scores: (N, K) on the CPU, larger means more likely."""

    scores: Tensor
    seconds: float
    evidence: Mapping[str, float] = field(default_factory=dict)


class Threat(Named, ABC):
    """Anything that an adversary does: a name, what it needs, and its hyperparameters."""

    needs: Knows
    crossings: int = 1
    """How often the same input must have been sent."""
    camera: Camera | None = None
    """How what was sent the second time, and later, differs from the input; None where it is the input itself."""
    scale_free: ClassVar[bool] = False
    """Known (by a test) to give the same scores for any multiple of z; an audit tries it out where this is False."""

    def shares(self, *, stochastic: bool) -> tuple[str, ...]:
        """Keys that its run may give to `View.once`; those of the attacks that it holds, where a class says no others.

        An audit lets the first attack that shares a thing make it before any other begins. What is not told here is
        made all the same, perhaps twice. stochastic: whether the same image gives other features each time.
        """
        held = [part for part in vars(self).values() if isinstance(part, Threat)]
        return tuple(dict.fromkeys(key for part in held for key in part.shares(stochastic=stochastic)))

    @final
    def check_grants(self, view: View) -> None:
        """Refuse a view that lacks what this needs.

        Raises:
            ThreatModelError: the adversary was not granted what this attack needs.
        """
        view.check(self.needs, self.name)
        if len(view.crossings) < self.crossings:
            raise ThreatModelError(
                f"attack {self.name!r} needs each input sent {self.crossings} times, got {len(view.crossings)}; "
                "give the view that many crossings."
            )


class Attack(Threat):
    """One way to turn observed features back into images. Subclasses say what they need and override `run` only."""

    @abstractmethod
    def run(self, view: View) -> Tensor:
        """The guess x_hat: (N, C, H, W)."""

    @final
    def __call__(self, view: View) -> Reconstruction:
        """Check grants, run, check the shape, clip to [0, 1], time. An attack cannot score itself.

        Raises:
            ThreatModelError: the adversary was not granted what this attack needs.
        """
        self.check_grants(view)
        start = time.perf_counter()
        x_hat = self.run(view).detach().float().cpu()
        seconds = time.perf_counter() - start
        _expect(self.name, "images", (len(view.z), *view.image_shape), x_hat)
        outside = ((x_hat < 0) | (x_hat > 1)).float().mean().item()
        x_hat = torch.where(x_hat.isinf(), torch.nan, x_hat)
        return Reconstruction(x_hat.clamp(0, 1), seconds, outside, dict(view.evidence))


class LabelAttack(Threat):
    """One way to read a private label from observed features. Subclasses say what they need and override `run` only."""

    @abstractmethod
    def run(self, view: View, labels: Tensor, classes: int) -> Tensor:
        """Scores (N, classes). labels: (M,) int64 of the adversary's images, -1 where unknown."""

    @final
    def __call__(self, view: View, labels: Tensor, classes: int) -> LabelScores:
        """Check grants, run, check the shape, time. An attack cannot score itself.

        Raises:
            ThreatModelError: the adversary was not granted what this attack needs.
        """
        self.check_grants(view)
        start = time.perf_counter()
        scores = self.run(view, labels.to(view.z.device), classes).detach().float().cpu()
        seconds = time.perf_counter() - start
        _expect(self.name, "scores", (len(view.z), classes), scores)
        return LabelScores(scores, seconds, dict(view.evidence))


def _expect(name: str, what: str, shape: tuple[int, ...], got: Tensor) -> None:
    if got.shape != shape:
        raise SplitVeilError(f"attack {name!r}: expected {what} {shape}, got {tuple(got.shape)}; mend its run().")


def frozen(module: nn.Module) -> nn.Module:
    """`module` in eval mode without parameter gradients, in place."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def seed_view(view: View, *parts: object) -> None:
    """Seed torch for one attack on one view, so that the result does not depend on what ran before."""
    torch.manual_seed(derive(view.seed, *parts))
