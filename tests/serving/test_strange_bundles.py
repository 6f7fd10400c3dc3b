"""Bundles that a stranger wrote, before a server: one error, the old one serves on, the next good one is taken."""

import asyncio
import logging
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from splitveil.core.errors import BundleError, SplitVeilError
from splitveil.server.deployment import Deployment, Terms
from splitveil.server.limits import Limits
from splitveil.server.patience import in_time
from splitveil.server.server import Server
from splitveil.server.trial import Trial
from splitveil.wire.bundle import CLOUD, GOLDEN, Bundle
from splitveil.wire.engine import load_cloud, self_test
from tests.faults.spoilt import SPOILS, endless, graph, spoil

from .conftest import SOURCE, Made, ask_with_triton, spawned
from .test_hot_swap import put, swapping
from .test_server import cloud, features

ENDLESS, HUNGRY = "an endless loop in the graph", "a graph of 40 GB"
SECONDS = 0.3
"""Patience with an endless one."""


@pytest.mark.parametrize("what", SPOILS)
def test_every_fault_is_one_error(plain: Made, tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    spoil(plain.bundle.folder, tmp_path / "spoilt", SPOILS[what])
    with pytest.raises(SplitVeilError) as caught:  # noqa: PT012  # each step may be the one
        bundle = Bundle.load(tmp_path / "spoilt", keep=(CLOUD, GOLDEN))
        Terms(64, 64).admit(bundle)
        if what == HUNGRY:
            Trial().run(bundle)
        self_test(bundle, load_cloud(bundle), SECONDS)
    assert isinstance(caught.value, BundleError) or "no manifest.json" in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_reload_survives_all_of_them_and_takes_the_next_good_bundle(
    plain: Made, other: Made, images: NDArray[np.float32], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served, z = tmp_path / "served", features(plain, images[:2])
    with swapping(plain, served) as (server, reload):
        deployments = server.deployments
        deployments._terms = Terms(64, 64, patience=SECONDS)
        for what, change in SPOILS.items():
            spoil(plain.bundle.folder, served, change)
            with caplog.at_level(logging.ERROR, "splitveil"):
                caplog.clear()
                assert not reload()
            assert [r.message.startswith("the bundle is not replaced: ") for r in caplog.records] == [True], what
            assert deployments.current.manifest == plain.bundle.manifest
        np.testing.assert_allclose(ask_with_triton(server.port, z), cloud(plain, z), rtol=1e-5, atol=1e-5)
        shutil.rmtree(served)
        put(other.bundle, served)
        deployments._terms = Terms(64, 64)
        assert reload()


def test_a_trial_is_over_when_the_server_is(plain: Made, tmp_path: Path) -> None:
    spoil(plain.bundle.folder, tmp_path / "endless", SPOILS[ENDLESS])
    bundle, trial = Bundle.load(tmp_path / "endless"), Trial()

    async def stopped() -> None:
        running = asyncio.ensure_future(in_time(lambda: trial.run(bundle, 60), 60))
        while trial._process is None:
            await asyncio.sleep(0.01)
        trial.stop()
        with pytest.raises(BundleError, match="does not answer its golden features"):
            await running

    begun = time.monotonic()
    asyncio.run(stopped())
    assert time.monotonic() - begun < 20


def test_what_never_ends_is_waited_for_only_so_long() -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(in_time(lambda: time.sleep(0.5), 0.05))
    assert asyncio.run(in_time(lambda: None, 5)) is None
    with pytest.raises(ValueError, match="inside"):
        asyncio.run(in_time(lambda: int("inside"), 5))


def test_a_server_of_an_endless_model_does_not_start(plain: Made, tmp_path: Path) -> None:
    spoil(plain.bundle.folder, tmp_path / "endless", SPOILS[ENDLESS])

    async def start() -> None:
        async with Server(Bundle.load(tmp_path / "endless"), port=0, limits=Limits(test_seconds=SECONDS)):
            pass

    with pytest.raises(BundleError, match="does not answer its golden features within"):
        asyncio.run(start())


def test_a_deployment_lets_go_of_the_graph_and_keeps_what_it_is_tested_with(plain: Made) -> None:
    made = Deployment(Bundle.load(plain.bundle.folder, keep=(CLOUD, GOLDEN)), Terms(4, 4))
    assert list(made.bundle.content.kept) == [GOLDEN]
    made.test()
    made.batcher.close()


SERVE = [sys.executable, "-m", "splitveil", "serve"]
ENVIRONMENT = {"PYTHONPATH": SOURCE, "PATH": ""}


@pytest.mark.slow
def test_sigterm_ends_a_server_whose_model_never_does(plain: Made, tmp_path: Path) -> None:
    spoil(plain.bundle.folder, tmp_path / "endless", graph(endless))
    process = subprocess.Popen(
        [*SERVE, str(tmp_path / "endless"), "--port", "0"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.slow
def test_sighup_before_it_listens_and_a_full_disk_for_its_words_end_no_server(plain: Made) -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [*SERVE, str(plain.bundle.folder), "--port", "0"], env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    assert process.stderr is not None
    for _ in range(10):
        time.sleep(0.15)
        process.send_signal(signal.SIGHUP)
    words = iter(process.stderr.readline, "")
    assert any("cannot say that it is ready: No space left on device" in line for line in words)
    assert any("the bundle is not replaced: it is the one that is served" in line for line in words)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


STUCK = """
import sys, time
from pathlib import Path
from splitveil.wire.bundle import Bundle
from splitveil.wire.engine import LoadedHalf
from splitveil.server.lifecycle import run_until_told
from splitveil.server.limits import Limits
from splitveil.server.server import Server

def run(self, inputs):
    print("stuck", flush=True)
    time.sleep(600)

def ready(server):
    LoadedHalf.run = run
    print(f":{server.port}", flush=True)

run_until_told(Server(Bundle.load(Path(sys.argv[1])), port=0, limits=Limits(drain_seconds=0.2)), ready)
"""


@pytest.mark.slow
def test_sigterm_ends_a_server_whose_model_hangs_on_a_request(plain: Made, images: NDArray[np.float32]) -> None:
    with spawned(plain.bundle, program=STUCK) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_with_triton, server.port, features(plain, images[:1]))
        assert server.read() == "stuck"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 1
        assert asked.exception(20) is not None
