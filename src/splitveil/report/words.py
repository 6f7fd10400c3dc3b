"""Names, numbers and definitions as the pages print them, in plain English."""

from collections.abc import Mapping, Sequence

from splitveil.core.records import FLOORS, Accuracy, Outsider, Role, Score, chosen_by
from splitveil.core.records.card import plain_name
from splitveil.core.registry import Spec

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"

WORST = "No attack of its own: for each image the best of all rows above, chosen knowing the truth."

DEFINITIONS = {
    "PSNR": "Peak signal-to-noise ratio of each image in decibels, pixels in [0, 1], capped at 100 dB, then averaged. "
    "More decibels mean that more leaked: 10 dB more is a tenth of the squared error.",
    "SSIM": "Structural similarity (Wang et al. 2004) of each image, then averaged. 1 means equal, near 0 unrelated.",
    "MSE": "Mean squared error for each pixel and channel, pixels in [0, 1]. Less means that more leaked.",
    "Worst 5 %": "The average over the 5 % of the images that leak most by that metric, at least one image. "
    "A mean can look safe while these are not. Of a worst case it stands there for attacks and floors apart, too: a "
    "floor may carry it alone, where the adversary holds an image that resembles a private one.",
    "Worst case per image": "For each image the best attack by that metric, chosen with knowledge of the truth: "
    "an upper envelope over the attacks, not one adversary. Stronger attacks than those run here may exist.",
    "Strongest attack": "The one attack with the highest mean: what an adversary gets who runs it on every image. "
    "At least this leaks.",
    "95 % interval": "Written under a mean: the span from the 2.5th to the 97.5th percentile of that mean over random "
    "redraws of the private images (bootstrap). It does not cover other training runs of the model or of the attack.",
    "White box": "The adversary has the edge half. Black box: it has not, but may send images of its own through it. "
    "Query-free: it can do neither, and only watches what users send.",
    "Chance": "For label attacks: the share of the commonest label, which always guessing that label would score.",
    "Floors": "What an adversary guesses without inverting the features: the mean image, the class mean, the nearest "
    "image of its own. Leakage is what lies above them.",
    "Edge share": "The part of all multiply-accumulates (MACs) that the device computes.",
}

GRANTS = {
    "AUX": "holds images of its own, with labels",
    "QUERIES": "can send images of its own through the protected edge half and read the features",
    "WEIGHTS": "has the edge half: its architecture and weights",
    "DEFENSE": "knows the defence and its parameters, not its random draws",
    "CLOUD": "runs the cloud half",
}

NEEDS = {
    "AUX": "holds own images",
    "QUERIES": "may query the edge",
    "WEIGHTS": "has the edge half",
    "DEFENSE": "knows the defence",
    "CLOUD": "runs the cloud half",
}


def attack_label(attack: str) -> str:
    """``mean`` -> ``mean image``, ``repeat:attack=[mle:steps=9]`` -> ``repeat of mle``; other names stay."""
    if metric := chosen_by(attack):
        return f"worst case by {metric.upper()}"
    return FLOORS.get(attack) or (Spec.parse(attack).short if "=" in attack else attack)


def attack_line(attack: str, told: Mapping[str, str]) -> str:
    """What the attack does, in one line. told: `Card.words`."""
    return _line(attack, told) or "An attack that this report has no description of."


def extra_line(name: str, told: Mapping[str, str]) -> str:
    """What a further metric says, in one line. told: as for `attack_line`."""
    return _line(name, told) or "A metric that this report has no description of."


def _line(name: str, told: Mapping[str, str]) -> str:
    if Role.of(name) is Role.WORST:
        return WORST
    if line := told.get(plain_name(name)):
        return line
    try:  # records from before they had words
        from splitveil.lab.auditing.words import words_of
    except ImportError:
        return ""
    return words_of(name)


def grants(knows: Sequence[str]) -> list[str]:
    """What the adversary has, in words; grants without words stay."""
    return [GRANTS.get(grant, grant) for grant in knows]


def box(needs: Sequence[str]) -> str:
    """The weakest of ``query-free``, ``black box`` and ``white box`` that can run an attack with these needs."""
    return "white box" if "WEIGHTS" in needs else "black box" if "QUERIES" in needs else "query-free"


def threat(needs: Sequence[str]) -> str:
    """``holds own images and may query the edge``; needs without words stay."""
    return listing([NEEDS.get(need, need) for need in needs]) or "only reads the wire"


def listing(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def span(interval: tuple[float, float] | None, digits: int) -> str:
    """(31.88, 32.41) -> ``31.9 to 32.4``; empty for None."""
    return " to ".join(signed(end, digits) for end in interval) if interval else ""


def signed(value: float, digits: int) -> str:
    """``0.98``; a typographic minus where below zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", MINUS)


def decibels(value: float) -> str:
    """``32.1``."""
    return f"{value:.1f}"


def similarity(value: float) -> str:
    """``0.98``; a typographic minus where below zero."""
    return signed(value, 2)


def tails(envelope: Mapping[str, Score], digits: int) -> str:
    """``attacks 29.60, floors 35.30``: the worst 5 % of a worst case for each of the two alone."""
    return ", ".join(f"{what} {signed(score.number(tail=True), digits)}" for what, score in envelope.items())


def both(psnr: float, ssim: float) -> str:
    """``32.1 dB / SSIM 0.98``."""
    return f"{decibels(psnr)} dB / SSIM {similarity(ssim)}"


def error(value: float) -> str:
    """``0.01234``; ``1.4e-06`` where five digits would hide it."""
    return f"{value:.5f}" if value >= 1e-4 or value == 0 else f"{value:.1e}".replace("-", MINUS)


def percent(share: float | None) -> str:
    """0.921 -> ``92.1 %``; an en dash for None."""
    return NONE if share is None else f"{100 * share:.1f} %"


def accuracy(share: float | None, tested: Accuracy | None) -> str:
    """``92.1 % (91.6 to 92.6 %)``, with the 95 % interval where it is known."""
    return percent(share) if tested is None else f"{percent(share)} ({percents(tested.interval)})"


def percents(interval: tuple[float, float]) -> str:
    """(0.88, 0.913) -> ``88.0 to 91.3 %``."""
    return " to ".join(f"{100 * share:.1f}" for share in interval) + " %"


def size(count: int) -> str:
    """Bytes: ``512 B``, ``16.0 KiB``, ``1.5 MiB``."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def quantity(count: int) -> str:
    """``950``, ``12.4 k``, ``3.1 M``, ``2.0 G``."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return str(count)


def duration(seconds: float) -> str:
    """``0.4 s``, ``95 s``, ``12 min``, ``3.2 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def ahead_words(outsider: Outsider) -> str:
    """``ridge is ahead of the suite's attacks by -1.2 dB in PSNR (...)``: by each metric that judges."""
    told = (
        f"{signed(lead.mean, 2)}{f' {lead.unit}' if lead.unit else ''} in {by.upper()} "
        f"({span(lead.interval, 2)}; worst 5 %: {signed(lead.worst, 2)}; on {lead.share:.0%} of the images)"
        for by, lead in outsider.ahead.items()
    )
    return f"{outsider.attack} against the best of the suite's attacks for each image: {', '.join(told)}"
