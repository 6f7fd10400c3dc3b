"""The undefended net's answers as soft targets (Hinton et al. 2015): less accuracy is lost to what other parts do."""

import copy
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Batch, Defense, Sample


class Distillation(Defense):
    """``weight * T^2 * KL(teacher || student)`` at temperature T, beside the task's own loss; no defence by itself.

    The teacher is the net as it came, on the same augmented images, frozen; it is in no bundle. One that knows no more
    than a guess (untrained weights) is dismissed, and the loss is then zero. In a chain it stands before whatever
    changes the halves.

    Args:
        weight: beside the cross-entropy.
        temperature: T.

    Raises:
        InputError: a weight below 0 or a temperature not above 0.
    """

    name: ClassVar[str] = "distillation"

    def __init__(self, *, weight: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__()
        if weight < 0 or temperature <= 0:
            raise InputError(
                f"expected weight >= 0 and temperature > 0, got {weight} and {temperature}; use distillation:weight=1."
            )
        self.weight, self.temperature = float(weight), float(temperature)
        self._teacher: tuple[nn.Module, ...] = ()
        """In a tuple, so that it is no part of this module and of no bundle."""

    def install(self, split: Split) -> Split:
        self._teacher = (copy.deepcopy(split).eval().requires_grad_(False),)
        return split

    def study(self, split: Split, sample: Sample) -> None:
        with torch.no_grad():
            logits = torch.cat([self._asked(part) for part in sample.x.split(250)])
        guess = torch.bincount(sample.y).max().item() / len(sample.y)
        known = (logits.argmax(1) == sample.y).float().mean().item()
        if known <= guess + 3 * (guess * (1 - guess) / len(sample.y)) ** 0.5:
            self._teacher = ()

    def penalty(self, batch: Batch) -> Tensor:
        if not self._teacher:
            return super().penalty(batch)
        with torch.no_grad():
            wanted = (self._asked(batch.x).float() / self.temperature).log_softmax(1)
        found = (batch.logits.float() / self.temperature).log_softmax(1)
        return self.weight * self.temperature**2 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)

    def finish(self, split: Split) -> Split:
        self._teacher = ()
        return split

    def _asked(self, x: Tensor) -> Tensor:
        logits: Tensor = self._teacher[0].to(x.device)(x)
        return logits
