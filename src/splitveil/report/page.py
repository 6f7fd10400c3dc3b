"""The HTML page: what the template is given, and writing it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splitveil.core.errors import InputError
from splitveil.core.records import write_atomically
from splitveil.report import headline, words
from splitveil.report.album import Album, Thumbnail
from splitveil.report.configuration import ConfigurationSection, Metric, configurations
from splitveil.report.exposure import Exposure, most_exposed
from splitveil.report.folder import Folder, load_all
from splitveil.report.gallery import Grid, grid
from splitveil.report.histogram import Histogram, axis, spread
from splitveil.report.labels import LabelGauge, readings
from splitveil.report.leakage import Panel, Series, panel, places
from splitveil.report.scale import Scale
from splitveil.report.selfchecks import SelfCheck, all_checks
from splitveil.report.templates import environment


@dataclass(frozen=True, slots=True)
class Shown:
    """A configuration with its place in the comparison, and what is drawn of it."""

    folder: Folder
    config: ConfigurationSection
    title: str
    slot: int
    grid: Grid | None
    exposure: Exposure | None
    spreads: tuple[Histogram, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One audit."""

    folder: Folder
    anchor: str
    opening: str
    findings: tuple[tuple[headline.Finding, ...], ...]
    doubts: tuple[headline.Raised, ...]
    checks: tuple[SelfCheck, ...]
    readings: tuple[LabelGauge, ...]
    grants: tuple[str, ...]
    untold: int
    by_cut: dict[str, list[Shown]]

    @property
    def extra_names(self) -> list[str]:
        """Further metrics that some row has, in order."""
        return list(dict.fromkeys(name for row in self.folder.card.rows for name in row.extra))

    @property
    def lone(self) -> bool:
        """Each cut has one configuration only, so cuts stand side by side."""
        return all(len(shown) == 1 for shown in self.by_cut.values())

    @property
    def exposed(self) -> bool:
        """Some configuration has pictures of the images that leak most."""
        return any(s.exposure for shown in self.by_cut.values() for s in shown)


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the template draws. `together`: cut -> the worst cases of all audits, where there are several."""

    title: str
    sections: tuple[Section, ...]
    series: tuple[Series, ...]
    panels: tuple[Panel, ...]
    together: dict[str, list[Grid]]
    attacks: tuple[str, ...]
    pictures: tuple[Thumbnail, ...]

    @property
    def told(self) -> dict[str, str]:
        """What the audits say of their attacks."""
        return {name: line for section in self.sections for name, line in section.folder.card.words.items()}

    @property
    def intervals(self) -> bool:
        """Some mean has its 95 % interval."""
        return any(
            score.interval
            for section in self.sections
            for row in section.folder.card.rows
            for score in row.scores.values()
        )


def render(folders: Sequence[Path | str], out: Path | str) -> Path:
    """Write one self-contained HTML page about one audit or several; the answer is `out`.

    Raises:
        InputError: a folder is missing or damaged, or `out` cannot be written; then nothing is written.
        MissingExtraError: jinja2 is not installed.
    """
    out = Path(out)
    page = _page(load_all([Path(folder) for folder in folders]))
    text = _filled(page)
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; name a file in a folder that you may write.") from None
    return out


def _filled(page: Page) -> str:
    return environment().get_template("page.html.j2").render(page=page, words=words)


def _page(folders: Sequence[Folder]) -> Page:
    several = len(folders) > 1
    series = _series(folders)
    slots = {s.label: s.slot for s in series}
    album = Album()
    sections = tuple(_section(f, i, several, slots, album) for i, f in enumerate(folders))
    cuts = places(folders)
    panels = tuple(p for p in (panel("psnr", series, cuts), panel("ssim", series, cuts)) if p)
    together: dict[str, list[Grid]] = {}
    for cut in (c.text for c in cuts) if several else ():
        shown = [s for section in sections for s in section.by_cut.get(cut, [])]
        grids = [grid(s.folder, s.config, s.title, s.slot, album, show=lambda e: e.is_worst) for s in shown]
        if any(grids):
            together[cut] = [g for g in grids if g]
    run = [row.attack for f in folders for row in f.card.rows]
    run += [row.attack for f in folders for row in f.card.inferences]
    title = "Leakage report: " + ", ".join(dict.fromkeys(f"{f.card.model} on {f.card.data}" for f in folders))
    return Page(title, sections, series, panels, together, tuple(dict.fromkeys(run)), album.pictures)


def _label(folder: Folder, config: ConfigurationSection, several: bool) -> str:
    return f"{folder.name} · {config.label}" if several else config.label


def _series(folders: Sequence[Folder]) -> tuple[Series, ...]:
    found: dict[str, dict[str, ConfigurationSection]] = {}
    for folder in folders:
        for config in configurations(folder.card):
            found.setdefault(_label(folder, config, len(folders) > 1), {})[config.cut] = config
    return tuple(Series(label, slot, by_cut) for slot, (label, by_cut) in enumerate(found.items()))


def _section(folder: Folder, number: int, several: bool, slots: dict[str, int], album: Album) -> Section:
    configs = configurations(folder.card)
    alone = len({(c.defense, c.codec) for c in configs}) == 1
    axes: dict[Metric, Scale] = {}
    if folder.scores:
        axes = {"psnr": axis(folder, "psnr"), "ssim": axis(folder, "ssim")}
    by_cut: dict[str, list[Shown]] = {}
    for config in configs:
        title = _label(folder, config, several)
        slot = slots[title]
        spreads = tuple(spread(folder, config, metric, slot, x) for metric, x in axes.items())
        guesses = grid(folder, config, config.label, slot, album)
        most = most_exposed(folder, config, config.label, slot, album)
        drawn = Shown(folder, config, title, slot, guesses, most, spreads)
        by_cut.setdefault(config.cut, []).append(drawn)
    card = folder.card
    told = headline.telling(configs)
    findings = [tuple(headline.finding(c, alone=alone) for c in told if c.cut == cut) for cut in by_cut]
    untold = len(configs) - len(told)
    doubts, grants = tuple(headline.doubts(card)), tuple(words.grants(card.knows))
    return Section(
        folder,
        f"audit-{number + 1}",
        headline.opening(card),
        tuple(filter(None, findings)),
        doubts,
        tuple(all_checks(card, doubts)),
        tuple(readings(configs)),
        grants,
        untold,
        by_cut,
    )
