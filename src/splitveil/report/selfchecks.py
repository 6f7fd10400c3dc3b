"""The self-checks of an audit: each one with what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from splitveil.core.records import CHECKS, Card
from splitveil.report.configuration import ConfigurationSection, configurations
from splitveil.report.headline import Raised

State = Literal["raised", "passed", "idle", "unknown"]
EVIDENCE = {"zero gradients": "gradient", "under-trained": "gain", "over-fitted": "gap"}
"""Checks that look at what an attack tells of itself."""
FIRST = ("not finite", "few images", "below the floor")
"""All that audits did before they gave intervals."""
YOUNG = ("untrained defence",)
"""Later than those: a card that says how many test images there were has them."""
APART = ("few own images", "barely trained", "floor in the tail")
"""Later still: a card whose worst cases tell attacks and floors apart has them."""
ASKED = ("beaten from outside",)
"""Only where an attack from outside was held against the suite's."""
COMPARED = ("few test images",)
"""Of comparisons and plans: no single audit has two nets to hold against each other."""


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """One check. ``idle``: there was nothing to check. ``unknown``: the audit is older than the check."""

    kind: str
    raised_if: str
    state: State
    doubt: Raised | None


def all_checks(card: Card, doubts: Sequence[Raised]) -> list[SelfCheck]:
    """Every check in a fixed order, then reasons that this report knows no check for."""
    raised = {doubt.kind: doubt for doubt in doubts}
    young = any(score.interval for row in card.rows for score in row.scores.values()) or bool(card.inferences)
    apart = any(row.envelope for row in card.rows)
    configs = configurations(card)
    checks = []
    for kind, check in CHECKS.items():
        state: State = "passed"
        if kind in raised:
            state = "raised"
        elif (not young and kind not in FIRST) or (kind in YOUNG and not card.tested) or (kind in APART and not apart):
            state = "unknown"
        elif not _applies(kind, card, configs):
            state = "idle"
        checks.append(SelfCheck(kind, check.raised_if, state, raised.get(kind)))
    return checks + [SelfCheck(d.kind, "", "raised", d) for d in doubts if d.kind not in CHECKS]


def _applies(kind: str, card: Card, configs: Sequence[ConfigurationSection]) -> bool:
    if kind in COMPARED:
        return False
    if kind in ASKED:
        return bool(card.against)
    if kind in YOUNG:
        return any(config.defense != "none" for config in configs)
    if kind in EVIDENCE:
        evidence = [r.evidence for r in card.rows] + [r.evidence for r in card.inferences]
        return any(EVIDENCE[kind] in told for told in evidence)
    attacks = [[entry.row for entry in config.attacks] for config in configs]
    if kind == "black box beats white box":
        return any(len({"WEIGHTS" in row.needs for row in rows}) == 2 for rows in attacks)
    if kind == "below the floor":
        return any(rows and config.floors for rows, config in zip(attacks, configs, strict=True))
    return True
