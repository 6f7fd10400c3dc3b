"""What decides a training, and what decides the card of an audit."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Threat
from splitveil.lab.auditing.question import Question
from splitveil.lab.cut import Split
from splitveil.lab.data.base import Dataset, Images
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.metrics import METRICS
from splitveil.lab.metrics.base import Metric
from splitveil.lab.recipe import Recipe
from splitveil.lab.store import Facts
from splitveil.wire.codecs import CODECS


@dataclass(frozen=True)
class Start(Facts):
    """Fresh halves."""

    cut: str
    edge: nn.Module
    cloud: nn.Module

    @classmethod
    def of(cls, split: Split) -> "Start":
        """Of these halves."""
        return cls(split.cut.name, split.edge, split.cloud)


@dataclass(frozen=True)
class Taught(Facts):
    """What is trained on and tuned by; tuning: None for images of the training part."""

    images: Images
    classes: int
    tuning: Images | None = None


@dataclass(frozen=True)
class Sent(Facts):
    """A codec, by its words and its code."""

    words: str
    kind: type

    @classmethod
    def of(cls, spec: str) -> "Sent":
        """As the registry reads it."""
        codec = CODECS.build(spec)
        return cls(repr(codec), type(codec))


@dataclass(frozen=True)
class Defended(Facts):
    """A defence before it is installed, by its words and the code of all its parts; what it draws then has a seed."""

    words: str
    kinds: frozenset[type]

    @classmethod
    def of(cls, spec: str) -> "Defended":
        """As the registry reads it."""
        defense = DEFENSES.build(spec)
        return cls(repr(defense), frozenset(type(part) for part in defense.modules()))


@dataclass(frozen=True)
class Trained(Facts):
    """What a training came to."""

    made_by: ClassVar = ("splitveil.lab.comparing.trials",)
    start: Start
    defense: Defended
    codec: Sent
    data: Taught
    recipe: Recipe
    seed: int

    @property
    def label(self) -> str:
        return f"{self.defense.words} {self.codec.words} seed {self.seed}"


@dataclass(frozen=True)
class Weights(Facts):
    """The weights of a training."""

    of: Trained

    @property
    def label(self) -> str:
        return f"weights {self.of.label}"


@dataclass(frozen=True)
class Shown(Facts):
    """What a card says of the images, and the images."""

    source: str
    test: Images
    classes: tuple[str, ...]
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, data: Dataset) -> "Shown":
        """Of the test part."""
        return cls(data.name, data.test, data.classes, data.remarks)


@dataclass(frozen=True)
class Looked(Facts):
    """What a trained split answers and costs."""

    made_by: ClassVar = ("splitveil.lab.comparing.looking",)
    of: Trained
    data: Shown

    @property
    def label(self) -> str:
        return f"answers of {self.of.label}"


@dataclass(frozen=True)
class Carded(Facts):
    """The card of one audit. subject: what its configurations were made from."""

    made_by: ClassVar = (
        "splitveil.lab.comparing.cards", "splitveil.lab.planning.coding", "splitveil.lab.metrics.reconstruction"
    )  # fmt: skip
    words: str
    model: str
    weights: str
    subject: tuple[Facts, ...]
    data: Shown
    question: Question
    threats: tuple[Threat, ...]
    metrics: tuple[Metric, ...]
    seed: int

    @classmethod
    def of(cls, words: str, named: tuple[str, str], subject: tuple[Facts, ...], data: Shown, question: Question,
           seed: int) -> "Carded":  # fmt: skip
        """With everything that `question` asks for. named: model and weights in words."""
        specs = [
            s for noisy in (False, True) for s in question.suite.specs(question.knows, stochastic=noisy, lawful=True)
        ]
        threats = tuple(ATTACKS.build(spec) for spec in dict.fromkeys(specs))
        metrics = tuple(METRICS.build(spec) for spec in question.metrics)
        return cls(words, *named, subject, data, question, threats, metrics, seed)

    @property
    def label(self) -> str:
        return f"{self.words} {self.question.suite.label}"
