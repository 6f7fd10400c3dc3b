"""The findings of a comparison, in sentences made of its records."""

from collections.abc import Sequence

from splitveil.core.records import Contender, Estimate, Measured, Role
from splitveil.core.registry import Spec

Reached = tuple[Contender, Measured]


def findings(contenders: Sequence[Contender], drops: Sequence[float]) -> list[str]:
    """For each budget: which defence leaks least and by how much, what binds there, and who missed the budget."""
    plain = next(c.measured for c in contenders if c.drop is None)
    found = [" ".join(_at(drop, [c for c in contenders if c.drop == drop], plain)) for drop in drops]
    doubtful = [c.label for c in contenders if c.measured and c.measured.unreliable]
    if doubtful:
        found.append(f"Do not trust: {', '.join(dict.fromkeys(doubtful))}; the reasons stand in the cards.")
    return found


def _at(drop: float, at: Sequence[Contender], plain: Measured | None) -> list[str]:
    pairs = [(c, c.measured) for c in at if c.measured and c.defends]
    inside = sorted(pairs, key=lambda pair: pair[1].psnr.mean)
    where = f"Within {drop:g} point{'' if drop == 1 else 's'}"
    wanting = "was accurate enough" if any(c.defends for c in at) else "was compared"
    found = [_best(where, inside)] if inside else [f"{where}, no defence {wanting}."]
    if inside and (attack := inside[0][1].strongest.get("psnr")):
        binds = f"What binds it is {Spec.parse(attack).short}: no other single attack gets more."
        floor = f"No single attack on it gets more than the floor {attack} does."
        found.append(floor if Role.of(attack) is Role.FLOOR else binds)
    idle = [c.label for c, m in inside if plain and overlap(m.psnr, plain.psnr)]
    if idle:
        found.append(f"Not told apart from the undefended split by PSNR: {', '.join(idle)}.")
    missed = [f"{c.label} by {c.missing:.2f}" for c in at if not c.reached]
    if missed:
        found.append(f"Missed, in points of validation accuracy at the closest setting: {', '.join(missed)}.")
    over = [f"{c.label} {m.within.mean:.2f}" for c, m in inside if m.within and m.within.mean > drop]
    if over:
        found.append(f"Over the budget as the mean of all seeds, in points of validation accuracy: {', '.join(over)}.")
    paid = [f"{c.label} {_lost(m)}" for c, m in inside if (m.paired.interval[0] if m.paired else m.lost.mean) > drop]
    if paid:
        found.append(f"Lost more than that on test images, in points: {', '.join(paid)}.")
    vague = [
        f"{c.label} {_lost(m)}" for c, m in inside if m.paired and m.paired.interval[0] <= drop < m.paired.interval[1]
    ]
    if vague:
        n = next(m.paired.n for _, m in inside if m.paired)
        found.append(
            f"Lost on {n:,} test images, which do not tell whether it is within that: {', '.join(vague)} (95 %)."
        )
    spare = [c.label for c, _ in inside if c.ended]
    if spare:
        found.append(f"At the end of the knob, with accuracy to spare: {', '.join(spare)}.")
    return found


def _lost(measured: Measured) -> str:
    return f"{measured.lost.mean:.2f}" if measured.paired is None else str(measured.paired)


def overlap(one: Estimate, two: Estimate) -> bool | None:
    """Whether the intervals over seeds have a value in common; None where there is only one seed."""
    if one.interval is None or two.interval is None:
        return None
    return one.interval[0] <= two.interval[1] and two.interval[0] <= one.interval[1]


def _best(where: str, inside: Sequence[Reached]) -> str:
    best, measured = inside[0]
    text = f"{where}, {best.label} leaks least: worst case {measured.psnr.mean:.2f} dB, SSIM {measured.ssim.mean:.3f}"
    if len(inside) == 1:
        return f"{text}."
    second, other = inside[1]
    gap = other.psnr.mean - measured.psnr.mean
    sure = {None: "one seed, so no interval", True: "intervals overlap", False: "intervals apart"}
    return f"{text}; {gap:.2f} dB below {second.label} ({sure[overlap(measured.psnr, other.psnr)]})."
