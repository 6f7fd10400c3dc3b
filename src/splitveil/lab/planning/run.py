"""`plan`: choose where to cut and what to defend with, under budgets, and measure the choice afresh."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from splitveil.core.arguments import checked
from splitveil.core.errors import CutError, InputError
from splitveil.core.progress import task
from splitveil.core.records import Budget, Cut, Device, Finishing, Link, Plan, claim
from splitveil.core.registry import nearest as nearest_name
from splitveil.lab.accelerator import computing
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.view import Knows
from splitveil.lab.auditing.question import WHITE_BOX, Question
from splitveil.lab.auditing.suites import Suite, find_suite
from splitveil.lab.comparing import without_tuning
from splitveil.lab.cut import Traced
from splitveil.lab.data import Dataset
from splitveil.lab.jobs import Workers
from splitveil.lab.planning.budgets import check_budget
from splitveil.lab.planning.clock import Clock
from splitveil.lab.planning.latency import Way
from splitveil.lab.planning.measuring import QUICK, Bench
from splitveil.lab.planning.outcome import alternatives, choices, rank_checks
from splitveil.lab.planning.planner import Planner, leak_of
from splitveil.lab.planning.proxies import LEAST
from splitveil.lab.planning.recommendation import Verdict, nearest, verified, why, why_not
from splitveil.lab.planning.search import Known, Search
from splitveil.lab.planning.space import CODECS_TRIED, DEFENSES, LEVELS, Space
from splitveil.lab.recipe import SLOW
from splitveil.lab.seeds import derive, digest, fingerprint, hardware
from splitveil.lab.store import Results

HELD, CUTS, LEAST_AUDITS = 2000, 6, 8
SHARE = 4
"""One choice in so many is measured, of those that keep the limits which need no measurement."""


@checked
@computing
def plan(
    traced: Traced,
    data: Dataset,
    *,
    model: str,
    weights: str,
    budget: Budget,
    out: Path | str,
    cuts: Sequence[str] | None = None,
    defenses: Sequence[str] = DEFENSES,
    codecs: Sequence[str] = CODECS_TRIED,
    levels: Sequence[float] = LEVELS,
    device: Device | None = None,
    link: Link | None = None,
    server: Device | None = None,
    suite: str | Suite = "smoke",
    quick: Suite = QUICK,
    knows: Knows = WHITE_BOX,
    n: int = 200,
    held_n: int | None = None,
    train_n: int = 10_000,
    epochs: int | None = None,
    lr: float = SLOW,
    audits: int | None = None,
    minutes: float | None = None,
    curve_n: int = 1000,
    zone: Literal["lasting", "published"] = "lasting",
    seed: int = 0,
    resume: bool = False,
    accelerator: str = "auto",
    workers: int | str | Workers = 1,
    threads: int | None = None,
) -> Plan:
    """The Pareto front of ways to split a trained model, and the one to take, attacked afresh.

    The search sees the training part and test images that are set aside; what is recommended is then attacked with
    another seed on the other test images, and its accuracy is theirs. PrivyNet (Li et al. 2017, arXiv 1709.06161)
    searches depth and channels under limits on leakage, compute and storage; defences, codecs, the wire and the fresh
    audit are ours.

    Args:
        traced: the trained model.
        data: as for `audit`.
        model: name for the record.
        weights: description for the record.
        budget: limits; see `Budget`.
        out: folder for trainings, audits and ``plan.json``.
        cuts: names; None for six over the depth.
        defenses: families as `compare` takes them; options given stay fixed.
        codecs: what crosses.
        levels: strengths at which knobs are tried while the choices are few; Optuna proposes any where they are many.
        device: for the latency.
        link: for the latency.
        server: runs the cloud half; None for this machine.
        suite: of the fresh audit.
        quick: of the search's audits.
        knows: the adversary's grants.
        n: private images of every audit.
        held_n: test images set aside for the search; None for half of them, at most 2,000.
        train_n: training images that a defence is trained with, at most.
        epochs: of a defence's training; None for what each needs, and 2 for what needs none. Undefended splits stay as
            they are.
        lr: peak learning rate.
        audits: choices that the search measures at most; None for a quarter of them, at least 8.
        minutes: in all; what is under way then is ended. None for no limit.
        curve_n: images for the numbers over depth; 0 leaves these and the zone out.
        zone: drop at which the zone begins: one that lasts, or the largest between neighbours, as published.
        seed: of training and of the search's attacks; fresh ones have the next.
        resume: go on with what is in `out`.
        accelerator: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; see `Accelerator.chosen`.
        workers: who trains and attacks: 1 for this process, a number of processes, ``auto``, ``ray`` or
            ``ray://HOST:PORT``. The plan is the same for all of them at the same number of threads: the search asks for
            its choices in one order, and idle workers measure what it is expected to ask for next.
        threads: of each worker; None shares the cores out.

    Raises:
        InputError: a limit that cannot be, nothing to choose from, or `out` holds something else.
        UnknownNameError: no such defence, codec or suite.
        CutError: no such cut.
        WriteError: the bundle could not be written; the plan is.
    """
    if traced.random:
        raise InputError(
            f"cannot plan for a model that is {traced.random}; in eval mode let it answer the same each time."
        )
    clock, out = Clock(minutes), Path(out)
    check_budget(budget)
    suite = find_suite(suite) if isinstance(suite, str) else suite
    if budget.latency is not None and (device is None or link is None):
        raise InputError("expected a device and a link for a limit on latency, got none; add --device and --link.")
    few = audits is not None and audits < 1
    if n < 1 or (epochs or 0) < 0 or few or (minutes is not None and not minutes > 0):
        raise InputError(
            f"expected n and audits of at least 1, epochs of at least 0 and minutes above 0, got {n}, {audits}, "
            f"{epochs} and {minutes}; use --minutes 20."
        )
    aside = min(HELD, len(data.test) // 2) if held_n is None else held_n
    if not LEAST <= aside < len(data.test):
        raise InputError(_too_few(aside, len(data.test)))
    claim(out, resume=resume)
    for each in (suite, quick):
        # Read now what is attacked last: a wrong word must not cost a search.
        for stochastic in (False, True):
            for spec in each.specs(knows, stochastic=stochastic, lawful=True):
                ATTACKS.build(spec)
    space = Space.of([_cut(traced, name) for name in cuts or _spread(traced)], defenses, codecs)
    rest, held = without_tuning(data, aside)
    if held is None:
        raise InputError(_too_few(aside, len(data.test)))
    chosen = np.random.default_rng(derive(0, "plan")).permutation(len(data.train))[:train_n]
    rest = replace(rest, train=data.train.take(np.sort(chosen)))
    guard = {
        "subject": [model, weights],
        "data": [data.name, digest(rest.train.x, rest.test.x, held.x)],
        "knows": knows.words(),
        "n": n,
        "seed": seed,
        "training": [epochs, lr],
    }
    store = Results(folder=out, resume=resume).store(guard)
    way = Way(device, link, server, len(data.classes))
    asked = Question(suite=quick, knows=knows, n=n)
    bench = Bench(traced, rest, held, model, weights, store, out, epochs, lr, asked, seed, way)
    with ExitStack() as stack:
        show = stack.enter_context(task("plan", 4))
        crew = stack.enter_context(Workers.of(workers, threads))
        bench.send_to(crew)
        planner = Planner(bench, space, budget.limits(), leak_of(list(budget.leakage)), suite, clock)
        stack.callback(planner.ahead.close)
        depth = planner.depth(curve_n, zone)
        show(1, "proxies")
        search, complete = planner.searched(levels)
        pruned = planner.pruned
        show(2, "audits")
        meant = _meant(search, audits)
        ended = _measured(planner, search, clock, meant)
        show(3, "fresh audits")
        verdict = verified(search, planner.verify, clock.fresh_fits)
        zones = planner.zones_verified(depth.zones)
        show(4)
        finished = ended and complete and verdict.ended
        need = None if finished else planner.need(search, _meant(search, audits, planner.waiting * len(codecs)))
    limits = budget.limits()
    found = choices(search, pruned, verdict)
    index = {c.label: i for i, c in enumerate(found)}
    bound, certain = search.binding(pruned)
    near = [] if verdict.chosen else [index[k.option.label] for k in nearest(search) if k.option.label in index]
    record = Plan(
        model=model, weights=weights, data=data.name, seed=seed, budget=budget,
        device=device.name if device else "", link=link.name if link else "", suite=suite.label,
        accuracy=planner.reference, tested=planner.tested, choices=found, recommended=0 if verdict.chosen else None,
        reason=why(search, verdict, suite.label)
        if verdict.chosen
        else why_not(search, verdict, limits, pruned, floors=planner.floors, complete=ended and complete, need=need),
        binding=bound, binding_measured=certain, measured=len(search.measured), need=need,
        nearest=near, curves=depth.curves, zones=zones,
        alternatives=alternatives(bench, planner.reference), checks=rank_checks(search, seed),
        hardware=hardware(), seconds=round(clock.seconds, 3), finished=finished, versions=fingerprint(),
        notes=[
            *data.remarks, *bench.sending.notes, *planner.notes,
            *planner.few_images(verdict.chosen or next(reversed(verdict.tried), None)),
            *_notes(search, pruned, verdict, rest, len(held)),
        ],
    )  # fmt: skip
    # The plan first: a bundle that cannot be written must not cost what was measured.
    record.save(out / "plan.json")
    if verdict.chosen:
        finishing = Finishing(f"{out / 'plan.json'}", "run the same again with --resume")
        with finishing.writing(f"the bundle in {out}"):
            record = planner.shipped(record, verdict.chosen)
            record.save(out / "plan.json")
        finishing.tell()
    return record


def _too_few(aside: int, all_of_them: int) -> str:
    """Said before any work: half of the test images decides, and the other half is what the plan is measured on."""
    if all_of_them < 2 * LEAST:
        return (
            f"expected at least {2 * LEAST} test images to plan with, got {all_of_them}; give data with more of them."
        )
    return (
        f"expected {LEAST} to {all_of_them - 1} of the {all_of_them} test images for the search, got {aside}; "
        f"use --held-n {all_of_them // 2}."
    )


def _meant(search: Search, audits: int | None, more: int = 0) -> int:
    """How many choices are to be measured, of those that are known and so many more: a quarter, if nobody says."""
    offered = more + sum(k.offered and bool(k.proxy) for k in search.known)
    return min(max(LEAST_AUDITS, offered // SHARE) if audits is None else audits, offered)


def _measured(planner: Planner, search: Search, clock: Clock, most: int) -> bool:
    """Measure so many choices, the most telling first; whether all that was meant was done."""
    done, planner.left = 0, most
    with task("choices measured", most) as show:
        wide = [k for k in planner.widths(search, most) if not k.found]
        for at, k in enumerate(wide):
            if not k.found and clock.search_fits():
                planner.measure(k, anyway=True, guesses=partial(_after, wide, at))
                done += 1
                show(done)

        def measure(k: Known) -> None:
            # What comes after it is guessed as if it had come out as expected.
            planner.measure(k, guesses=partial(search.guesses, k))

        return search.run(measure, clock.search_fits, most - done, lambda count: show(done + count))


def _after(options: Sequence[Known], at: int, count: int) -> Sequence[Known]:
    return options[at + 1 : at + 1 + count]


def _cut(traced: Traced, name: str) -> Cut:
    found = {other: c for c in traced.cuts() for other in (c.name, *c.also)}
    if name not in found:
        names = [c.name for c in traced.cuts()]
        raise CutError(f"no legal cut {name!r}.{nearest_name(name, names)} Legal cuts: {', '.join(names)}.")
    return found[name]


def _spread(traced: Traced) -> list[str]:
    names = [c.name for c in traced.cuts()]
    return list(dict.fromkeys(names[round((len(names) - 1) * i / (CUTS - 1))] for i in range(CUTS)))


def _notes(search: Search, pruned: list[Known], verdict: Verdict, data: Dataset, held: int) -> list[str]:
    offered = [k for k in search.known if k.offered]
    audited = len(search.audited)
    return [
        f"{len(offered) + len(pruned)} choices: {len(pruned)} excluded by what was counted, {len(offered)} estimated, "
        f"{sum(bool(k.found) for k in offered)} trained, {audited} attacked, {len(verdict.tried)} attacked afresh",
        f"the search saw {held:,} test images; fresh audits have the {len(data.test):,} others",
        "a search's attacks are short ones that order choices: compare figures with the same source only",
    ]
