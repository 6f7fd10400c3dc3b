"""Bundles of strangers swapped in under load, then a good one; and cards that are forged while a bundle is read."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc

from splitveil.core.errors import SplitVeilError
from splitveil.core.progress import task
from splitveil.core.records import Card, Row
from splitveil.server.policy import PrivacyPolicy, PrivacyPolicyError
from splitveil.wire.bundle import CARD, Bundle, load_signed, make_keys, sign, with_card
from tests.faults.asking import Client, GrpcClient, HttpClient, RefusedStatusError
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.process import Victim
from tests.faults.spoilt import SPOILS, spoil

TEST_SECONDS, PATIENCE = 1.0, 60.0
"""For the golden features of a new bundle; and for a reload to be counted."""
CLIENTS = 2
"""On each protocol."""
SHUFFLE = """
import os, sys
folder, forged, good = sys.argv[1:]
print("begun", flush=True)
turn = 0
while os.getppid() == int(os.environ["PARENT"]):
    for content in (forged, good):
        os.link(content, f"{folder}.next")
        os.rename(f"{folder}.next", os.path.join(folder, "card.json"))
"""


def _card(exact: Exact, ssim: float) -> Card:
    m = exact.bundle.manifest
    row = Row(
        cut=m.cut.name, defense=m.defense, codec=m.codec, attack="decoder", needs=[], n=20, mse=0.05, psnr=13.0,
        ssim=ssim, psnr_worst5=16.0, ssim_worst5=ssim, seconds=1.0,
    )  # fmt: skip
    return Card(
        model="exact", weights="", data="none", task_accuracy=0.5, threat_model="none", suite="smoke-1", seed=0,
        hardware="none", seconds=1.0, rows=[row],
    )  # fmt: skip


class Load(threading.Thread):
    """Good requests on both protocols until it is told to stop."""

    def __init__(self, exact: Exact, server: Victim) -> None:
        super().__init__()
        self._exact, self._server, self._over = exact, server, threading.Event()
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Ask."""
        asyncio.run(self._all())

    def stop(self) -> Counter[str]:
        """What came of it."""
        self._over.set()
        self.join()
        return self.counts

    async def _all(self) -> None:
        clients: list[Client] = [GrpcClient(self._server.grpc_port) for _ in range(CLIENTS)]
        clients += [HttpClient(self._server.http_port) for _ in range(CLIENTS)]
        await asyncio.gather(*(self._one(client, number) for number, client in enumerate(clients)))

    async def _one(self, client: Client, number: int) -> None:
        turn = 0
        while not self._over.is_set():
            z = self._exact.questions(2**20 * number + 4 * turn % 2**20, 1 + turn % 4)
            turn += 1
            try:
                self.counts["right" if self._exact.right(z, await client.ask(z)) else "wrong"] += 1
            except (grpc.RpcError, RefusedStatusError, OSError, EOFError, TimeoutError):
                self.counts["failed"] += 1
            await asyncio.sleep(0.005)
        await client.close()


def _reloads(server: Victim, changed: str) -> int:
    return int(server.metrics().get(f'splitveil_reloads_total{{changed="{changed}"}}', 0))


def _reloaded(server: Victim, changed: str) -> bool:
    """Tell it to, and wait until it has counted that."""
    before, until = _reloads(server, changed), time.monotonic() + PATIENCE
    server.tell(signal.SIGHUP)
    while time.monotonic() < until:
        if _reloads(server, changed) > before:
            return True
        time.sleep(0.02)
    return False


def swap(exact: Exact, folder: Path) -> Finding:
    """Every bundle of `SPOILS` in the place of the one that is served, then a good one."""
    served, failures, begun = folder / "swapped", list[str](), time.perf_counter()
    shutil.rmtree(served, ignore_errors=True)
    shutil.copytree(exact.bundle.folder, served)
    rows = []
    options = ("--test-seconds", str(TEST_SECONDS))
    with Victim(Bundle.load(served), *options) as server, task("bundles of strangers", len(SPOILS) + 1) as show:
        load = Load(exact, server)
        load.start()
        for done, (what, change) in enumerate(SPOILS.items()):
            spoil(exact.bundle.folder, served, change)
            start = time.perf_counter()
            if not _reloaded(server, "false"):
                failures.append(f"{what}: no reload was counted.")
            rows.append((what, f"{time.perf_counter() - start:.2f}"))
            show(done + 1)
        shutil.rmtree(served)
        shutil.copytree(exact.bundle.folder, served)
        with_card(Bundle.load(served), _card(exact, 0.1))
        if not _reloaded(server, "true"):
            failures.append("The good bundle at the end was not taken.")
        time.sleep(0.5)
        counts = load.stop()
        server.tell(signal.SIGTERM)
        code = server.wait(60)
    failures += [f"{counts[what]} answers {what}." for what in ("wrong", "failed") if counts[what]]
    if code:
        failures.append(f"The server ended with {code}.")
    return Finding(
        title="Bundles of strangers, swapped in under load",
        ran=f"{len(SPOILS)} broken bundles of different kinds, each with right hashes, in the place of the one that is "
        f"served, SIGHUP after each, then a good one, which was taken; {CLIENTS} clients on each protocol meanwhile: "
        f"{counts['right']:,} right answers, {counts['wrong'] + counts['failed']} wrong or failed. "
        f"{time.perf_counter() - begun:.0f} s; {TEST_SECONDS:g} s were allowed for golden features.",
        columns=("what is wrong with it", "seconds until the reload was refused and counted"),
        rows=tuple(rows),
        failures=tuple(failures),
    )  # fmt: skip


def race(exact: Exact, folder: Path, loads: int) -> Finding:
    """Signed, a policy that its card does not keep, and a process that swaps in a forged card that would."""
    raced, begun, counts = folder / "raced", time.perf_counter(), Counter[str]()
    shutil.rmtree(raced, ignore_errors=True)
    shutil.copytree(exact.bundle.folder, raced)
    private, public = make_keys(folder / f"racer-{time.monotonic_ns()}")
    sign(with_card(Bundle.load(raced), _card(exact, 0.9)), private)
    good, forged = folder / "good.json", folder / "forged.json"
    good.write_bytes((raced / CARD).read_bytes())
    forged.write_bytes(good.read_bytes().replace(b'"ssim": 0.9', b'"ssim": 0.1').replace(b'5": 0.9', b'5": 0.1'))
    policy = PrivacyPolicy(max={"ssim": 0.5})
    with subprocess.Popen(
        [sys.executable, "-c", SHUFFLE, str(raced), str(forged), str(good)], stdout=subprocess.PIPE,
        env={"PARENT": str(os.getpid())},
    ) as shuffling, task("loads in a race", loads) as show:  # fmt: skip
        try:
            assert shuffling.stdout is not None
            shuffling.stdout.readline()
            for turn in range(loads):
                counts[_once(raced, public, policy)] += 1
                if turn % 100 == 0:
                    show(turn)
        finally:
            shuffling.kill()
    return Finding(
        title="A race for the card",
        ran=f"{loads:,} loads with a signature and a privacy policy, while another process exchanged `card.json` for a "
        f"forged one that would keep the policy, and back, as fast as it could: {time.perf_counter() - begun:.0f} s.",
        columns=("outcome", "loads"),
        rows=tuple((what, f"{n:,}") for what, n in sorted(counts.items())),
        failures=tuple(f"{counts[what]} loads: {what}." for what in ("forged card served", "served") if counts[what])
        + (() if counts["signed card, refused by the policy"] else ("No load met the signed card.",)),
    )  # fmt: skip


def _once(raced: Path, public: Path, policy: PrivacyPolicy) -> str:
    try:
        found = load_signed(raced, public)
        policy.enforce(found)
    except PrivacyPolicyError:
        return "signed card, refused by the policy"
    except SplitVeilError:
        return "forged or half-exchanged card, refused"
    return "forged card served" if found.card and found.card.rows[0].ssim < 0.5 else "served"
