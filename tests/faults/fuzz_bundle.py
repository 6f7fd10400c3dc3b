"""Bytes that hypothesis draws, in the place of each file of a bundle and of a token file: documented errors alone."""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from splitveil.core.errors import BundleError, InputError, SplitVeilError
from splitveil.core.progress import task
from splitveil.core.records import Card
from splitveil.server.security import Tokens
from splitveil.wire.bundle import CARD, CLOUD, GOLDEN, MANIFEST, Bundle, contract_id, with_card
from splitveil.wire.engine import load_cloud, read_golden, self_test
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.fuzz_wire import ANY, CHANGES, spoiled

LONGEST = 2000
"""Characters of a sentence."""
SECONDS = 5.0
"""For golden features."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is drawn, and what is done with it."""

    name: str
    drawn: st.SearchStrategy[Any]
    use: Callable[[Any], object]


class Place:
    """A bundle in which one file after another is exchanged, with right hashes. Nothing is made durable here."""

    def __init__(self, exact: Exact, folder: Path) -> None:
        self.folder = folder / "fuzzed"
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(exact.bundle.folder, self.folder)
        card = Card(
            model="m", weights="w", data="d", task_accuracy=0.5, threat_model="t", suite="s", seed=0, hardware="h",
            seconds=1.0, rows=[],
        )  # fmt: skip
        self.bundle = with_card(Bundle.load(self.folder), card)
        self.files = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        self.told: dict[str, Any] = json.loads(self.files[MANIFEST])
        self.tokens = folder / "fuzzed-tokens"

    def load(self, name: str, content: bytes) -> Bundle:
        """The bundle with this content in the place of that file."""
        (self.folder / name).write_bytes(content)
        try:
            if name != MANIFEST:
                digest = hashlib.sha256(content).hexdigest()
                manifest = self.bundle.manifest.model_copy(update={"files": {**self.told["files"], name: digest}})
                manifest = manifest.model_copy(update={"contract": contract_id(manifest)})
                (self.folder / MANIFEST).write_text(manifest.to_json())
            return Bundle.load(self.folder, keep=(CLOUD, GOLDEN))
        finally:
            (self.folder / name).write_bytes(self.files[name])

    def manifest(self, content: bytes) -> None:
        """Load it, and what is made of it."""
        read_golden(self.load(MANIFEST, content))

    def graph(self, content: bytes) -> None:
        """Load it, and answer with it."""
        bundle = self.load(CLOUD, content)
        self_test(bundle, load_cloud(bundle), SECONDS)

    def golden(self, content: bytes) -> None:
        """Read it."""
        read_golden(self.load(GOLDEN, content))

    def card(self, content: bytes) -> None:
        """Load it."""
        self.load(CARD, content)

    def token_file(self, content: bytes) -> None:
        """Read it."""
        self.tokens.write_bytes(content)
        self.tokens.chmod(0o600)
        Tokens(self.tokens)

    def put(self, name: str, place: str, value: object) -> bytes:
        """One of the JSON files with any value in any place."""
        told = json.loads(self.files[name])
        told[place] = value
        return json.dumps(told).encode()


def targets(place: Place) -> tuple[Target, ...]:
    """All of them."""

    def changed(name: str) -> st.SearchStrategy[bytes]:
        return st.binary(max_size=200) | CHANGES.map(lambda c: spoiled(place.files[name], c))

    def told(name: str) -> st.SearchStrategy[bytes]:
        keys = sorted(json.loads(place.files[name]))
        return changed(name) | st.builds(place.put, st.just(name), st.sampled_from(keys), ANY)

    words = st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | st.binary(min_size=16, max_size=99)
    return (
        Target("manifest", told(MANIFEST), place.manifest),
        Target("graph", changed(CLOUD), place.graph),
        Target("golden features", changed(GOLDEN), place.golden),
        Target("card", told(CARD), place.card),
        Target("token file", words, place.token_file),
    )


def outcome(use: Callable[[Any], object], drawn: object) -> str:
    """``taken``, the kind of a documented error, or what should not have happened."""
    try:
        use(drawn)
    except (BundleError, InputError) as error:
        said = str(error)
        return type(error).__name__ if said.isprintable() and len(said) < LONGEST else "a sentence for no terminal"
    except SplitVeilError as error:
        return type(error).__name__
    except Exception as error:
        return f"UNDOCUMENTED {type(error).__name__}: {str(error)[:80]!r}"
    return "taken"


def _tried(target: Target, cases: int, seed: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()

    @seeded(seed)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(drawn=target.drawn)
    def tried(drawn: Any) -> None:
        outcomes[outcome(target.use, drawn)] += 1

    tried()
    return outcomes


def fuzz_bundles(exact: Exact, folder: Path, cases: int, seed: int = 0) -> Finding:
    """So many at each target."""
    rows, failures, begun = [], list[str](), time.perf_counter()
    found = targets(Place(exact, folder))
    with task("fuzz of bundles", len(found)) as show:
        for done, target in enumerate(found):
            outcomes = _tried(target, cases, seed)
            wrong = [w for w in outcomes if w.startswith("UNDOCUMENTED") or " " in w]
            failures += [f"{target.name}: {outcomes[w]} times {w}." for w in wrong]
            told = ", ".join(f"{what} {n:,}" for what, n in sorted(outcomes.items()))
            rows.append((target.name, f"{sum(outcomes.values()):,}", told))
            show(done + 1)
    return Finding(
        title="Fuzz of bundles and token files",
        ran=f"Bytes drawn by hypothesis (seed {seed}), {cases:,} at each target: any bytes, a good file spoiled, any "
        "JSON in any place of a manifest or a card; the hashes beside them are right. "
        f"{time.perf_counter() - begun:.0f} s in all. Documented is: one sentence that can be printed, of the kind "
        "named below.",
        columns=("target", "tried", "seen"), rows=tuple(rows), failures=tuple(failures),
    )  # fmt: skip
