"""The first sentences of the page: what was found, and what must not be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitveil.core.records import CHECKS, Card, Doubt
from splitveil.report.configuration import ConfigurationSection, configurations
from splitveil.report.words import accuracy, attack_label, both, decibels, listing, similarity

MOST_FINDINGS = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one configuration, in three parts so that the page can stress the middle one."""

    before: str
    stress: str
    after: str

    def __str__(self) -> str:
        return f"{self.before} {self.stress} {self.after}".strip()


@dataclass(frozen=True, slots=True)
class Raised:
    """A reason not to trust, what it means where that is known, and the rows that it concerns."""

    kind: str
    meaning: str
    rows: tuple[str, ...]


def opening(card: Card) -> str:
    """Such as ``resnet20 on cifar10, task accuracy 92.1 %, attacked at layer1 and layer2.``."""
    names = list(dict.fromkeys(c.cut for c in configurations(card)))
    told = accuracy(card.task_accuracy, card.task)
    return f"{card.model} on {card.data}, task accuracy {told}, attacked at {listing(names)}."


def finding(config: ConfigurationSection, *, alone: bool) -> Finding:
    """What the cloud recovers there.

    Args:
        config: which cut, defence and codec.
        alone: the audit has no other defence or codec, so a plain configuration need not be named.
    """
    where = f"At {config.cut}" if alone and config.is_plain else f"At {config.cut}, {_manner(config)},"
    psnr, ssim = config.strongest("psnr"), config.strongest("ssim")
    floors = _floors(config)
    if psnr is None or ssim is None:
        return Finding(where, "no attack was run", f"{floors}.".lstrip())
    one = psnr.number == ssim.number
    numbers = both(psnr.value("psnr"), ssim.value("ssim"))
    how = psnr.label
    if not one:
        how = f"{how} by PSNR, {ssim.label} by SSIM"
    tail = f"with {how} {floors}".rstrip()
    if not alone and config.accuracy is not None:
        tail += f", task accuracy {accuracy(config.accuracy, config.tested)}"
    psnr_floor, ssim_floor = config.floor("psnr"), config.floor("ssim")
    below = psnr_floor and psnr.value("psnr") <= psnr_floor.value("psnr")
    if below and ssim_floor and ssim.value("ssim") <= ssim_floor.value("ssim"):
        return Finding(f"{where} the attacks run here recover", "no more than the floors:", f"{numbers} {tail}.")
    return Finding(f"{where} the cloud recovers inputs at", numbers, f"{tail}.")


def telling(configs: Sequence[ConfigurationSection]) -> list[ConfigurationSection]:
    """All of them while they are few; else, for each defence and codec, the cuts that leak most and least."""
    if len(configs) <= MOST_FINDINGS:
        return list(configs)
    groups: dict[str, list[ConfigurationSection]] = {}
    for config in configs:
        groups.setdefault(config.label, []).append(config)
    ends = {id(end) for group in groups.values() for end in (max(group, key=_leak), min(group, key=_leak))}
    return [config for config in configs if id(config) in ends]


def doubts(card: Card) -> list[Raised]:
    """All reasons in the card's rows by kind."""
    where: dict[str, list[str]] = {}
    for config in configurations(card):
        found: dict[tuple[str, str], list[str]] = {}
        rows = [(entry.label, entry.row.unreliable) for entry in config.entries]
        rows += [(f"{attack_label(i.attack)} of {i.attribute}", i.unreliable) for i in config.labels]
        for label, reasons in rows:
            for doubt in map(Doubt, reasons):
                found.setdefault((doubt.kind, doubt.detail), []).append(label)
        for (kind, detail), attacks in found.items():
            which = "all rows" if len(attacks) == len(rows) else ", ".join(attacks)
            text = f"{config.cut}, {config.label}: {which}"
            where.setdefault(kind, []).append(f"{text} ({detail})" if detail else text)
    return [Raised(kind, CHECKS[kind].meaning if kind in CHECKS else "", tuple(rows)) for kind, rows in where.items()]


def _leak(config: ConfigurationSection) -> float:
    strongest = config.strongest("psnr")
    return strongest.value("psnr") if strongest else 0.0


def _manner(config: ConfigurationSection) -> str:
    if config.bare:
        defense = "with nothing between the defended halves"
    else:
        defense = config.name if config.defense == "none" else f"defended by {config.defense}"
    return defense if config.codec == "raw" else f"{defense}, sent as {config.codec}"


def _floors(config: ConfigurationSection) -> str:
    psnr, ssim = config.floor("psnr"), config.floor("ssim")
    if psnr is None or ssim is None:
        return ""
    if psnr.number == ssim.number:
        return f"(floor: {psnr.label} {both(psnr.value('psnr'), ssim.value('ssim'))})"
    by_psnr, by_ssim = decibels(psnr.value("psnr")), similarity(ssim.value("ssim"))
    return f"(floors: {psnr.label} {by_psnr} dB, {ssim.label} SSIM {by_ssim})"
