"""Every result as a typed, frozen record that goes to JSON and back.

No torch and nothing that trains: a device reads these too. Readers ignore keys that they do not know (later versions
add keys and rename none) and refuse a document of another major schema.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from splitveil.errors import InputError

SCHEMA_VERSION = 1


class Record(BaseModel):
    """A frozen record; `to_json` and `from_json` are inverse."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")

    def to_json(self) -> str:
        """Indented JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "the document") -> Self:
        """Read JSON.

        Raises:
            InputError: not JSON, or all the fields that are wrong, in one sentence.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'text'}: {e['msg']}" for e in error.errors())
            raise InputError(f"{source} is not a valid {cls.__name__.lower()} ({wrong}); write it anew.") from None


class Document(Record):
    """A record that stands alone in a file and names its schema."""

    kind: ClassVar[str]
    schema_version: int = SCHEMA_VERSION

    def save(self, path: Path) -> None:
        """Write atomically: a reader sees the old text or the new one."""
        write_atomically(path, self.to_json().encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            InputError: missing, unreadable, not valid, or from another schema.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; check the path.") from None
        found = cls.from_json(text, str(path))
        if found.schema_version != SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema {found.schema_version}, expected {SCHEMA_VERSION}; use the SplitVeil that wrote it."
            )
        return found


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


class Row(Record):
    """What one attack recovered at one cut. Means over `n` private images, pixels in [0, 1]."""

    cut: str
    defense: str
    codec: str
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


class LabelRow(Record):
    """What one label attack read of one attribute at one cut."""

    cut: str
    defense: str
    codec: str
    attack: str
    needs: list[str]
    attribute: str = Field(description="task for the label that the model answers")
    classes: int
    n: int = Field(description="private images whose label is known")
    accuracy: float
    accuracy_interval: tuple[float, float] | None = Field(default=None, description="95 % bootstrap over images")
    chance: float = Field(description="share of the commonest label among the private images")
    seconds: float
    unreliable: list[str] = []
    options: str = ""
    evidence: dict[str, float] = {}


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
    bundle: str = ""
    versions: dict[str, str] = {}
    notes: list[str] = []
    knows: list[str] = []
    inferences: list[LabelRow] = []
    strongest: dict[str, dict[str, str]] = Field(
        default={}, description="'cut | defense | codec' -> metric -> the one attack that leaks most on average"
    )

    @property
    def unreliable(self) -> list[str]:
        """All reasons in all rows, with the row's name."""
        images = [f"{r.cut} {r.attack}: {why}" for r in self.rows for why in r.unreliable]
        labels = [f"{r.cut} {r.attack} of {r.attribute}: {why}" for r in self.inferences for why in r.unreliable]
        return images + labels


class Estimate(Record):
    """A mean over seeds. interval: 95 %, Student's t, None for one seed; values: in order of the seeds."""

    mean: float
    interval: tuple[float, float] | None
    values: list[float]


class SummaryRow(Record):
    """One attack at one cut over several seeds."""

    cut: str
    defense: str
    codec: str
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
    bundle: str = ""


class Tensor(Record):
    """Name, Open Inference Protocol datatype and shape of one tensor; -1 stands for the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Manifest(Document):
    """What a bundle holds and what both halves agreed on."""

    kind: ClassVar[str] = "manifest"

    name: str
    model: str = Field(description="as given to the loader, to rebuild the nets for re-training and audits")
    cut: Cut
    classes: list[str]
    image_shape: tuple[int, int, int] = Field(description="(C, H, W) in [0, 1]; the model normalises itself")
    defense: str
    codec: str
    codec_state: dict[str, Any] = {}
    noise: Tensor | None = Field(default=None, description="standard normal input of the edge graph, fresh per request")
    input: Tensor
    features: Tensor
    output: Tensor
    contract: str = Field(description="hash of everything that must be the same on both sides")
    task_accuracy: float | None = None
    files: dict[str, str] = Field(default={}, description="SHA-256 of every other file")
    versions: dict[str, str] = {}


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, then rename over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def dumps(value: object) -> str:
    """JSON of plain objects and records, for ``--json``."""
    return json.dumps(value, indent=2, default=lambda r: r.model_dump(mode="json"), allow_nan=False)
