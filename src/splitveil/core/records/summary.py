"""The summary of several seeds: means and intervals over their cards."""

from typing import ClassVar

from pydantic import Field

from splitveil.core.records.accuracy import Accuracy
from splitveil.core.records.base import Document, Record
from splitveil.core.records.place import Place, Placed


class Estimate(Record):
    """A mean over seeds. interval: 95 %, Student's t, None for one seed; values: in order of the seeds."""

    mean: float
    interval: tuple[float, float] | None
    values: list[float]


class SummaryRow(Placed):
    """One attack at one cut over several seeds."""

    attack: str
    options: str = ""
    attribute: str = Field(default="", description="what a label attack read; empty for images")
    measures: dict[str, Estimate] = Field(description="mse, psnr, ssim, psnr_worst5, ssim_worst5, or accuracy")
    unreliable: list[str] = Field(default=[], description="seed and reason, of all seeds")


class Summary(Document):
    """Audits that differ in their seed only, taken together."""

    kind: ClassVar[str] = "summary"

    model: str
    weights: str
    data: str
    threat_model: str
    suite: str
    seeds: list[int]
    private_n: int
    rows: list[SummaryRow]
    accuracies: dict[str, Estimate] = Field(default={}, description="task accuracy by 'cut | defense | codec'")
    tested: dict[str, Accuracy] = Field(
        default={}, description="means over seeds with intervals over the test images, the same for each seed"
    )
    bundle: str = ""

    @property
    def places(self) -> list[Place]:
        """What was attacked, in the order of the rows."""
        return list(dict.fromkeys(r.place for r in self.rows))

    def at(self, place: Place) -> list[SummaryRow]:
        """Rows of one place."""
        return [r for r in self.rows if r.place == place]
