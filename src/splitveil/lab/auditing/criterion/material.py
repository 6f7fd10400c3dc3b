"""`Material`: images, labels and crossed features of one configuration, which every cheap number is made from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.metrics.information.projection import projected
from splitveil.lab.seeds import generator

T = TypeVar("T")

COMPONENTS = 32
"""Principal components of the images and of the features, for the information estimators."""


@dataclass(frozen=True)
class Material:
    """Images with the features that crossed for them, once each.

    Attributes:
        configuration: cut, defence and codec.
        x: (N, C, H, W) in [0, 1].
        z: (N, *cut), observed: after the defence's noise and the codec.
        labels: (N,) int64; -1 where unknown.
        logits: (N, K), the cloud's answers to z.
        undefended: (N, K), its answers to the clean features.
        classes: of the task.
        seed: of every draw.
        known: what is the same at every cut, made once; see `once`.
    """

    configuration: Configuration
    x: Tensor
    z: Tensor
    labels: Tensor
    logits: Tensor
    undefended: Tensor
    classes: int
    seed: int
    known: dict[str, Any] = field(default_factory=dict)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What is the same wherever `key` is: `make` is called the first time only."""
        if key not in self.known:
            self.known[key] = make()
        found: T = self.known[key]
        return found

    @property
    def deterministic(self) -> Callable[[Tensor], Tensor]:
        """What leaves the device without noise: (n, C, H, W) -> (n, *cut), differentiable; the codec is left out."""
        protected = self.configuration.protected
        return lambda x: protected.defense.mean(protected.twin(x))

    @cached_property
    def narrow_x(self) -> Tensor:
        """Whitened principal components of the images: (N, r)."""
        return projected(self.x, COMPONENTS, seed=self.seed)

    @cached_property
    def narrow_z(self) -> Tensor:
        """Whitened principal components of the features: (N, r)."""
        return projected(self.z, COMPONENTS, seed=self.seed)

    def shuffled(self, part: int | None = None) -> Tensor:
        """An order of the first `part` samples in which pairs no longer belong together."""
        count = len(self.x) if part is None else part
        return torch.randperm(count, generator=generator(self.seed, "shuffled pairs"))
