"""The criterion card: every cheap number at every cut, and how well each predicts the attack."""

from typing import ClassVar

from pydantic import Field

from splitveil.core.records.base import Document, Record
from splitveil.core.records.place import Placed

STRONGEST = "strongest"
"""Whichever attack has the least mean squared error at a place."""


class Number(Record):
    """One cheap number at one cut, with what is needed to believe it."""

    name: str = Field(description="the same at every cut: mine, R_c^2/D, dFIL")
    family: str = Field(description="information, entropy, dependence, geometry or sensitivity")
    value: float | None = Field(description="None where it could not be had; `note` says why")
    unit: str
    leaks: str = Field(description="'more' where a larger value should mean easier inversion, else 'less'")
    interval: tuple[float, float] | None = None
    cap: float | None = Field(default=None, description="a value that the estimator cannot exceed, whatever the truth")
    samples: int = 0
    calibration: dict[str, float] = Field(default={}, description="the same estimator where the answer is known")
    note: str = ""


class Cost(Record):
    """One thing that a configuration costs or keeps."""

    name: str
    value: float
    unit: str
    note: str = ""
    interval: tuple[float, float] | None = Field(
        default=None, description="95 % over images, where it is a share of them"
    )


class CutNumbers(Placed):
    """All numbers of one configuration, and what attacks reached there."""

    edge_share: float
    elements: int = Field(description="numbers in z of one sample")
    numbers: list[Number]
    costs: list[Cost] = Field(default=[], description="utility, compute, storage and bytes")
    errors: dict[str, float] = Field(default={}, description="attack -> mean squared error per element")


class Correlation(Record):
    """Spearman's rank correlation of a number with an attack's error over configurations."""

    number: str
    attack: str
    rho: float | None = Field(description="None where one side is constant or there are fewer than three cuts")
    chance: float | None = Field(description="share of all orders with a correlation at least as strong; two-sided")
    cuts: int


class Criterion(Document):
    """Cheap numbers beside the attack; see docs/metrics.md."""

    kind: ClassVar[str] = "criterion"

    model: str
    weights: str
    data: str
    seed: int
    hardware: str
    seconds: float
    n: int = Field(description="images that the numbers are estimated on")
    cuts: list[CutNumbers]
    correlations: list[Correlation] = []
    versions: dict[str, str] = {}
    notes: list[str] = []
