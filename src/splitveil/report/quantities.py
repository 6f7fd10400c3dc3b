"""The numbers of a plan: their names, units and meaning for people."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from splitveil.core.records import CHOSEN_BY, LIMITS, Figure
from splitveil.report.words import MINUS, duration, percent, quantity, signed, size


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a number is called, in a table's head and in a sentence, how it is written, and what it says."""

    label: str
    write: Callable[[float], str]
    meaning: str = ""


def plain(value: float) -> str:
    """Three significant digits, whole numbers from 1000 on: ``0.0123``, ``12.3``, ``1,130``, ``1.23e+06``."""
    size_of = abs(value)
    text = f"{value:.3g}" if size_of < 999.5 else f"{value:,.0f}" if size_of < 1e5 else f"{value:.2e}"
    return text.replace("-", MINUS)


def _points(value: float) -> str:
    return f"{signed(value, 2)} points"


def _bytes(value: float) -> str:
    return size(round(value))


def _count(value: float) -> str:
    return quantity(round(value))


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if abs(seconds) < 1 else duration(seconds)


def _decibels(value: float) -> str:
    return f"{signed(value, 1)} dB"


def _likeness(value: float) -> str:
    return signed(value, 3)


def _bits(value: float) -> str:
    return f"{plain(value)} bits"


LEAKAGE = tuple(sorted(LIMITS, key=lambda name: (-CHOSEN_BY.index(LIMITS[name][0]), not LIMITS[name][1])))
"""What leaks, the tail first: it is what a limit should be about."""

QUANTITIES = {
    "accuracy": Quantity("accuracy", percent, "on test images"),
    "accuracy_drop": Quantity("accuracy lost", _points, "points of test accuracy below the undefended model"),
    "ssim_worst": Quantity("SSIM, worst 5 %", _likeness, "mean over the 5 % of the images that leak most"),
    "ssim": Quantity("SSIM", _likeness, "likeness of guess and input, worst case over all attacks; 1 is equal"),
    "psnr_worst": Quantity("PSNR, worst 5 %", _decibels, "mean over the 5 % of the images that leak most"),
    "psnr": Quantity("PSNR", _decibels, "of the worst case over all attacks; more leaks more"),
    "mse": Quantity("MSE", plain, "squared error of the best guess; less leaks more"),
    "payload": Quantity("bytes sent", _bytes, "for one sample, without headers"),
    "latency": Quantity("latency", _time, "device, link and cloud together"),
    "edge_macs": Quantity("device MACs", _count, "multiply-accumulates of one sample on the device"),
    "edge_bytes": Quantity("device storage", _bytes, "weights of the edge half, defence included"),
    "edge_memory": Quantity("device memory", _bytes, "peak of live activations on the device"),
    "decoder_mse": Quantity("decoder error", plain, "MSE of a trained decoder; less leaks more"),
    "linear_mse": Quantity(
        "linear error", plain, "MSE of the best linear decoder on images set aside; less leaks more"
    ),
    "rc2": Quantity("R_c²/D", plain, "spread within classes, for each dimension of standardised features"),
    "rc2_predicted": Quantity("R_c²/D, predicted", plain, "the same with the classes that the model answers"),
    "within": Quantity("within clusters", plain, "share of the variance within k-means clusters; needs no labels"),
    "rank": Quantity("effective rank", plain, "dimensions that the features really use"),
    "h_x_z": Quantity("H(x|z) bound", _bits, "uncertainty about the input that is left; more leaks less"),
    "within_shuffled": Quantity("within clusters, shuffled", plain, "the same of shuffled features: what chance gives"),
    "h_z": Quantity("H(z) bound", _bits, "what can cross at most"),
    "elements": Quantity("numbers sent", _count, "elements of the features of one sample"),
}


def known(name: str) -> Quantity:
    """What is known of a number; names without words stay, their underscores gone."""
    return QUANTITIES.get(name) or Quantity(name.replace("_", " "), plain)


def ordered(names: Iterable[str]) -> list[str]:
    """Each name once: those that the table knows in its order, then the others as they came."""
    found = dict.fromkeys(names)
    return [name for name in QUANTITIES if name in found] + [name for name in found if name not in QUANTITIES]


def held(name: str, figure: Figure) -> float:
    """What stands against a limit, as in the planner: of leakage the upper end of its interval, else the value."""
    return figure.interval[1] if name in LEAKAGE and figure.interval else figure.value


def excess_text(share: float) -> str:
    """How far beyond a limit: ``0.4 %``, ``24 %``, ``16 times`` the limit from three times on."""
    if share >= 2:
        return f"{1 + share:.0f} times the limit"
    return f"{100 * share:.2g} % over" if share < 0.1 else f"{100 * share:.0f} % over"


def figure_text(name: str, figure: Figure) -> str:
    """``1.5 KiB``; ``≈ 1.5 KiB`` where nobody measured it."""
    text = known(name).write(figure.value) if math.isfinite(figure.value) else str(figure.value)
    return text if figure.measured else f"\N{ALMOST EQUAL TO} {text}"


def span_text(name: str, interval: tuple[float, float]) -> str:
    """``0.90 to 1.70 points``: a unit that both ends share is written once."""
    low, high = (known(name).write(end) for end in interval)
    head, _, unit = low.rpartition(" ")
    return f"{head if head and high.endswith(f' {unit}') else low} to {high}"


def figure_line(name: str, figure: Figure) -> str:
    """``SSIM 0.312 (0.301 to 0.322), measured``: everything that is known of it."""
    spread = f" ({span_text(name, figure.interval)})" if figure.interval else ""
    origin = "measured" if figure.measured else "estimated"
    source = f": {figure.source}" if figure.source else ""
    return f"{known(name).label} {figure_text(name, figure)}{spread}, {origin}{source}"
