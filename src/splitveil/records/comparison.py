"""Defences at matched accuracy: what each leaks and what it costs."""

from typing import ClassVar

from pydantic import Field

from splitveil.records.base import Document, Record
from splitveil.records.summary import Estimate


class Trial(Record):
    """One training."""

    defense: str
    codec: str
    seed: int
    epochs: int
    seconds: float = Field(description="wall clock, with calibration, study and validation")
    validation: float = Field(description="accuracy on the images set aside to tune by")
    strength: float | None = Field(default=None, description="0 weakest to 1 strongest end of the knob")


class Measured(Record):
    """What the audits of all seeds found, and what the device pays."""

    accuracy: Estimate = Field(description="on test images")
    lost: Estimate = Field(description="points below the undefended split of the same seed, on test images")
    psnr: Estimate = Field(description="worst case per image, dB")
    ssim: Estimate = Field(description="worst case per image")
    mse: Estimate = Field(description="worst case per image, chosen by PSNR")
    strongest: dict[str, str] = Field(description="metric -> the one attack that leaks most on average, first seed")
    radius: Estimate | None = Field(default=None, description="R_c^2 / D of what leaves the device; less is tighter")
    extra: dict[str, Estimate] = Field(default={}, description="further metrics of the worst case by PSNR")
    edge_macs: int = Field(description="edge half and defence")
    edge_params: int = Field(description="edge half and defence")
    payload_bytes: int = Field(description="of one request, without protocol headers")
    epoch_ratio: float | None = Field(default=None, description="training seconds an epoch over the undefended split's")
    unreliable: list[str] = []
    cards: list[str] = Field(default=[], description="leakage cards, relative to the comparison")


class Contender(Record):
    """One defence at one budget."""

    label: str = Field(description="as asked for")
    drop: float | None = Field(description="budget: points of validation accuracy; None for the undefended split")
    defense: str
    codec: str
    knob: str = Field(default="", description="the option that was tuned")
    value: float | None = None
    defends: bool = Field(default=True, description="False for what is compared but called no defence")
    validation: float
    missing: float = Field(default=0.0, description="points below the budget, where it was not reached")
    measured: Measured | None = Field(default=None, description="None where the budget was not reached")
    tried: list[Trial] = []

    @property
    def reached(self) -> bool:
        """Within the budget."""
        return self.missing <= 0


class Floor(Record):
    """What an adversary guesses without the features."""

    attack: str
    psnr: Estimate
    ssim: Estimate


class Comparison(Document):
    """Matched-utility comparison at one cut. Contenders: the undefended split, then each defence at each budget."""

    kind: ClassVar[str] = "comparison"

    model: str
    weights: str
    data: str
    cut: str
    codec: str
    suite: str
    threat_model: str
    private_n: int
    seeds: list[int]
    epochs: int
    lr: float
    trials: int
    drops: list[float]
    floors: list[Floor]
    contenders: list[Contender]
    findings: list[str] = []
    notes: list[str] = []
    hardware: str
    seconds: float
    versions: dict[str, str] = {}

    @property
    def undefended(self) -> Contender:
        """The reference."""
        return next(c for c in self.contenders if c.drop is None)

    def ranked(self, drop: float) -> list[Contender]:
        """Contenders at one budget: least leakage by PSNR first, those that missed it last, closest first."""
        at = [c for c in self.contenders if c.drop == drop]
        return sorted(at, key=lambda c: (c.measured is None, c.measured.psnr.mean if c.measured else c.missing))
