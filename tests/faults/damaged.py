"""Full disks, half-written and tampered bundles: refused with one sentence by everything that reads them."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from splitveil.core.errors import SplitVeilError
from splitveil.core.progress import task
from splitveil.device import Edge
from splitveil.lab.seeds import derive
from splitveil.server.server import Server
from splitveil.wire.bundle import CLOUD, EDGE, GOLDEN, MANIFEST, Bundle, load_signed, make_keys, sign
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.process import ENVIRONMENT, ROOT

NOWHERE = "127.0.0.1:9"
"""Nothing listens there: a bundle must be refused before anybody is asked."""
FILL = """
import sys
from pathlib import Path
from splitveil.wire.bundle import Bundle, write_bundle
old = Bundle.load(Path(sys.argv[1]))
files = {name: old.folder / name for name in old.manifest.files}
write_bundle(Path(sys.argv[2]), old.manifest.model_copy(update={"model_spec": "another"}), files)
"""
Break = Callable[[Path, Random], None]


def _cut(path: Path, random: Random) -> None:
    os.truncate(path, random.randrange(path.stat().st_size))


def _flip(path: Path, random: Random) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def _zeros(path: Path, random: Random) -> None:
    """What a crash may leave: the size is there, the end is not."""
    content = path.read_bytes()
    keep = random.randrange(len(content))
    path.write_bytes(content[:keep] + bytes(len(content) - keep))


def _gone(path: Path, random: Random) -> None:
    path.unlink()


def _longer(path: Path, random: Random) -> None:
    path.write_bytes(path.read_bytes() + random.randbytes(random.randint(1, 64)))


BREAKS: dict[str, Break] = {
    "cut short": _cut, "one bit flipped": _flip, "end left as zeros": _zeros, "missing": _gone, "bytes added": _longer,
}  # fmt: skip


def refusal(act: Callable[[], object]) -> str | None:
    """The sentence with which it refuses; None if it does not.

    Raises:
        AssertionError: the message is no single sentence.
    """
    try:
        act()
    except SplitVeilError as error:
        said = str(error)
        if "\n" in said or not said.endswith("."):
            raise AssertionError(f"no single sentence: {said!r}") from None
        return said
    return None


def _readers(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "serve", lambda: Server(Bundle.load(folder), port=0)
    yield "Edge", lambda: Edge(Bundle.load(folder), NOWHERE, timeout=1)


def damage(exact: Exact, folder: Path, tries: int, seed: int = 0) -> Finding:
    """Break one file of a copy, `tries` times, and try to use it; fill disks. folder: for all of that."""
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    failures += _broken(exact, folder, tries, seed, counts)
    failures += _manifests(exact, folder, max(1, tries // 2), seed, counts)
    failures += _unsigned_commands(exact, folder, counts)
    failures += _full_disks(exact, folder, counts)
    return Finding(
        title="Damaged bundles and full disks",
        ran=f"{tries} copies with one file broken (edge, cloud or golden), {max(1, tries // 2)} with another "
        "manifest, each "
        "given to whatever reads it; the command line and full disks beside them.",
        columns=("what", "who", "tries, all refused unless named below"),
        rows=tuple((what, who, f"{n:,}") for (what, who), n in sorted(counts.items())),
        notes=(
            "Refused means: a `SplitVeilError` of one sentence, before anything is served or sent. A changed "
            "manifest is refused "
            "by the signature; without one, hashes and the contract id find changes in what both halves agreed on, "
            "not in words "
            "such as the model's name. Full disk: the process may write no file beyond a size (RLIMIT_FSIZE) while "
            "it replaces a "
            "bundle; the old one must still load, and nothing else may lie beside it.",
        ),
        failures=tuple(failures),
    )  # fmt: skip


def _not_refused(act: Callable[[], object], what: str) -> list[str]:
    try:
        return [] if refusal(act) else [f"{what} was not refused."]
    except Exception as error:
        return [f"{what}: {type(error).__name__} ({str(error)[:120]})."]


def _broken(exact: Exact, folder: Path, tries: int, seed: int, counts: Counter[tuple[str, str]]) -> list[str]:
    """One file of a copy is broken; whatever reads it refuses."""
    failures = []
    broken = folder / "broken"
    with task("damaged bundles", tries) as show:
        for turn in range(tries):
            random = Random(derive(seed, "damage", turn))
            how, name = random.choice(list(BREAKS)), random.choice((EDGE, CLOUD, GOLDEN))
            shutil.rmtree(broken, ignore_errors=True)
            shutil.copytree(exact.bundle.folder, broken)
            BREAKS[how](broken / name, random)
            for reader, act in _readers(broken):
                counts[how, reader] += 1
                failures += _not_refused(act, f"{name} {how} ({reader}, try {turn})")
            show(turn + 1)
    return failures


def _manifests(exact: Exact, folder: Path, tries: int, seed: int, counts: Counter[tuple[str, str]]) -> list[str]:
    """A changed manifest is refused where it is signed; elsewhere nothing comes of it but a refusal or a load."""
    failures = []
    signed = folder / "signed"
    shutil.rmtree(signed, ignore_errors=True)
    shutil.copytree(exact.bundle.folder, signed)
    private, public = make_keys(folder / f"owner-{seed}")
    sign(Bundle.load(signed), private)
    good = (signed / MANIFEST).read_bytes()
    load_signed(signed, public)
    for turn in range(tries):
        random = Random(derive(seed, "manifest", turn))
        how = random.choice(["cut short", "one bit flipped", "end left as zeros", "bytes added"])
        (signed / MANIFEST).write_bytes(good)
        BREAKS[how](signed / MANIFEST, random)
        counts[f"manifest {how}", "signature"] += 1
        failures += _not_refused(lambda: load_signed(signed, public), f"manifest {how} (signed, try {turn})")
        try:
            refusal(lambda: Bundle.load(signed))
        except Exception as error:
            failures.append(f"manifest {how} (unsigned, try {turn}): {type(error).__name__} ({str(error)[:120]}).")
    return failures


def _unsigned_commands(exact: Exact, folder: Path, counts: Counter[tuple[str, str]]) -> list[str]:
    """The command line: exit code 1, one sentence on stderr, no traceback."""
    failures = []
    for name, how in ((CLOUD, "one bit flipped"), (EDGE, "cut short"), (MANIFEST, "cut short")):
        broken = folder / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(exact.bundle.folder, broken)
        BREAKS[how](broken / name, Random(1))
        done = subprocess.run(
            [sys.executable, "-m", "splitveil", "serve", str(broken), "--port", "0"], capture_output=True, text=True,
            timeout=120, cwd=ROOT, env=ENVIRONMENT,
        )  # fmt: skip
        counts[f"{name} {how}", "splitveil serve"] += 1
        if done.returncode != 1 or "Traceback" in done.stderr or not done.stderr.strip().endswith("."):
            failures.append(f"splitveil serve with {name} {how} ended with {done.returncode}: {done.stderr[-200:]!r}.")
    return failures


def _full_disks(exact: Exact, folder: Path, counts: Counter[tuple[str, str]]) -> list[str]:
    """Replace a bundle where no file may exceed a size; the old one stays."""
    failures = []
    place = folder / "full"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(exact.bundle.folder, place / "bundle")
    largest = max(path.stat().st_size for path in exact.bundle.folder.iterdir())
    for size in (0, 1, largest // 2, largest - 1):
        done = subprocess.run(
            [sys.executable, "-c", FILL, str(exact.bundle.folder), str(place / "bundle")], text=True,
            capture_output=True, timeout=120, cwd=ROOT, env=ENVIRONMENT, preexec_fn=partial(_limit, size),
        )  # fmt: skip
        counts["full disk", "write_bundle"] += 1
        if done.returncode == 0 or "File too large" not in done.stderr:
            failures.append(
                f"A disk that is full at {size} bytes was not noticed ({done.returncode}, {done.stderr[-200:]!r})."
            )
        if refusal(lambda: Bundle.load(place / "bundle")) or Bundle.load(place / "bundle") != _moved(
            exact, place / "bundle"
        ):
            failures.append(f"The old bundle did not survive a disk that is full at {size} bytes.")
        if sorted(path.name for path in place.iterdir()) != ["bundle"]:
            failures.append(f"A disk that is full at {size} bytes left something behind.")
    return failures


def _moved(exact: Exact, folder: Path) -> Bundle:
    return Bundle(folder, exact.bundle.manifest, exact.bundle.card)


def _limit(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
