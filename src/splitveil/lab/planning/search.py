"""Which choice to measure next, and what is known so far: from proxies over short trainings and audits to fresh ones.

Successive halving in four rungs, each dearer and asked of fewer choices (Jamieson and Talwalkar 2016 name the idea):
a proxy of all; a short training of some, which drops those that miss the accuracy; a quick audit of the rest; a full,
fresh audit of what is recommended. Within the middle rungs the next choice is not taken by rank alone but by what the
calibrated proxies expect it to add.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from splitveil.core.records import LEAKAGE, Figure
from splitveil.lab.planning.budgets import binding, broken, kept
from splitveil.lab.planning.front import gains, undominated
from splitveil.lab.planning.space import Option
from splitveil.lab.planning.surrogate import Surrogate
from splitveil.lab.seeds import derive

COSTS = ("edge_macs", "edge_bytes", "edge_memory", "payload", "latency")
"""Known before anything is trained."""
MEASURED = ("accuracy", "accuracy_drop", *LEAKAGE)
TRAINABLE = 0.3
"""Share of a proxy's loss of accuracy that is expected to stay after training, where nothing like it was measured."""
STEEP = 16.0
"""How fast a choice that is expected to break a limit falls behind,"""
HOPELESS = 20.0
"""and where it is as far behind as can be, in shares of the limit."""


@dataclass(slots=True)
class Known:
    """What is known of one option.

    Attributes:
        option: which.
        costs: figures that need no training.
        proxy: cheap numbers by the names of `proxies.NAMES`; empty: not taken.
        found: measured figures; accuracy alone where leakage was not worth measuring.
        fresh: figures of the fresh audit.
        card: file of the last card.
        note: for the plan.
        offered: False where it only teaches the proxies.
    """

    option: Option
    costs: dict[str, Figure]
    proxy: dict[str, float] = field(default_factory=dict)
    found: dict[str, Figure] = field(default_factory=dict)
    fresh: dict[str, Figure] = field(default_factory=dict)
    card: str = ""
    note: str = ""
    offered: bool = True

    @property
    def audited(self) -> bool:
        """Whether an attack was run on it in the search."""
        return "ssim" in self.found

    def figures(self, expected: Mapping[str, Figure] | None = None) -> dict[str, Figure]:
        """The best that is known of every number: fresh, else measured, else `expected`."""
        return {**(expected or {}), **self.costs, **self.found, **self.fresh}


class Search:
    """Everything known, and the choice to measure next.

    Args:
        known: of all options that may be chosen, costs within the limits.
        limits: by name.
        reference: accuracy of the undefended model on the images that accuracy is measured on in the search.
        leak: the number that stands for leakage in the front.
        seed: of the draws that areas are estimated with.
    """

    def __init__(
        self,
        known: Sequence[Known],
        limits: Mapping[str, float],
        reference: float,
        *,
        leak: str = "ssim",
        seed: int = 0,
    ) -> None:
        self.known, self.limits, self.reference = list(known), dict(limits), reference
        self.leak, self.seed = leak, seed
        self._turn = 0

    @property
    def offered(self) -> list[Known]:
        """What may be chosen."""
        return [k for k in self.known if k.offered]

    @property
    def audited(self) -> list[Known]:
        """What was attacked and may be chosen."""
        return [k for k in self.known if k.audited and k.offered]

    @property
    def measured(self) -> list[Known]:
        """What was trained or attacked and may be chosen."""
        return [k for k in self.offered if k.found or k.fresh]

    def binding(self, pruned: Sequence[Known]) -> tuple[list[str], bool]:
        """The limits that exclude the most choices which keep all others, and whether measurements say so.

        What was counted excludes `pruned`; of the rest those that were measured count. Where there is none of either,
        or nothing was measured while choices were left, the proxies' estimates say what is expected to bind.
        """
        known = [k.figures() for k in (*self.measured, *pruned)]
        if self.measured or not self.offered:
            return binding(known, self.limits), True
        expected = self.expected()
        return binding([*known, *(k.figures(expected[k.option]) for k in self.offered)], self.limits), False

    def expected(self) -> dict[Option, dict[str, Figure]]:
        """What the calibrated proxies say of every option that has some: estimates, none measured."""
        with_proxy = [k for k in self.known if k.proxy]
        found: dict[Option, dict[str, Figure]] = {k.option: {} for k in self.known}
        for name in ("accuracy", *LEAKAGE):
            measured = {k.option: k.found[name].value for k in with_proxy if name in k.found}
            beyond = TRAINABLE if name == "accuracy" else 1.0
            surrogate = Surrogate(
                {k.option: k.proxy[name] for k in with_proxy if name in k.proxy}, measured, beyond=beyond
            )
            source = f"linear proxy, calibrated on {len(measured)} measured choices" if measured else "linear proxy"
            for k in with_proxy:
                if name in k.proxy:
                    value = surrogate(k.option)
                    value = min(1.0, max(0.0, value)) if name == "accuracy" else value
                    found[k.option][name] = Figure(value=value, measured=False, source=source)
        for figures in found.values():
            if "accuracy" in figures:
                lost = 100 * (self.reference - figures["accuracy"].value)
                figures["accuracy_drop"] = figures["accuracy"].model_copy(update={"value": lost})
        return found

    def next(self) -> Known | None:
        """What to measure next; None where nothing is left that has a proxy.

        With limits, every second turn goes to the choice that would be recommended if the proxies were right, and the
        other to what the front is expected to gain most from. A choice expected to break limits falls behind.
        """
        waiting = [k for k in self.known if k.proxy and not k.found and k.offered]
        if not waiting:
            return None
        expected = self.expected()
        self._turn += 1
        if self.limits and self._turn % 2:
            holding = [k for k in waiting if not broken({**expected[k.option], **k.costs}, self.limits)]
            if holding:
                return min(holding, key=lambda k: preference({**expected[k.option], **k.costs}, self.limits, self.leak))
        box = self._box(expected)
        points = np.array([box(k.figures(expected[k.option])) for k in waiting])
        have = np.array([box(k.figures()) for k in self.audited]).reshape(-1, points.shape[1])
        gain = gains(have, points, derive(self.seed, "areas")) + 1e-6
        excess = [sum(broken({**expected[k.option], **k.costs}, self.limits).values()) for k in waiting]
        hope = np.exp(-STEEP * np.minimum(excess, HOPELESS))
        scores = gain * hope
        if scores.max() <= 2e-6 and len(have):
            # Nothing is expected to add anything: learn where least is known, far from all that was measured.
            away = [float(np.abs(have - p).sum(1).min()) for p in points]
            return waiting[int(np.argmax(np.array(away) * hope))]
        return waiting[int(scores.argmax())]

    def guesses(self, chosen: Known, count: int) -> list[Known]:
        """What would be measured after `chosen` if all came out as the proxies expect; nothing changes by asking."""
        if count < 1:
            return []
        told = Search([replace(k) for k in self.known], self.limits, self.reference, leak=self.leak, seed=self.seed)
        told._turn, found = self._turn, list[Known]()
        last: Known | None = next(k for k in told.known if k.option == chosen.option)
        while last is not None and len(found) < count:
            last.found = dict(told.expected()[last.option])
            if (last := told.next()) is not None:
                found.append(last)
        return found

    def run(
        self,
        measure: Callable[[Known], None],
        more: Callable[[], bool],
        most: int,
        done: Callable[[int], None] = lambda _: None,
    ) -> bool:
        """Measure up to `most` choices while `more` says so; whether it ended because there was nothing left to do."""
        for count in range(most):
            chosen = self.next()
            if chosen is None:
                return True
            if not more():
                return False
            measure(chosen)
            done(count + 1)
        return True

    def front(self) -> set[Option]:
        """Audited options of which no other is as good in accuracy, leakage, MACs and bytes."""
        audited = self.audited
        if not audited:
            return set()
        points = np.array([objectives(k.figures(), self.leak) for k in audited])
        # As measured in the search: the same attacks for all. A fresh audit attacks harder, so it has no part here.
        points[:, 0] = [-k.found["accuracy"].value for k in audited]
        points[:, 1] = [k.found[self.leak].value for k in audited]
        return {k.option for k, kept_ in zip(audited, undominated(points), strict=True) if kept_}

    def _box(self, expected: Mapping[Option, Mapping[str, Figure]]) -> Callable[[Mapping[str, Figure]], "list[float]"]:
        """Objectives scaled to 0 to 1 over all that is known or expected; costs by their logarithm."""
        rows = [objectives({**expected[k.option], **k.figures()}, self.leak) for k in self.known if k.proxy or k.found]
        low, high = np.min(rows, axis=0), np.max(rows, axis=0)
        span = np.where(high > low, high - low, 1.0)

        def scaled(figures: Mapping[str, Figure]) -> list[float]:
            found = (np.array(objectives(figures, self.leak)) - low) / span
            return [float(v) for v in np.clip(found, 0, 1) * 0.9]

        return scaled


def objectives(figures: Mapping[str, Figure], leak: str) -> list[float]:
    """(-accuracy, leakage, log MACs, log bytes): the axes of the front, all to be small."""
    macs, sent = figures["edge_macs"].value, figures["payload"].value
    return [-figures["accuracy"].value, figures[leak].value, math.log1p(macs), math.log1p(sent)]


def preference(figures: Mapping[str, Figure], limits: Mapping[str, float], leak: str) -> tuple[float, ...]:
    """What comes first among choices that keep all limits: smaller is better.

    With a limit on leakage, whoever keeps it has what was asked for, so the least work for the device comes first (the
    shallowest cut), and with the same work the most accurate. Without one, the least leakage comes first.
    """
    macs, accuracy = figures["edge_macs"].value, figures["accuracy"].value
    leaked = figures[leak].value if leak in figures else math.inf
    if set(limits) & set(LEAKAGE):
        return (round(math.log1p(macs), 1), -accuracy, leaked, figures["payload"].value)
    return (leaked, -accuracy, macs, figures["payload"].value)


def holds(k: Known, limits: Mapping[str, float]) -> bool:
    """Whether all limits hold by what was measured in the search."""
    return kept({**k.costs, **k.found}, limits)
