"""The fault tests of ``python -m benchmarks.serving_faults``, in seconds instead of minutes."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitveil.core.errors import BundleError
from splitveil.server import lifecycle
from splitveil.wire.bundle import Bundle
from tests.faults import broken, damaged, hostile, unique
from tests.faults.asking import Rows, wrong_answers
from tests.faults.attempts import Kind, Scene
from tests.faults.draining import drain
from tests.faults.exact import Exact, exact_bundle
from tests.faults.flood import flood
from tests.faults.fuzz_bundle import fuzz_bundles
from tests.faults.fuzz_bundle import outcome as seen
from tests.faults.fuzz_wire import fuzz_the_wire
from tests.faults.hostile import KINDS, be_hostile
from tests.faults.kills import kill_again_and_again
from tests.faults.process import Victim
from tests.faults.soak import slope, soak
from tests.faults.swapped import race, swap

KIND = {kind.name: kind for kind in KINDS}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Exact:
    return exact_bundle(tmp_path_factory.mktemp("exact") / "bundle")


@pytest.fixture(scope="module")
def scene(exact: Exact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server that waits for nobody, and knows one of two tokens no more."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    good, revoked = "a" * 40, "b" * 40
    tokens.write_text(f"{good}\n{revoked}\n")
    with Victim(exact.bundle, "--token-file", str(tokens), "--read-seconds", "0.5", "--idle-seconds", "1") as server:
        ports = server.grpc_port, server.http_port
        assert wrong_answers(exact, *ports, revoked, 0) == [], "a token counts until it is revoked"
        tokens.write_text(f"{good}\n")
        server.tell(signal.SIGHUP)
        scene = Scene(exact, ports, good, revoked, exact.largest_message())
        until = time.monotonic() + 20
        while outcome(KIND["HTTP: replayed token (revoked)"], scene, 0) != "401":
            assert time.monotonic() < until
        yield scene
        assert server.alive
        assert wrong_answers(exact, *ports, good, 0) == []


def outcome(kind: Kind, scene: Scene, seed: int) -> str:
    return kind.attempt(scene, Random(seed))


def test_answers_name_their_questions(exact: Exact) -> None:
    z = exact.questions(2**23, 4)
    answers = exact.answers(z)
    assert answers[:, 0].tolist() == [2**23, 2**23 + 1, 2**23 + 2, 2**23 + 3]
    assert exact.right(z, answers)
    assert not exact.right(z, answers[[1, 0, 2, 3]])
    other = z.copy()
    other[0, 7, 3, 3] = (other[0, 7, 3, 3] + 1) % 16
    assert not exact.right(other, answers), "a check sum sees what the number does not"


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from([k for k in KINDS if not k.slow]), seed=st.integers(0, 2**32))
def test_any_hostile_request_gets_its_status(scene: Scene, kind: Kind, seed: int) -> None:
    assert outcome(kind, scene, seed) in kind.expected


@pytest.mark.parametrize("kind", [k for k in KINDS if k.slow], ids=lambda k: k.name)
def test_who_keeps_the_server_waiting_is_cut_off(scene: Scene, kind: Kind) -> None:
    start = time.monotonic()
    assert outcome(kind, scene, 0) in kind.expected
    assert time.monotonic() - start > 0.2, "it was no wait at all"


def test_hostile_requests_in_batches_leave_the_server_well(exact: Exact, tmp_path: Path) -> None:
    found = be_hostile(exact, tmp_path, 300)
    assert found.failures == ()
    assert len(found.rows) == len(KINDS)
    assert all(seen != "not drawn" for _, _, seen in found.rows)


@pytest.mark.slow
def test_floods_small(exact: Exact, tmp_path: Path) -> None:
    found = flood(exact, tmp_path, 0.5, calls=60, connections=60)
    assert [failure for failure in found.failures if "health took" not in failure] == []
    assert len(found.rows) == 7


@pytest.mark.slow
def test_drawn_bytes_get_documented_answers(exact: Exact) -> None:
    found = fuzz_the_wire(exact, 50)
    assert found.failures == ()
    assert [tried for _, tried, _ in found.rows] == ["50"] * 6


def test_a_wrong_status_growth_and_open_lines_are_failures() -> None:
    outcomes = {kind.name: Counter[str]() for kind in KINDS}
    outcomes["HTTP: bad JSON"].update({"400": 3, "200": 1})
    looks = [(250.0 * i, 100.0 + 3 * i) for i in range(10)]
    failures = hostile._finding(outcomes, [], looks, 1.0, 2).failures
    assert [f.split(",")[0] for f in failures] == [
        "HTTP: bad JSON: 1 times 200", "Memory grew by 18.0 MB.", "2 connections or files were left open.",
    ]  # fmt: skip


def test_calls_that_break_off_leave_the_server_well(exact: Exact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few for kB a call."""
    monkeypatch.setattr(broken, "TIDY_SECONDS", 0.2)
    monkeypatch.setattr(broken, "MOST", {"gRPC": 1000.0, "HTTP": 1000.0})
    found = broken.break_off(exact, 60)
    assert found.failures == ()
    assert [row[0] for row in found.rows] == ["gRPC", "HTTP"]
    monkeypatch.setattr(broken, "MOST", {"HTTP": -1e6})
    assert "the limit is -1e+06" in broken.break_off(exact, 20).failures[0]


def test_free_memory_goes_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(lifecycle, "TIDY_SECONDS", 0.001)
    monkeypatch.setattr(lifecycle, "give_back_memory", lambda: given.append(1))

    async def main() -> None:
        task = asyncio.create_task(lifecycle._tidy())
        async with asyncio.timeout(20):
            while len(given) < 3:
                await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(main())


def test_every_answer_belongs_to_its_question(exact: Exact) -> None:
    found = unique.ask_unique(exact, 2000)
    assert found.failures == ()
    assert found.rows == (("gRPC", "1,000", "0", "0"), ("HTTP", "1,000", "0", "0"))


def test_answers_in_the_wrong_places_would_be_seen(exact: Exact) -> None:
    class Swapping:
        protocol = "gRPC"

        async def ask(self, z: Rows) -> Rows:
            return exact.answers(z[::-1])

    counts: Counter[str] = Counter()
    asyncio.run(unique._work(exact, Swapping(), iter(range(8)), counts, lambda done, note="": None))  # type: ignore[arg-type]
    assert counts["gRPC wrong"] == 6, "all but those of one row"


def test_devices_recover_from_kills_and_nothing_wrong_is_returned(exact: Exact) -> None:
    found = kill_again_and_again(exact, 3)
    assert found.failures == ()
    assert "3 times SIGKILL" in found.ran
    assert int(found.rows[0][0].replace(",", "")) > 18


def test_sigterm_loses_nothing(exact: Exact) -> None:
    assert drain(exact, 1).failures == ()


def test_damaged_bundles_and_full_disks_are_refused(
    exact: Exact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert damaged.damage(exact, tmp_path, 25).failures == ()
    monkeypatch.setattr("splitveil.wire.bundle.folder._problems", lambda *given: [])
    monkeypatch.setattr(Bundle, "read", lambda self, name: (self.folder / name).read_bytes())
    assert damaged._broken(exact, tmp_path, 5, 1, Counter()), "an unchecked bundle is used"


def test_bundles_of_strangers_and_forged_cards_harm_nothing(exact: Exact, tmp_path: Path) -> None:
    found = race(exact, tmp_path, 60)
    assert found.failures == ()
    assert "signed card, refused by the policy" in [what for what, _ in found.rows]
    found = fuzz_bundles(exact, tmp_path, 12)
    assert found.failures == ()
    assert [tried for _, tried, _ in found.rows] == ["12"] * 5


def test_the_fuzz_would_see_what_is_not_documented() -> None:
    def raising(error: Exception) -> str:
        def use(drawn: object) -> None:
            raise error

        return seen(use, None)

    assert raising(KeyError("x")).startswith("UNDOCUMENTED KeyError")
    assert raising(BundleError("a\x1b[2J")) == "a sentence for no terminal"
    assert raising(BundleError("fine.")) == "BundleError"


@pytest.mark.slow
def test_broken_bundles_swapped_in_under_load_fail_nobody(exact: Exact, tmp_path: Path) -> None:
    assert swap(exact, tmp_path).failures == ()


@pytest.mark.long
def test_memory_over_ten_seconds(exact: Exact) -> None:
    """Too short for a slope; but a leak of a request's size at each request would be some MB."""
    found = soak(exact, 10, 0.25)
    assert [f for f in found.failures if not f.startswith("Not flat")] == []
    memory = [mb for seconds, mb in found.series if seconds > 3]
    assert max(memory) - memory[0] < 6


def test_a_slope_is_found_and_told_from_noise() -> None:
    source = np.random.default_rng(0)
    seconds = np.arange(0, 600, 5.0)
    walk = np.zeros(len(seconds))
    for i in range(1, len(walk)):
        walk[i] = 0.6 * walk[i - 1] + 0.05 * source.standard_normal()
    level = slope(list(zip(seconds, 100 + walk, strict=True)))
    leak = slope(list(zip(seconds, 100 + walk + 2 * seconds / 60, strict=True)))
    assert level.low < 0 < level.high < 0.1
    assert 1.9 < leak.low < 2 < leak.high < 2.1
    independent = slope(list(zip(seconds, 100 + 0.05 * source.standard_normal(len(seconds)), strict=True)))
    assert level.high - level.low > independent.high - independent.low
    assert slope([(0, 1.0), (5, 1.0), (10, 1.0), (15, 1.0)]).high == 0
