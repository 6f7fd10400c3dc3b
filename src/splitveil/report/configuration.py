"""One cut with one defence and one codec: the rows of a card that belong together."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from splitveil.core.records import Accuracy, Card, LabelRow, Role, Row, SummaryRow
from splitveil.report.words import attack_label

BARE = "defended halves with nothing between"
"""What ``none`` stands for in an audit of a protected split, whose defence may have rebuilt and trained the halves."""
Metric = Literal["psnr", "ssim"]
"""Those that choose a worst case (`CHOSEN_BY`), each with a chart of its own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row, its place in the card and what to call its attack, options included where another row has its name."""

    number: int
    row: Row
    label: str

    @property
    def is_floor(self) -> bool:
        """What an adversary guesses without inverting anything."""
        return self.row.role is Role.FLOOR

    @property
    def is_worst(self) -> bool:
        """The envelope over all attacks."""
        return self.row.role is Role.WORST

    def value(self, metric: Metric) -> float:
        """Mean over the images."""
        return self.row.scores[metric].mean

    def interval(self, metric: Metric) -> tuple[float, float] | None:
        """95 % of that mean; None in cards from before there were any."""
        return self.row.scores[metric].interval


@dataclass(frozen=True, slots=True)
class ConfigurationSection:
    """What was attacked, and how each attack fared."""

    cut: str
    defense: str
    codec: str
    entries: tuple[Entry, ...]
    accuracy: float | None
    labels: tuple[LabelRow, ...] = ()
    bare: bool = False
    tested: Accuracy | None = None

    @property
    def label(self) -> str:
        """``undefended · raw``."""
        return f"{self.name} · {self.codec}"

    @property
    def name(self) -> str:
        """The defence, or what the halves are without one."""
        return self.defense if self.defense != "none" else BARE if self.bare else "undefended"

    @property
    def is_plain(self) -> bool:
        """Neither defended nor quantised."""
        return self.defense == "none" and self.codec == "raw"

    @property
    def attacks(self) -> list[Entry]:
        """Rows that are neither floor nor envelope."""
        return [e for e in self.entries if not e.is_floor and not e.is_worst]

    @property
    def floors(self) -> list[Entry]:
        """The floor rows."""
        return [e for e in self.entries if e.is_floor]

    def strongest(self, metric: Metric) -> Entry | None:
        """The single attack that leaks most on average, floors apart."""
        return max(self.attacks, key=lambda e: e.value(metric), default=None)

    def floor(self, metric: Metric) -> Entry | None:
        """The highest floor."""
        return max(self.floors, key=lambda e: e.value(metric), default=None)

    def worst(self, metric: Metric) -> Entry | None:
        """The envelope chosen by this metric."""
        return next((e for e in self.entries if e.row.chosen_by == metric), None)

    def shown_for(self, metric: Metric) -> list[Entry]:
        """All rows but the envelope of the other metric."""
        return [e for e in self.entries if e.row.chosen_by in (None, metric)]


def configurations(card: Card) -> list[ConfigurationSection]:
    """The card's rows grouped: shallow cuts first, the bare before the defended, else in the card's order."""
    moved = defended_cuts([*card.rows, *card.inferences])
    found = [
        ConfigurationSection(
            *place,
            _entries([(number, row) for number, row in enumerate(card.rows) if row.place == place]),
            card.accuracies.get(place.label),
            tuple(card.labels_at(place)),
            place.defense == "none" and place.cut in moved,
            card.tested.get(place.label),
        )
        for place in card.places
    ]
    depth = {cut.name: cut.index for cut in card.cuts}
    first_seen = list(dict.fromkeys(c.cut for c in found))
    deepest = max(depth.values(), default=0)
    return sorted(found, key=lambda c: (depth.get(c.cut, deepest + 1), first_seen.index(c.cut), c.defense != "none"))


def defended_cuts(rows: Iterable[Row | LabelRow | SummaryRow]) -> set[str]:
    """Cuts whose halves came with a defence: a row without one is `BARE` there, since no audit mixes splits."""
    return {row.cut for row in rows if row.defense != "none"}


def _entries(rows: Sequence[tuple[int, Row]]) -> tuple[Entry, ...]:
    times = Counter(row.attack for _, row in rows)
    labels = {
        number: attack_label(row.attack) + (f" ({row.options})" if times[row.attack] > 1 and row.options else "")
        for number, row in rows
    }
    return tuple(Entry(number, row, labels[number]) for number, row in rows)
