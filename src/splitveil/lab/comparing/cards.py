"""Audits of trained splits, each in a folder of its own that is found again for the same question."""

from collections.abc import Callable
from pathlib import Path

from splitveil.core.records import Card
from splitveil.lab.attacks.base import frozen
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.run import conducted
from splitveil.lab.auditing.subject import Halfway, Subject
from splitveil.lab.comparing.facts import Carded
from splitveil.lab.data import Dataset
from splitveil.lab.defenses.base import Protected
from splitveil.lab.store import Results


def carded(facts: Carded, data: Dataset, subject: Callable[[], Subject], out: Path) -> tuple[Card, Path]:
    """The card, and where it lies; from disk where it is finished.

    Its parts are in ``units`` of `out`, so that another card of the same split finds those that it asks for too.

    Args:
        facts: what decides it.
        data: that `facts` tell.
        subject: made only where something is to be done.
        out: folder of the comparison or plan.
    """
    folder = out / "audits" / facts.name
    path = folder / "card.json"
    if path.exists():
        return Card.load(path), path
    results = Results(folder=folder, resume=True, cache=out / "units")
    return conducted(subject(), data, facts.question, results, facts.seed).card, path


def alone(protected: Protected, model: str, weights: str) -> Subject:
    """A trained split as the one configuration that is audited: the undefended one is audited by itself."""
    frozen(protected)
    cut, whole = protected.split.cut, Halfway(protected.split, protected.defense.rest())
    return Subject(model, weights, whole, (cut,), (Configuration(cut, protected),))
