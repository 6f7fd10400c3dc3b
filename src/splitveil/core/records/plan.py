"""A plan: where to cut, how wide and with which defence, under budgets."""

from typing import ClassVar

from pydantic import Field

from splitveil.core.records.accuracy import Accuracy
from splitveil.core.records.base import Document, Record
from splitveil.core.records.card import Cut
from splitveil.core.records.place import Placed


class Budget(Record):
    """Limits that a plan must keep; None or absent where there is none. Upper limits all."""

    edge_macs: int | None = Field(default=None, description="multiply-accumulates of one sample on the device")
    edge_bytes: int | None = Field(default=None, description="stored weights of the edge half, defence included")
    edge_memory: int | None = Field(default=None, description="peak of live fp32 activations on the device, bytes")
    payload: int | None = Field(default=None, description="bytes that cross for one sample, without headers")
    latency: float | None = Field(default=None, description="seconds: device, link and cloud together")
    accuracy_drop: float | None = Field(default=None, description="points of test accuracy below the undefended model")
    leakage: dict[str, float] = Field(
        default={}, description="largest worst-case value by name, of `LIMITS`: ssim, ssim_worst, psnr, psnr_worst"
    )

    def limits(self) -> dict[str, float]:
        """Every limit that is set, by the name that a choice's figures use."""
        plain = {name: getattr(self, name) for name in NAMES}
        return {name: float(value) for name, value in {**plain, **self.leakage}.items() if value is not None}


NAMES = ("edge_macs", "edge_bytes", "edge_memory", "payload", "latency", "accuracy_drop")
"""Budgets that are not about leakage."""


class Figure(Record):
    """One number of a plan, and whether it was measured."""

    value: float
    measured: bool = Field(description="False: a proxy's or a model's estimate; `source` says whose")
    interval: tuple[float, float] | None = None
    source: str = ""


class Choice(Placed):
    """One way to split: a cut, a defence and a codec, with what is known of it."""

    figures: dict[str, Figure] = Field(description="by the names of `Budget.limits`, and others")
    broken: dict[str, float] = Field(default={}, description="limit -> how far beyond it, as a share of the limit")
    on_front: bool = Field(default=False, description="no other measured choice is at least as good in everything")
    card: str = Field(default="", description="file of the leakage card, relative to the plan; empty: never audited")
    note: str = ""


class CutCurve(Record):
    """What one cut offers before anything defends it: one point of every curve over depth."""

    cut: Cut
    numbers: dict[str, Figure] = Field(
        description="rc2 (R_c^2/D), within (k-means), rank (Jacobian), h_x_z (bits), decoder_mse, latency, payload ..."
    )


class Zone(Record):
    """Cuts from which on features are those of a decision (Golden Partition Zone)."""

    first: str | None = Field(description="cut where it begins; None: no zone")
    last: str | None = None
    method: str = Field(description="what detected it: rc2, within, rank")
    verified: bool | None = Field(default=None, description="decoders at its edges agree; None: not tried")
    edge_share: float | None = Field(default=None, description="MACs on the device at `first`, of all")
    gain: float | None = Field(default=None, description="decoder MSE at `first` over that of the cut before it")
    words: str = ""


class Alternative(Record):
    """What one would do without splitting: everything on the device, or the picture itself to the cloud."""

    name: str
    figures: dict[str, Figure]
    words: str = ""


class ProxyCheck(Record):
    """How well a cheap number orders what attacks measured."""

    proxy: str
    leakage: str
    over: str = Field(description="cuts, widths, or choices")
    rho: float | None = Field(description="Spearman; None where there are fewer than three")
    interval: tuple[float, float] | None = None
    n: int


class Need(Record):
    """How long a plan with measurements takes, estimated from what was timed in this one. Seconds."""

    training: float = Field(description="of one choice")
    audit: float = Field(description="of one trained choice, with the search's attacks")
    fresh: float = Field(description="of one choice, with the attacks that are reported")
    choices: int = Field(description="that the search meant to measure")
    one: float = Field(description="the whole plan, if it measures one choice")
    whole: float = Field(description="the whole plan, if it measures all of them")


class Plan(Document):
    """Choices, their Pareto front, and the one that is recommended."""

    kind: ClassVar[str] = "plan"

    model: str
    weights: str
    data: str
    seed: int
    budget: Budget
    device: str
    link: str
    suite: str = Field(description="of the audit that measured the recommended choice")
    accuracy: float = Field(description="of the undefended model on the test images used")
    tested: Accuracy | None = Field(default=None, description="the same with its interval")
    choices: list[Choice] = Field(description="recommended first, then the front, then the rest")
    recommended: int | None = Field(
        description="index into choices; None: nothing keeps the budget or, where not `finished`, nothing was found to"
    )
    reason: str = Field(description="why this one, or which limit binds and what comes nearest")
    binding: list[str] = Field(default=[], description="limits that exclude the most choices that keep all others")
    binding_measured: bool = Field(
        default=True, description="False: estimates say what binds, since none of the choices was measured"
    )
    measured: int | None = Field(
        default=None, description="choices that the search trained or attacked; None: a plan from before this was kept"
    )
    need: Need | None = Field(default=None, description="time that measurements take; None where the search ended")
    nearest: list[int] = Field(default=[], description="where nothing fits: choices that break least")
    curves: list[CutCurve] = []
    zones: list[Zone] = []
    alternatives: list[Alternative] = []
    checks: list[ProxyCheck] = []
    hardware: str
    seconds: float
    finished: bool = Field(default=True, description="False: the time ran out before the search had ended")
    versions: dict[str, str] = {}
    notes: list[str] = []
    bundle: str = Field(default="", description="folder of the recommended split, relative to the plan; empty: none")
