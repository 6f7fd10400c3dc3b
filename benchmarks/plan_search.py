"""Does the planner find the front? A space small enough to audit completely, searched with a quarter of the audits.

    python -m benchmarks.plan_search --out /tmp/plan_search --results docs/results
    python -m benchmarks.plan_search --page --results docs/results

For each seed: a model trained on the digits, every choice of 3 cuts x 7 settings x 2 codecs trained and attacked (the
true front), and the same search that `plan` runs, stopped after a quarter of the audits, the undefended ones included.
The hypervolume of what it found over that of the true front, both in the same four axes scaled to the unit box
(accuracy, SSIM, log MACs, log bytes), and what choosing at random would have come to.
"""

import argparse
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import JsonValue

from benchmarks.page import Page, start
from splitveil.core.records import Document, ProxyCheck
from splitveil.lab.auditing.question import Question
from splitveil.lab.auditing.suites import Suite, find_suite
from splitveil.lab.comparing import without_tuning
from splitveil.lab.cut import Traced, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.models.loader import load_model
from splitveil.lab.planning.clock import Clock
from splitveil.lab.planning.front import hypervolume
from splitveil.lab.planning.latency import Way
from splitveil.lab.planning.measuring import Bench
from splitveil.lab.planning.outcome import rank_checks
from splitveil.lab.planning.planner import Planner
from splitveil.lab.planning.search import Known, objectives
from splitveil.lab.planning.space import Space
from splitveil.lab.protection import augmented
from splitveil.lab.seeds import derive, hardware
from splitveil.lab.store import Results

CUTS, FAMILIES, CODECS = ("relu1", "pool1", "pool2"), ("none", "noise", "bottleneck"), ("raw", "uniform:bits=4")
LEVELS = (0.4, 0.6, 0.8)
QUICK = Suite("tiny", "1", ("decoder:size=tiny,epochs=1,steps=40",), 200, "this benchmark's")
RANDOM = 500
MARGIN = 0.1
"""Beyond the worst of all choices, on every axis: where the reference point lies."""


class Searched(Document):
    """One seed: what the search found beside what there was.

    Attributes:
        ratio: hypervolume of the search's choices over that of all.
        random, random_best_5_percent: the same of as many choices at random, their mean and 95 % quantile.
        checks, all_checks: how proxies ordered the audits of the search, and all.
    """

    kind: ClassVar[str] = "plan-search"

    seed: int
    choices: int
    audits: int
    ratio: float
    random: float
    random_best_5_percent: float
    accuracy: float
    checks: list[ProxyCheck]
    all_checks: list[ProxyCheck]
    measured: list[dict[str, JsonValue]]
    hardware: str


def trained(data: Dataset, seed: int) -> Traced:
    """The small net, 8 epochs of Adam."""
    model = load_model("small", shape=data.shape, classes=10, weights=None, seed=seed).model.train()
    x, y = torch.from_numpy(data.train.x).float() / 255, torch.from_numpy(data.train.y)
    draws = torch.Generator().manual_seed(derive(seed, "train"))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(8):
        for index in torch.randperm(len(x), generator=draws).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(augmented(x[index], draws)), y[index]).backward()
            optimizer.step()
    return trace(model.eval(), torch.zeros(2, *data.shape))


def searched(seed: int, out: Path) -> Searched:
    """Search with a quarter of the audits, then audit everything."""
    digits = load_data("digits")
    data, held = without_tuning(digits, 300)
    assert held is not None
    traced = trained(digits, seed)
    store = Results(folder=out, resume=True).store({"seed": seed})
    bench = Bench(
        traced, data, held, "small", f"seed {seed}", store, out, 2, 2e-3,
        Question(suite=QUICK, n=60), seed, Way(None, None, None, 10),
    )  # fmt: skip
    found = {c.name: c for c in traced.cuts()}
    space = Space.of([found[name] for name in CUTS], FAMILIES, CODECS)
    planner = Planner(bench, space, {}, "ssim", find_suite("smoke"), Clock(None))
    search, _ = planner.searched(LEVELS)
    audits = len(search.offered) // 4
    calibrated = len(search.audited)
    search.run(planner.measure, lambda: True, audits - calibrated)
    mine = [k.option for k in search.audited]
    checks = rank_checks(search, seed)
    for k in search.offered:
        if not k.audited:
            planner.measure(k)
    box = scaled(search.offered)
    reference = np.full(box.shape[1], 1 + MARGIN)
    whole = hypervolume(box, reference)
    taken = np.array([k.option in mine for k in search.offered])
    draws = np.random.default_rng(derive(seed, "random"))
    chance = [
        hypervolume(box[draws.choice(len(box), len(mine), replace=False)], reference) / whole for _ in range(RANDOM)
    ]
    measured: list[dict[str, JsonValue]] = [
        {
            "choice": k.option.label,
            "chosen": k.option in mine,
            "proxy": dict[str, JsonValue](k.proxy),
            **{n: f.value for n, f in k.figures().items()},
        }
        for k in search.offered
    ]
    return Searched(
        seed=seed, choices=len(box), audits=len(mine), ratio=hypervolume(box[taken], reference) / whole,
        random=float(np.mean(chance)), random_best_5_percent=float(np.quantile(chance, 0.95)),
        accuracy=planner.reference, checks=list(checks), all_checks=list(rank_checks(search, seed)), measured=measured,
        hardware=hardware(),
    )  # fmt: skip


def scaled(known: list[Known]) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Objectives of all choices, each axis from 0 (best of all) to 1 (worst of all)."""
    points = np.array([objectives(k.figures(), "ssim") for k in known])
    low, high = points.min(0), points.max(0)
    return np.asarray((points - low) / np.where(high > low, high - low, 1), dtype=np.float64)


def text(found: list[Searched], records: str) -> str:
    """The results as Markdown; `records` links to them."""
    ratios = [f.ratio for f in found]
    reached = sum(r >= 0.95 for r in ratios)
    lines = [
        "# Does the planner find the front?",
        "",
        f"{found[0].choices} choices ({len(CUTS)} cuts of `small` on the digits, {', '.join(FAMILIES)}, knobs at "
        f"{', '.join(map(str, LEVELS))}, {' and '.join(CODECS)}), all of them trained for 2 epochs and attacked with "
        f"`{QUICK.attacks[0]}` (60 private images). The search of `splitveil plan` stopped after {found[0].audits} "
        "audits, a quarter, undefended ones included. Hypervolume in accuracy, SSIM, log "
        "MACs and log bytes, each scaled to the range of all choices, reference 0.1 beyond the worst.",
        "",
        "| seed | hypervolume of the search / of the true front | random choice of as many: mean | its best 5 % |",
        "|---|---|---|---|",
        *(f"| {f.seed} | {f.ratio:.3f} | {f.random:.3f} | {f.random_best_5_percent:.3f} |" for f in found),
        "",
        f"Mean {np.mean(ratios):.3f}, least {min(ratios):.3f}; {reached} of {len(ratios)} seeds reach 0.95.",
        "",
        "How the linear proxy orders SSIM (Spearman, 95 % bootstrap), by the audits of the search and by all:",
        "",
        "| seed | over | of the search | of all choices |",
        "|---|---|---|---|",
    ]
    for f in found:
        both = zip(f.checks, f.all_checks, strict=True)
        lines += [f"| {f.seed} | {a.over} | {_rho(a)} | {_rho(b)} |" for a, b in both]
    return "\n".join([*lines, "", f"Hardware: {found[0].hardware}. Raw: {records}.", ""])


def _rho(c: ProxyCheck) -> str:
    if c.rho is None or c.interval is None:
        return f"none ({c.n})"
    return f"{c.rho:.2f} [{c.interval[0]:.2f}, {c.interval[1]:.2f}] ({c.n})"


def main() -> None:
    """Run it and write the page."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--out", type=Path, help="for the trainings")
    asked.add_argument("--results", type=Path, required=True)
    asked.add_argument("--seeds", type=int, default=5)
    asked.add_argument("--page", action="store_true", help="measure nothing; the page again, from its archive")
    given = asked.parse_args()
    if given.out is None and not given.page:
        asked.error("--out is missing; give it, or --page for the page alone.")
    page = Page("plan-search", given.results)
    for seed in () if given.page else range(given.seeds):
        found = searched(seed, given.out / f"seed{seed}")
        print(f"seed {seed}: {found.ratio:.3f}, random {found.random:.3f}", flush=True)
        page.archive.put({f"seed{seed}": found})
    page.write(text(list(page.records(Searched).values()), page.link))


if __name__ == "__main__":
    start(main)
