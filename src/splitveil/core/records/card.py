"""The leakage card: what attacks got at each cut."""

from typing import ClassVar, Literal

from pydantic import Field

from splitveil.core.records.accuracy import Accuracy
from splitveil.core.records.base import Document, Record
from splitveil.core.records.place import Place, Placed
from splitveil.core.records.role import Role, chosen_by
from splitveil.core.records.score import Score, standing


def plain_name(name: str) -> str:
    """``decoder:epochs=6`` -> ``decoder``, ``pa@resnet20`` -> ``pa``: without options and judge."""
    return name.partition("@")[0].partition(":")[0]


class Cut(Record):
    """A place where exactly one tensor crosses, named by the module that ends there.

    Bytes are those of one sample's features; MACs are multiply-accumulates of one sample; parameters are counted once.
    """

    name: str = Field(description="layer2; after a function, the module before it and the function: bn1+relu")
    index: int = Field(description="larger means more work on the edge")
    shape: tuple[int, ...] = Field(description="of z for one sample, without the batch axis")
    also: tuple[str, ...] = Field(default=(), description="other modules that end at the same place")
    bytes_fp32: int
    bytes_u8: int
    edge_macs: int
    cloud_macs: int
    edge_params: int
    cloud_params: int
    edge_share: float = Field(description="edge MACs over all MACs")
    edge_peak_bytes: int = Field(
        description="largest sum of live fp32 activations on the edge, one sample, input included"
    )


class Row(Placed):
    """What one attack recovered at one cut. Means over `n` private images, pixels in [0, 1].

    Fields are the keys of its JSON; whoever reads takes `scores`, which has every metric by name.
    """

    attack: str
    needs: list[str]
    n: int
    mse: float
    psnr: float = Field(description="dB, mean of per-image values, each capped at 100")
    ssim: float
    psnr_worst5: float = Field(description="mean over the 5 % of images that leak most")
    ssim_worst5: float
    seconds: float
    unreliable: list[str] = Field(default=[], description="reasons not to trust this row; empty when there are none")
    options: str = Field(default="", description="hyperparameters of the attack, as the registry reads them")
    mse_interval: tuple[float, float] | None = Field(default=None, description="95 % bootstrap of the mean over images")
    psnr_interval: tuple[float, float] | None = None
    ssim_interval: tuple[float, float] | None = None
    evidence: dict[str, float] = Field(default={}, description="what the attack told of itself, for the self-checks")
    extra: dict[str, Score] = Field(default={}, description="what was asked for beyond the above, by name")
    envelope: dict[str, Score] = Field(
        default={}, description="of a worst case: that over the attacks alone and over the floors alone, by its metric"
    )

    @property
    def scores(self) -> dict[str, Score]:
        """Metric -> what it says: those that stand in every row, then those that were asked for."""
        return standing(self.__dict__, self.n) | self.extra

    @property
    def numbers(self) -> dict[str, float]:
        """Means and tails of the metrics that stand in every row, by their keys: ``psnr``, ``psnr_worst5``."""
        found = standing(self.__dict__, self.n)
        tails = {f"{name}_worst5": score.worst for name, score in found.items() if score.worst is not None}
        return {name: score.mean for name, score in found.items()} | tails

    @property
    def role(self) -> Role:
        """Floor, attack or worst case."""
        return Role.of(self.attack)

    @property
    def chosen_by(self) -> str | None:
        """The metric of a worst case; None for all else."""
        return chosen_by(self.attack)


class LabelRow(Placed):
    """What one label attack read of one attribute at one cut."""

    attack: str
    needs: list[str]
    attribute: str = Field(description="task for the label that the model answers")
    classes: int
    n: int = Field(description="private images whose label is known")
    accuracy: float
    accuracy_interval: tuple[float, float] | None = Field(default=None, description="95 % over images (Wilson 1927)")
    chance: float = Field(description="share of the commonest label among the private images")
    seconds: float
    unreliable: list[str] = []
    options: str = ""
    evidence: dict[str, float] = {}


class Lead(Record):
    """How far an outside attack is ahead of the best of a suite's attacks for each image; above 0: it gets more."""

    mean: float = Field(description="over images, in `unit`")
    interval: tuple[float, float] = Field(description="95 % bootstrap of the mean over images")
    worst: float = Field(description="between the worst 5 % of each")
    share: float = Field(description="of images on which it gets more than every attack of the suite")
    unit: str = ""


class Outsider(Placed):
    """An attack from outside, held against a suite's at one place."""

    attack: str
    options: str = ""
    n: int
    ahead: dict[str, Lead] = Field(description="by the metric that judges")


class StandIn(Record):
    """What searches through the edge half descend on where what ships has no gradient, held against what ships."""

    kind: Literal["straight-through", "float"] = Field(
        description="values of the shipped graph with the float edge's slope, or the float edge alone"
    )
    n: int = Field(description="images of the comparison")
    relative_error: float = Field(description="float edge: root mean squared difference over the features' deviation")
    equal_codes: float | None = Field(
        default=None, description="float edge: share of codes that are the shipped ones; None where no codec rounds"
    )
    words: str = Field(description="the same as a sentence")


class Card(Document):
    """A leakage card: the whole audit in one flat object, floors first, worst case per image last."""

    kind: ClassVar[str] = "card"

    model: str
    weights: str
    data: str
    task_accuracy: float
    threat_model: str
    suite: str
    seed: int
    hardware: str
    seconds: float
    rows: list[Row]
    aux: str = ""
    aux_n: int = 0
    private_n: int = 0
    cuts: list[Cut] = []
    accuracies: dict[str, float] = Field(default={}, description="task accuracy by 'cut | defense | codec'")
    tested: dict[str, Accuracy] = Field(default={}, description="the same with their intervals over the test images")
    bundle: str = ""
    versions: dict[str, str] = {}
    notes: list[str] = []
    knows: list[str] = []
    inferences: list[LabelRow] = []
    stand_in: StandIn | None = Field(default=None, description="None where attacks searched through what was audited")
    strongest: dict[str, dict[str, str]] = Field(
        default={}, description="'cut | defense | codec' -> metric -> the one attack that leaks most on average"
    )
    against: list[Outsider] = Field(
        default=[], description="attacks from outside; the worst cases are those of the suite without them"
    )
    words: dict[str, str] = Field(
        default={}, description="what each attack and further metric is, in one line, by name without options"
    )
    contract: str = Field(default="", description="of the bundle that this card lies in; empty where it lies in none")

    @property
    def places(self) -> list[Place]:
        """What was attacked, in the order of the rows."""
        return list(dict.fromkeys([*(r.place for r in self.rows), *(r.place for r in self.inferences)]))

    def at(self, place: Place) -> list[Row]:
        """Rows of one place."""
        return [r for r in self.rows if r.place == place]

    def labels_at(self, place: Place) -> list[LabelRow]:
        """Label rows of one place."""
        return [r for r in self.inferences if r.place == place]

    def against_at(self, place: Place) -> list[Outsider]:
        """Attacks from outside at one place."""
        return [o for o in self.against if o.place == place]

    @property
    def task(self) -> Accuracy | None:
        """`task_accuracy` with its interval; None in cards from before there was one."""
        return next((a for a in reversed(self.tested.values()) if a.share == self.task_accuracy), None)

    @property
    def unreliable(self) -> list[str]:
        """All reasons in all rows, with the row's name."""
        images = [f"{r.cut} {r.attack}: {why}" for r in self.rows for why in r.unreliable]
        labels = [f"{r.cut} {r.attack} of {r.attribute}: {why}" for r in self.inferences for why in r.unreliable]
        return images + labels
