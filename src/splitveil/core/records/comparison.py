"""Defences at matched accuracy: what each leaks and what it costs."""

from typing import Any, ClassVar

from pydantic import Field, model_validator

from splitveil.core.records.accuracy import Accuracy, Lost
from splitveil.core.records.base import Document, Record
from splitveil.core.records.role import FREE
from splitveil.core.records.summary import Estimate


class Trial(Record):
    """One training."""

    defense: str
    codec: str
    seed: int
    epochs: int
    seconds: float = Field(description="wall clock, with calibration, study and validation")
    whole: bool = Field(default=True, description="False where a killed training went on, so that seconds lack a part")
    validation: float = Field(description="accuracy on the images set aside to tune by")
    validated_on: int = Field(default=0, description="these images; 0: not recorded")
    strength: float | None = Field(default=None, description="0 weakest to 1 strongest end of the knob")


class Further(Estimate):
    """A metric that was asked for. Its unit is empty and its direction None in records from before both were kept."""

    unit: str = ""
    higher_leaks: bool | None = None


class Measured(Record):
    """What the audits of all seeds found, and what the device pays."""

    accuracy: Estimate = Field(description="on test images")
    lost: Estimate = Field(description="points below the undefended split of the same seed, on test images")
    tested: Accuracy | None = Field(
        default=None, description="accuracy as the mean of the seeds, with its interval over the test images"
    )
    paired: Lost | None = Field(
        default=None, description="points lost as the mean of the seeds, with its interval over the test images"
    )
    within: Estimate | None = Field(
        default=None, description="the same on the images set aside to tune by, which the budget is about"
    )
    psnr: Estimate = Field(description="worst case per image, dB")
    ssim: Estimate = Field(description="worst case per image")
    mse: Estimate = Field(description="worst case per image, chosen by PSNR")
    strongest: dict[str, str] = Field(description="metric -> attack that leaks most, mean over images and seeds")
    radius: Estimate | None = Field(default=None, description="R_c^2 / D of what leaves the device; less is tighter")
    extra: dict[str, Further] = Field(default={}, description="further metrics of the worst case by PSNR")
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
    ended: bool = Field(default=False, description="the strong end of the knob is within the budget")
    defends: bool = Field(default=True, description="False for what is compared but called no defence")
    validation: float
    missing: float = Field(default=0.0, description="points below the budget, where it was not reached")
    measured: Measured | None = Field(default=None, description="None where the budget was not reached")
    tried: list[Trial] = []

    @property
    def validated(self) -> Accuracy | None:
        """`validation` with its interval; None in records that do not say on how many images."""
        return Accuracy.known(self.validation, max((t.validated_on for t in self.tried), default=0))

    @property
    def reached(self) -> bool:
        """Within the budget."""
        return self.missing <= 0


class Floor(Record):
    """What an adversary guesses without inverting. All but the mean image look at the undefended split's features."""

    attack: str
    psnr: Estimate
    ssim: Estimate

    @property
    def free(self) -> bool:
        """Whether it needs no features, and so bounds what any defence can reach."""
        return self.attack == FREE


TUNED = "knobs are tuned by "
"""How the note begins that told it before `Comparison.tuned_by` did."""


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
    recipe: str = Field(default="usual", description="of every training, as the registry reads it")
    words: dict[str, str] = Field(default={}, description="as in the cards")
    tuned_by: str = Field(
        default="the accuracy on a tenth of the training part", description="what settings were chosen by, in words"
    )
    hardware: str
    seconds: float
    versions: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _of_older(cls, record: Any) -> Any:
        """Records from before there was `tuned_by` tell it in a note, and the oldest do not."""
        told = [n for n in record.get("notes", ()) if n.startswith(TUNED)] if isinstance(record, dict) else []
        return {"tuned_by": told[0].removeprefix(TUNED), **record} if told else record

    @property
    def undefended(self) -> Contender:
        """The reference."""
        return next(c for c in self.contenders if c.drop is None)

    @property
    def further(self) -> dict[str, Further]:
        """Metrics that were asked for, by name, each as the first contender has it."""
        found: dict[str, Further] = {}
        for c in self.contenders:
            found = (c.measured.extra if c.measured else {}) | found
        return found

    def ranked(self, drop: float) -> list[Contender]:
        """Contenders at one budget: least leakage by PSNR first, those that missed it last, closest first."""
        at = [c for c in self.contenders if c.drop == drop]
        return sorted(at, key=lambda c: (c.measured is None, c.measured.psnr.mean if c.measured else c.missing))
