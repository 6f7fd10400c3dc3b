"""Two small bundles, and servers for them: in a thread to look inside, in a process of their own to kill."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from numpy.typing import NDArray
from torch import nn

import splitveil
from splitveil.lab.cut import halves
from splitveil.lab.defenses.base import Defense, Protected
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.export import save
from splitveil.server.server import Server
from splitveil.wire.bundle import Bundle
from splitveil.wire.codecs import Codec
from splitveil.wire.codecs.raw import Raw
from splitveil.wire.codecs.uniform import Uniform

SHAPE = (3, 16, 16)
CLASSES = ["cat", "dog", "fox", "hen", "owl"]
SOURCE = str(Path(splitveil.__file__).parents[1])


@dataclass(frozen=True)
class Made:
    """A bundle and the torch modules that it was made from."""

    bundle: Bundle
    protected: Protected


def make(folder: Path, defense: Defense, codec: Codec, seed: int = 0) -> Made:
    torch.manual_seed(seed)
    edge = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    cloud = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 5))
    images = torch.rand(16, *SHAPE)
    split = halves(edge, cloud, images)
    with torch.no_grad():
        z = split.edge(images)
        defense.calibrate(z)
        protected = Protected(split, defense, codec.calibrate(defense(z))).eval()
    bundle = save(protected, folder, name="tiny", model_spec="by hand", image_shape=SHAPE, classes=CLASSES)
    return Made(bundle, protected)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """No defence, 32-bit floats."""
    return make(tmp_path_factory.mktemp("bundles") / "plain", Undefended(), Raw())


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Like plain, with other weights."""
    return make(tmp_path_factory.mktemp("bundles") / "other", Undefended(), Raw(), seed=7)


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Noise, 8-bit codes."""
    return make(tmp_path_factory.mktemp("bundles") / "noisy", GaussianNoise(sigma=0.5), Uniform(8))


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    """(64, 3, 16, 16) in [0, 1]."""
    return np.random.default_rng(1).random((64, *SHAPE), dtype=np.float32)


@contextmanager
def running(bundle: Bundle, max_batch: int = 64) -> Iterator[Server]:
    """A ready server in a thread."""
    with started(lambda: Server(bundle, port=0, max_batch=max_batch)) as server:
        yield server


@contextmanager
def started(make_server: Callable[[], Server]) -> Iterator[Server]:
    """A ready server, as it is made, in a thread."""
    up: Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        try:
            stop = asyncio.Event()
            async with make_server() as server:
                up.set_result((server, asyncio.get_running_loop(), stop))
                await stop.wait()
        except BaseException as error:
            if up.done():
                raise
            up.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    server, loop, stop = up.result(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


PLAIN_SERVER = """
import sys
from pathlib import Path
from splitveil.wire.bundle import Bundle
from splitveil.server import serve
serve(Bundle.load(Path(sys.argv[1])), port=int(sys.argv[2]), announce=lambda line: print(line, flush=True))
"""


class Process:
    """A server in a process of its own."""

    def __init__(self, bundle: Bundle, port: int = 0, program: str = PLAIN_SERVER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(bundle.folder), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": SOURCE, "PATH": ""},
        )
        self.line = self.read()
        self.port = int(self.line.rpartition(":")[2])

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        self.process.communicate(timeout=20)


@contextmanager
def spawned(bundle: Bundle, port: int = 0, program: str = PLAIN_SERVER) -> Iterator[Process]:
    server = Process(bundle, port, program)
    try:
        yield server
    finally:
        server.end()


def ask_with_triton(port: int, z: NDArray[Any], parameters: dict[str, Any] | None = None) -> NDArray[Any]:
    """NVIDIA's client, as it comes."""
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        tensor = triton.InferInput("z", list(z.shape), "UINT8" if z.dtype == np.uint8 else "FP32")
        tensor.set_data_from_numpy(z)
        answer = client.infer("tiny", [tensor], client_timeout=20, parameters=parameters)
        logits: NDArray[Any] = answer.as_numpy("logits")
        return logits
