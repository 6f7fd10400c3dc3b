"""Whether attacks agree with a zone that cheap numbers found: decoders trained on both sides of its edge."""

import time
from collections.abc import Sequence
from pathlib import Path

from splitveil.core.errors import InputError
from splitveil.core.records import Row
from splitveil.core.records.plan import Zone
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import SUITES, custom_suite
from splitveil.lab.cut import Cut, Traced
from splitveil.lab.data import Dataset
from splitveil.lab.jobs import Workers

DECODER = SUITES["smoke"].attacks[1]
"""The decoder of the ``smoke`` suite."""
BY, AGREES = "mse", 1.5
"""The error that is looked at; the share of it, at the zone's first cut over one cut before, that is agreement."""


def verify_zone(
    zone: Zone,
    traced: Traced,
    data: Dataset,
    *,
    cuts: Sequence[str] | None = None,
    attack: str = DECODER,
    n: int = 200,
    aux_n: int | None = None,
    seed: int = 0,
    minutes: float | None = None,
    out: Path | None = None,
    workers: int | str | Workers = 1,
) -> Zone:
    """Train `attack` at the zone's first cut and at the cut before it, and tell whether the error jumps between them.

    Our reading of "verified": the attack agrees where its mean squared error is at least 1.5 times that of the cut
    before and the 95 % intervals over images do not meet. Both sides have the same images, adversary and training. An
    error that jumps need not be high: the zone says where inversion becomes harder, not that it has become hard.

    Args:
        zone: from `find_zones`; one without a first cut comes back as it is.
        traced: the model that it was found on.
        data: private images from the test part, the adversary's from the rest, as in an audit.
        cuts: names that the zone was found among; None for every legal cut.
        attack: one that inverts, as the registry reads it.
        n: private images.
        aux_n: the most images that the adversary holds; None for what `audit` gives.
        seed: of every draw.
        minutes: where the attack on the cut before has taken more than half of it, the other is left out and the zone
            stays untried; None for no limit.
        out: folder for what was attacked, and for going on with them; None for nowhere.
        workers: see `audit`.

    Raises:
        CutError: no legal cut there.
        InputError: the zone begins at the shallowest cut, or the attack does not invert.
    """
    if zone.first is None:
        return zone
    if not isinstance(built := ATTACKS.build(attack), Attack):
        raise InputError(f"expected an attack that gives images back, got {attack!r}; use {DECODER}.")
    before, first = _edge(zone.first, traced, cuts)
    begun, rows = time.perf_counter(), dict[str, Row]()
    # Both at once share a forward pass; one by one they leave a chance to stop between them.
    for part in [[before, first]] if minutes is None else [[before], [first]]:
        if rows and minutes is not None and time.perf_counter() - begun > 30 * minutes:
            words = f"{zone.words}; not verified: {minutes:g} minutes were over after one decoder"
            return zone.model_copy(update={"verified": None, "gain": None, "words": words})
        subject = Subject.of_model(traced, [c.name for c in part], model="the planned model", weights="")
        folder = out / "-".join(c.name for c in part).replace("/", "-") if out is not None else None
        card = audit(
            subject, data, aux_n=aux_n, suite=custom_suite([attack]), n=n, seed=seed, samples=0, out=folder,
            resume=True, workers=workers,
        ).card  # fmt: skip
        rows |= {r.cut: r for r in card.rows if r.attack == built.name}
    return judged(zone, before, first, rows[before.name], rows[first.name])


def judged(zone: Zone, before: Cut, first: Cut, shallow: Row, deep: Row) -> Zone:
    """`zone` with what an attack says of it, by the rule of `verify_zone`.

    Args:
        zone: found.
        before: the last cut outside it.
        first: its first cut.
        shallow: what the attack got at `before`.
        deep: what the same attack got at `first`, on the same images.
    """
    gain = deep.scores[BY].mean / max(shallow.scores[BY].mean, 1e-12)
    agrees = gain >= AGREES and _parted(shallow, deep)
    times = f"{gain:.1f}" if gain < 100 else f"{gain:,.0f}"
    points = 100 * (first.edge_share - before.edge_share)
    words = (
        f"transition between {before.name} and {first.name}: error x{times} for {points:.0f} points more of the "
        f"MACs on the device, {first.edge_share:.0%} of all; the attack {'agrees' if agrees else 'does not agree'}"
    )
    doubts = "; ".join(dict.fromkeys([*shallow.unreliable, *deep.unreliable]))
    words += f" (doubtful: {doubts})" if doubts else ""
    return zone.model_copy(
        update={"verified": agrees, "gain": gain, "edge_share": first.edge_share, "words": words},
    )


def _edge(first: str, traced: Traced, cuts: Sequence[str] | None) -> tuple[Cut, Cut]:
    """The last cut before the zone and its first one."""
    known = traced.cuts()
    if cuts is not None:
        wanted = {traced.split(name).cut.name for name in {*cuts, first}}
        known = [c for c in known if c.name in wanted]
    place = [c.name for c in known].index(traced.split(first).cut.name)
    if not place:
        raise InputError(f"expected a zone with a cut before it, got {first}; give the cuts that it was found among.")
    return known[place - 1], known[place]


def _parted(low: Row, high: Row) -> bool:
    """Whether the intervals of two errors, the first the smaller, do not meet; errors without one are exact."""
    near, far = low.scores[BY], high.scores[BY]
    top = near.interval[1] if near.interval else near.mean
    bottom = far.interval[0] if far.interval else far.mean
    return top < bottom
