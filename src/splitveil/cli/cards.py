"""Cards and summaries on stdout."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitveil.core.records import Card, Criterion, Estimate, LabelRow, Place, Row, Score, Summary, SummaryRow

Interval = tuple[float, float] | None


def show_card(card: "Card") -> None:
    """The card: for each cut, defence and codec one table of images and, where labels were attacked, one of those."""
    from splitveil.cli.console import out, show_table
    from splitveil.report.configuration import defended_cuts
    from splitveil.report.words import ahead_words, tails

    name, defended = card.bundle or card.model, defended_cuts([*card.rows, *card.inferences])
    out.print(f"{name} on {card.data}: {card.suite}, {card.private_n} private images", highlight=False)
    out.print(card.threat_model, highlight=False)
    for place in dict.fromkeys(r.place for r in card.rows):
        label, own = place.label, card.at(place)
        accuracy = card.tested.get(label) or f"{card.accuracies.get(label, card.task_accuracy):.2%}"
        names = [r.attack for r in own]
        rows = [
            [
                _name(r, names), f"{r.psnr:.2f}", span(r.psnr_interval, 2), f"{r.psnr_worst5:.2f}", f"{r.ssim:.3f}",
                span(r.ssim_interval, 3), f"{r.ssim_worst5:.3f}", f"{r.mse:.4f}", f"{r.seconds:.1f}",
                "do not trust" if r.unreliable else "",
            ]
            for r in own
        ]  # fmt: skip
        show_table(
            f"{_halves(place, defended)}, codec {place.codec}: task accuracy {accuracy}",
            ["attack", "PSNR dB", "95 %", "worst 5 %", "SSIM", "95 %", "worst 5 %", "MSE", "s", ""],
            rows,
        )
        _show_extra(own, names)
        if best := card.strongest.get(label):
            words = ", ".join(f"{attack} by {metric.upper()}" for metric, attack in best.items())
            out.print(f"strongest single attack: {words}", highlight=False)
        for r in own:
            if r.chosen_by and r.envelope:
                told = tails(r.envelope, 3 if r.chosen_by == "ssim" else 2)
                out.print(f"worst 5 % by {r.chosen_by.upper()}: {told}", highlight=False)
        _show_labels(card.labels_at(place))
        for outsider in card.against_at(place):
            out.print(f"from outside: {ahead_words(outsider)}", highlight=False)
    for note in card.notes:
        out.print(f"note: {note}", highlight=False)


def show_summary(summary: "Summary") -> None:
    """Means and intervals over seeds, one table for each cut, defence and codec."""
    from splitveil.cli.console import out, show_table
    from splitveil.report.configuration import defended_cuts

    seeds = ", ".join(map(str, summary.seeds))
    name, defended = summary.bundle or summary.model, defended_cuts(summary.rows)
    out.print(f"{name} on {summary.data}: {summary.suite}, {summary.private_n} private images, seeds {seeds}")
    for place in summary.places:
        rows, labels = [], []
        names = [r.attack for r in summary.at(place) if not r.attribute]
        for r in summary.at(place):
            m, doubt = r.measures, "do not trust" if r.unreliable else ""
            if r.attribute:
                labels.append([r.attribute, r.attack, *_estimate(m["accuracy"], 3), doubt])
            else:
                rows.append([_name(r, names), *_estimate(m["psnr"], 2), *_estimate(m["ssim"], 3), doubt])
        accuracy = summary.tested.get(place.label) or f"{summary.accuracies[place.label].mean:.2%}"
        title = f"{_halves(place, defended)}, codec {place.codec}: task accuracy {accuracy}"
        show_table(title, ["attack", "PSNR dB", "95 % over seeds", "SSIM", "95 % over seeds", ""], rows)
        if labels:
            show_table("", ["label", "attack", "accuracy", "95 % over seeds", ""], labels, left=2)


def show_criterion(found: "Criterion") -> None:
    """Numbers by cut, with their rank correlation with the strongest attack's error."""
    from splitveil.cli.console import show_table
    from splitveil.report.criterion import number_text, rho_text

    strongest = {c.number: c for c in found.correlations if c.attack == "strongest"}
    rows = [
        [number.name, *(number_text(c.numbers[k].value) for c in found.cuts), number.unit, f"leaks {number.leaks}",
         rho_text(strongest.get(number.name))]
        for k, number in enumerate(found.cuts[0].numbers)
    ]  # fmt: skip
    errors = [number_text(c.errors.get("strongest")) for c in found.cuts]
    headers = ["number", *(c.cut for c in found.cuts), "unit", "more of it", "rank correlation"]
    title = f"criterion, {found.n:,} images: cheap numbers beside the strongest attack's error"
    show_table(title, headers, [["MSE of the strongest attack", *errors, "per element", "leaks less", ""], *rows])


def span(interval: Interval, digits: int) -> str:
    """``24.1 to 25.0``; empty for None."""
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}" if interval else ""


def _halves(place: "Place", defended: set[str]) -> str:
    """Cut and defence, or what the halves are without one. defended: cuts whose halves came with one."""
    from splitveil.report.configuration import BARE

    bare = place.defense == "none" and place.cut in defended
    return f"{place.cut}, {BARE if bare else f'defense {place.defense}'}"


def _name(row: "Row | SummaryRow", names: Sequence[str]) -> str:
    """The attack, with its options where another one has its name."""
    return f"{row.attack}:{row.options}" if names.count(row.attack) > 1 and row.options else row.attack


def _estimate(e: "Estimate", digits: int) -> list[str]:
    return [f"{e.mean:.{digits}f}", span(e.interval, digits)]


def _show_extra(found: "Sequence[Row]", names: Sequence[str]) -> None:
    """Means of what was asked for beyond the numbers of every row, one line each: ten columns are there already."""
    from splitveil.cli.console import show_table

    extras: dict[str, Score] = {}
    for r in found:
        extras = r.extra | extras
    rows = []
    for name, extra in extras.items():
        means = [f"{r.extra[name].mean:.3f}" if name in r.extra else "" for r in found]
        rows.append([name, *means, extra.unit, "more leaks more" if extra.higher_leaks else "less leaks more"])
    if rows:
        show_table("further metrics", ["metric", *(_name(r, names) for r in found), "unit", ""], rows)


def _show_labels(found: "Sequence[LabelRow]") -> None:
    from splitveil.cli.console import show_table

    rows = [
        [
            r.attribute, r.attack, f"{r.accuracy:.3f}", span(r.accuracy_interval, 3), f"{r.chance:.3f}", str(r.classes),
            str(r.n), f"{r.seconds:.1f}", "do not trust" if r.unreliable else "",
        ]
        for r in found
    ]  # fmt: skip
    if rows:
        headers = ["label", "attack", "accuracy", "95 %", "chance", "classes", "images", "s", ""]
        show_table("labels read from the features", headers, rows, left=2)
