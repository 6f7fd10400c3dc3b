"""Audits of trained splits, each in a folder of its own that is found again for the same question."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from splitveil.core.records import Card, write_atomically
from splitveil.lab.attacks.base import frozen
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.question import Question
from splitveil.lab.auditing.run import conducted
from splitveil.lab.auditing.subject import Halfway, Subject
from splitveil.lab.comparing.facts import Carded
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.weights import restored
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset
from splitveil.lab.defenses.base import Protected
from splitveil.lab.jobs import Workers
from splitveil.lab.store import Facts, Kept, Results, Store

CARD, SCORES = "card.json", "scores.safetensors"


class Cards(Store):
    """Audits in ``audits`` of a folder: the card is the result, with all that lies beside it.

    Their parts are in ``units`` of it, so that another card of the same split finds those that it asks for too.

    Args:
        out: folder of the comparison or plan.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out / "audits")
        self.folder, self.units = out / "audits", out / "units"

    def path(self, facts: Facts) -> Path:
        """Where the card lies."""
        return self.folder / facts.name / CARD

    def __contains__(self, facts: Facts) -> bool:
        # The card is the first file that is written: one without its scores was stopped there.
        card = self.path(facts)
        return card.exists() and (card.parent / SCORES).exists()

    def find(self, facts: Facts) -> Kept | None:
        """The card's text, if the audit is finished."""
        return (self.path(facts).read_text(), {}) if facts in self else None

    def keep(self, facts: Facts, text: str, tensors: Mapping[str, Tensor], *, by: str = "") -> None:
        """What `attacked` gave; the card is the last file that is written."""
        for name in sorted(tensors, key=lambda name: name == CARD):
            write_atomically(self.folder / facts.name / name, tensors[name].numpy().tobytes())
        self._clear(facts)

    def workdir(self, facts: Facts) -> Path:
        """The folder of the audit itself."""
        folder = self.path(facts).parent
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def attacked(
    start: Split, setting: Setting, weights: dict[str, Tensor], epochs: int, named: tuple[str, str], data: Dataset,
    question: Question, seed: int, units: Path, folder: Path | None,
) -> Kept:  # fmt: skip
    """The card of one trained split; arguments as of `restored` and `conducted`.

    named: model and weights in words; units: finished attacks that several audits share.
    """
    return told(alone(restored(start, setting, weights, epochs), *named), data, question, seed, units, folder)


def told(
    subject: Subject, data: Dataset, question: Question, seed: int, units: Path, folder: Path | None,
    workers: Workers | None = None,
) -> Kept:  # fmt: skip
    """The card of an audit, whose files are in `folder` then; where there is no such, they come with it, as bytes.

    workers: attack; None for this process.
    """
    if folder is not None:
        results = Results(folder=folder, resume=True, cache=units)
        return conducted(subject, data, question, results, seed, workers).card.to_json(), {}
    with tempfile.TemporaryDirectory(prefix="splitveil-audit-") as elsewhere:
        own = Path(elsewhere)
        card = conducted(subject, data, question, Results(folder=own, resume=True), seed).card
        files = {p.relative_to(own).as_posix(): p.read_bytes() for p in own.rglob("*") if p.is_file()}
    return card.to_json(), {
        name: torch.frombuffer(bytearray(content), dtype=torch.uint8)
        for name, content in files.items()
        if content and not name.startswith("units/")
    }


def alone(protected: Protected, model: str, weights: str) -> Subject:
    """A trained split as the one configuration that is audited: the undefended one is audited by itself."""
    frozen(protected)
    cut, whole = protected.split.cut, Halfway(protected.split, protected.defense.rest())
    return Subject(model, weights, whole, (cut,), (Configuration(cut, protected),))


def carded(
    facts: Carded, data: Dataset, subject: Callable[[], Subject], out: Path, workers: Workers
) -> tuple[Card, Path]:
    """The card, and where it lies; from disk where it is finished.

    Args:
        facts: what decides it.
        data: that `facts` tell.
        subject: made only where something is to be done.
        out: folder of the comparison or plan.
        workers: attack.
    """
    cards = Cards(out)
    text, _ = cards.kept(
        facts, lambda folder: told(subject(), data, facts.question, facts.seed, cards.units, folder, workers)
    )
    return Card.from_json(text, f"{cards.path(facts)}"), cards.path(facts)
