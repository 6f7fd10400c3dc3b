"""Colours for charts that a script draws: those of the page's style sheet, light and dark."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

Colours = dict[str, str]


@cache
def themes() -> tuple[Colours, Colours]:
    """(light, dark): name in ``chart.css.j2`` -> ``#rrggbb``; both have the same names."""
    css = (Path(__file__).parent / "chart.css.j2").read_text()
    roots = re.findall(r":root\{(.*?)\}", css, re.DOTALL)[:2]
    light, dark = ({name: _full(hue) for name, hue in re.findall(r"--(\w+):(#\w+)", root)} for root in roots)
    return light, dark


def depth_colours(count: int) -> list[tuple[str, str]]:
    """(light, dark) for each of `count` cuts, shallow first: from orange through purple to blue."""
    light, dark = themes()
    stops = ("c1", "c3", "c0")
    shares = [k / max(count - 1, 1) for k in range(count)]
    return [(_between([light[s] for s in stops], at), _between([dark[s] for s in stops], at)) for at in shares]


def _full(hue: str) -> str:
    return hue if len(hue) == 7 else "#" + "".join(2 * digit for digit in hue[1:])


def _between(stops: Sequence[str], share: float) -> str:
    at = share * (len(stops) - 1)
    k = min(int(at), len(stops) - 2)
    ends = [[int(hue[i : i + 2], 16) for i in (1, 3, 5)] for hue in (stops[k], stops[k + 1])]
    return "#" + "".join(f"{round(a + (b - a) * (at - k)):02x}" for a, b in zip(*ends, strict=True))
