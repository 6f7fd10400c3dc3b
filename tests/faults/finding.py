"""What one section of the fault tests found."""

from typing import ClassVar

from splitveil.core.records.base import Document, Record


class Finding(Record):
    """One section of the page.

    Attributes:
        title: of the section.
        ran: what was done, with its numbers and seconds, in one or two sentences.
        columns, rows: a table; no columns for none.
        notes: sentences behind the table.
        failures: what should not have happened, one sentence each; empty when all is well.
        series: numbers over time, for whoever wants to look again.
        code: fingerprint of SplitVeil's sources when it ran; sections may have been run apart.
    """

    title: str
    ran: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    series: tuple[tuple[float, float], ...] = ()
    code: str = "not recorded"

    def markdown(self) -> str:
        """The section as text."""
        lines = [f"## {self.title}", "", self.ran, ""]
        if self.columns:
            lines += ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
            lines += ["| " + " | ".join(row) + " |" for row in self.rows]
            lines.append("")
        lines += [line for note in self.notes for line in (note, "")]
        verdict = "**Failed:** " + " ".join(self.failures) if self.failures else "**Passed.**"
        return "\n".join([*lines, f"{verdict} Code: {self.code}.", ""])


class Findings(Document):
    """All sections that have been run so far, by name, and where."""

    kind: ClassVar[str] = "serving-faults"
    hardware: str
    environment: dict[str, str]
    seed: int
    sections: dict[str, Finding]
