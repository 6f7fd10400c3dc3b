"""Faults on purpose, each section a few minutes: hostile clients, killed servers, damaged bundles, long load.

    python -m benchmarks.serving_faults [--requests 10000 --good 100000 --kills 20 --drains 10 --soak 600]
        [--sections hostile unique ...] --out docs/results

Writes ``serving-faults.md`` and ``serving-faults.json``; sections that are not asked for stay as they were found. Ends
with exit code 1 if anything happened that should not. Seeds are recorded; timing and the order of requests are not.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.serving_faults.answers import compare_answers
from benchmarks.serving_faults.broken import break_off
from benchmarks.serving_faults.crossing import read_the_wire
from benchmarks.serving_faults.damaged import damage
from benchmarks.serving_faults.draining import drain
from benchmarks.serving_faults.exact import exact_bundle
from benchmarks.serving_faults.finding import Finding, Findings
from benchmarks.serving_faults.hostile import be_hostile
from benchmarks.serving_faults.kills import kill_again_and_again
from benchmarks.serving_faults.soak import soak
from benchmarks.serving_faults.unique import ask_unique
from splitveil.cli.console import showing_progress
from splitveil.records.base import write_atomically
from splitveil.seeds import fingerprint, hardware

SECTIONS = ("hostile", "broken", "unique", "kills", "drain", "damaged", "soak", "answers", "wire")
NAME = "serving-faults"
INTRO = (
    "Made by `python -m benchmarks.serving_faults`, which also tells what ran: every number below was counted in that "
    "run. The server is a process of its own and its cloud half a linear map whose answers name their question "
    "exactly; "
    "only *Answers* and *What crosses* use nets. Expired, wrong and missing certificates and tokens are tried by "
    "`tests/serving/test_tls.py` and `test_edge_tls.py`."
)


def page(found: Findings) -> str:
    """The Markdown page."""
    there = [found.sections[name] for name in SECTIONS if name in found.sections]
    code = ", ".join(f"{name} {value}" for name, value in found.environment.items())
    foot = f"Seed {found.seed}. Hardware: {found.hardware}, shared with other work. {code}. Raw: `{NAME}.json`."
    return "\n".join(["# Faults on purpose", "", INTRO, "", *(one.markdown() for one in there), foot, ""])


def run(given: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Finding]]:
    """What each section does."""
    exact = exact_bundle(folder / "exact", given.seed)
    return {
        "hostile": lambda: be_hostile(exact, folder, given.requests, given.seed),
        "broken": lambda: break_off(exact, given.broken, given.seed),
        "unique": lambda: ask_unique(exact, given.good),
        "kills": lambda: kill_again_and_again(exact, given.kills, given.seed),
        "drain": lambda: drain(exact, given.drains),
        "damaged": lambda: damage(exact, folder, given.tampered, given.seed),
        "soak": lambda: soak(exact, given.soak),
        "answers": lambda: compare_answers(folder, given.seed),
        "wire": lambda: read_the_wire(folder, given.seed),
    }


def main() -> None:
    """Run the sections and write the page."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--requests", type=int, default=10_000)
    asked.add_argument("--broken", type=int, default=5000)
    asked.add_argument("--good", type=int, default=100_000)
    asked.add_argument("--kills", type=int, default=20)
    asked.add_argument("--drains", type=int, default=10)
    asked.add_argument("--tampered", type=int, default=500)
    asked.add_argument("--soak", type=float, default=600)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    asked.add_argument("--out", type=Path, default=Path("docs/results"))
    given = asked.parse_args()
    kept = given.out / f"{NAME}.json"
    failed = False
    with tempfile.TemporaryDirectory() as folder, showing_progress():
        for name, section in run(given, Path(folder)).items():
            if name not in given.sections:
                continue
            code = fingerprint()["code"]
            finding = section().model_copy(update={"code": code})
            failed |= bool(finding.failures)
            print(finding.markdown(), flush=True)
            # Read again, since sections may run side by side.
            sections = {**(Findings.load(kept).sections if kept.exists() else {}), name: finding}
            environment = {name: value for name, value in fingerprint().items() if name != "code"}
            found = Findings(hardware=hardware(), environment=environment, seed=given.seed, sections=sections)
            found.save(kept)
            write_atomically(given.out / f"{NAME}.md", page(found).encode())
    sys.exit(failed)


if __name__ == "__main__":
    main()
