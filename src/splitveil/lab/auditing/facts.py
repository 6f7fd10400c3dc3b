"""What decides each finished part of an audit."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.view import Knows
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.examiners import Examiner, Learner
from splitveil.lab.auditing.scoring import Secret
from splitveil.lab.data.base import Array, Images
from splitveil.lab.metrics.base import Metric
from splitveil.lab.store import Facts
from splitveil.wire.codecs import Codec

MACHINERY = (
    "splitveil.lab.auditing.features",
    "splitveil.lab.auditing.scoring",
    "splitveil.lab.metrics.reconstruction",
)


@dataclass(frozen=True)
class At(Facts):
    """A configuration with every weight, buffer and constant. graph: hash of what ships in place of the edge half."""

    place: str
    kind: type
    edge: nn.Module
    cloud: nn.Module
    defense: nn.Module
    codec: Codec
    graph: str
    random: bool

    @classmethod
    def of(cls, c: Configuration) -> "At":
        """All of `c`."""
        own = c.protected
        return cls(
            c.label, type(own), c.split.edge, c.split.cloud, own.defense, own.codec, own.graph_sha256, c.random
        )  # fmt: skip

    @property
    def label(self) -> str:
        return self.place


@dataclass(frozen=True)
class Private(Facts):
    """The images that are attacked, or all that accuracy is measured on."""

    images: Images


@dataclass(frozen=True)
class Adversary(Facts):
    """Its grants and its images. labels: (M,), those of the task as it has them."""

    knows: Knows
    images: Images
    labels: Array


@dataclass(frozen=True)
class Looking(Facts):
    """What is measured on every guess beside the metrics of every row."""

    metrics: tuple[Metric, ...]
    examiners: tuple[Examiner, ...]
    adaptive: Learner | None


@dataclass(frozen=True)
class Answered(Facts):
    """The task accuracy at a configuration."""

    made_by: ClassVar = ("splitveil.lab.auditing.features",)
    at: At
    data: Private
    seed: int

    @property
    def label(self) -> str:
        return f"{self.at.place} | accuracy"


@dataclass(frozen=True)
class Common(Facts):
    """What the attacks of one adversary on one configuration share; names their checkpoints, see `View.once`."""

    at: At
    adversary: Adversary
    seed: int

    @property
    def label(self) -> str:
        return f"{self.at.place} | shared"


@dataclass(frozen=True)
class Passing(Facts):
    """What is made for one run only and never kept."""

    words: str

    @property
    def label(self) -> str:
        return self.words


@dataclass(frozen=True)
class Attacked(Facts):
    """One attack on the images at one configuration, run and scored."""

    made_by: ClassVar = MACHINERY
    at: At
    adversary: Adversary
    private: Private
    attack: Attack
    looking: Looking | None
    seed: int
    samples: int

    @property
    def label(self) -> str:
        return f"{self.at.place} | {self.attack!r}"


@dataclass(frozen=True)
class Inferred(Facts):
    """One attack on a private label at one configuration."""

    made_by: ClassVar = MACHINERY
    at: At
    adversary: Adversary
    private: Private
    attack: LabelAttack
    secret: Secret
    seed: int

    @property
    def label(self) -> str:
        return f"{self.at.place} | {self.attack!r}"
