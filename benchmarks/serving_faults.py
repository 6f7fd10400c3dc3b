"""Faults on purpose, each section a few minutes: hostile clients, killed servers, damaged bundles, long load.

    python -m benchmarks.serving_faults [--requests 10000 --flood 10 --fuzz 10000 --loads 10000 --good 100000]
        [--kills 20 --drains 10 --soak 600] [--sections hostile unique ...] --out docs/results
    python -m benchmarks.serving_faults --page

The sections themselves are in ``tests/faults``. Writes ``serving-faults.md`` and its archive; sections that are not
asked for stay as they were found. Ends with exit code 1 if anything happened that should not. Seeds are recorded;
timing and the order of requests are not.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.faults.answers import compare_answers
from tests.faults.broken import break_off
from tests.faults.crossing import read_the_wire
from tests.faults.damaged import damage
from tests.faults.draining import drain
from tests.faults.exact import exact_bundle
from tests.faults.finding import Finding, Findings
from tests.faults.flood import flood
from tests.faults.fuzz_bundle import fuzz_bundles
from tests.faults.fuzz_wire import fuzz_the_wire
from tests.faults.hostile import be_hostile
from tests.faults.kills import kill_again_and_again
from tests.faults.soak import soak
from tests.faults.swapped import race, swap
from tests.faults.unique import ask_unique

from benchmarks.page import Page, parser, start
from splitveil.cli.console import showing_progress
from splitveil.lab.seeds import fingerprint, hardware

SECTIONS = (
    "hostile",
    "floods",
    "fuzz-wire",
    "strangers",
    "race",
    "fuzz-bundle",
    "broken",
    "unique",
    "kills",
    "drain",
    "damaged",
    "soak",
    "answers",
    "wire",
)
NAME = "serving-faults"
INTRO = (
    "Made by `python -m benchmarks.serving_faults`, which also tells what ran: every number below was counted in that "
    "run. The server is a process of its own and its cloud half a linear map whose answers name their question "
    "exactly; "
    "only *Answers* and *What crosses* use nets. Expired, wrong and missing certificates and tokens are tried by "
    "`tests/serving/test_tls.py` and `test_edge_tls.py`."
)


def text(found: Findings, records: str) -> str:
    """The Markdown page; `records` links to what was found."""
    there = [found.sections[name] for name in SECTIONS if name in found.sections]
    code = ", ".join(f"{name} {value}" for name, value in found.environment.items())
    foot = f"Seed {found.seed}. Hardware: {found.hardware}, shared with other work. {code}. Raw: {records}."
    return "\n".join(["# Faults on purpose", "", INTRO, "", *(one.markdown() for one in there), foot, ""])


def sections(given: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Finding]]:
    """What each section does."""
    exact = exact_bundle(folder / "exact", given.seed)
    return {
        "hostile": lambda: be_hostile(exact, folder, given.requests, given.seed),
        "floods": lambda: flood(exact, folder, given.flood),
        "fuzz-wire": lambda: fuzz_the_wire(exact, given.fuzz, given.seed),
        "strangers": lambda: swap(exact, folder),
        "race": lambda: race(exact, folder, given.loads),
        "fuzz-bundle": lambda: fuzz_bundles(exact, folder, given.fuzz, given.seed),
        "broken": lambda: break_off(exact, given.broken, given.seed),
        "unique": lambda: ask_unique(exact, given.good),
        "kills": lambda: kill_again_and_again(exact, given.kills, given.seed),
        "drain": lambda: drain(exact, given.drains),
        "damaged": lambda: damage(exact, folder, given.tampered, given.seed),
        "soak": lambda: soak(exact, given.soak),
        "answers": lambda: compare_answers(folder, given.seed),
        "wire": lambda: read_the_wire(folder, given.seed),
    }


def main() -> int:
    """Run the sections and write the page."""
    asked = parser(__doc__)
    asked.add_argument("--requests", type=int, default=10_000)
    asked.add_argument("--flood", type=float, default=10, help="seconds of each")
    asked.add_argument("--fuzz", type=int, default=10_000, help="cases of each target")
    asked.add_argument("--loads", type=int, default=10_000, help="in the race for the card")
    asked.add_argument("--broken", type=int, default=5000)
    asked.add_argument("--good", type=int, default=100_000)
    asked.add_argument("--kills", type=int, default=20)
    asked.add_argument("--drains", type=int, default=10)
    asked.add_argument("--tampered", type=int, default=500)
    asked.add_argument("--soak", type=float, default=600)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    given = asked.parse_args()
    page, failed = Page(NAME, given.out), False
    if given.page:
        page.write(text(page.records(Findings)[NAME], page.link))
        return 0
    with tempfile.TemporaryDirectory() as folder, showing_progress():
        for name, section in sections(given, Path(folder)).items():
            if name not in given.sections:
                continue
            code = fingerprint()["code"]
            finding = section().model_copy(update={"code": code})
            failed |= bool(finding.failures)
            print(finding.markdown(), flush=True)
            # Read again, since sections may run side by side.
            before = page.archive.find(Findings, NAME)
            environment = {name: value for name, value in fingerprint().items() if name != "code"}
            found = Findings(
                hardware=hardware(), environment=environment, seed=given.seed,
                sections={**(before.sections if before else {}), name: finding},
            )  # fmt: skip
            page.archive.put({NAME: found})
            page.write(text(found, page.link))
    return int(failed)


if __name__ == "__main__":
    start(main)
