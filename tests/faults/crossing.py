"""What crosses from a protected bundle, read between device and server, against what an audit gives its adversaries."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from tritonclient.grpc import service_pb2

from splitveil.device import Edge
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.seeds import derive
from splitveil.wire.datatypes import DTYPES
from tests.faults.answers import Net, net
from tests.faults.finding import Finding
from tests.faults.process import Victim

COPIES, SIGMA = 64, 0.5
LEAST_P = 1e-6
CODECS_TRIED = ("raw", "uniform:bits=8")
NEAREST, MOST_ALIKE = 0.9, 0.15
"""2048 numbers a copy: independent ones of any two of 64 copies stay below 6 / sqrt(2048) + 1 / 64."""
Array = NDArray[Any]


class Relay(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes every call on to a server and keeps the messages that clients sent, as bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.messages: list[bytes] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """One method."""
        method = handler_call_details.method
        onward = self._channel.unary_unary(method)

        def passed_on(message: bytes, context: grpc.ServicerContext) -> bytes:
            self.messages.append(message)
            answer: bytes = onward(message, timeout=30)
            return answer

        return grpc.unary_unary_rpc_method_handler(passed_on)


@contextmanager
def relayed(made: Net) -> Iterator[tuple[Edge, Relay]]:
    """A device whose words are read on the way to a server."""
    with Victim(made.bundle) as server, grpc.insecure_channel(server.target) as channel:
        relay = Relay(channel)
        between = grpc.server(ThreadPoolExecutor(4), handlers=(relay,), options=[("grpc.so_reuseport", 0)])
        port = between.add_insecure_port("127.0.0.1:0")
        between.start()
        try:
            with Edge(made.bundle, f"127.0.0.1:{port}") as edge:
                yield edge, relay
        finally:
            between.stop(None).wait(20)


def crossed(made: Net, *batches: Array) -> tuple[list[Array], bytes]:
    """Features of each request as they crossed, and everything that was sent."""
    with relayed(made) as (edge, relay):
        for x in batches:
            edge.ask(x)
    found = []
    for message in relay.messages:
        request = service_pb2.ModelInferRequest.FromString(message)
        if request.raw_input_contents:
            dtype = DTYPES[request.inputs[0].datatype]
            found.append(np.frombuffer(request.raw_input_contents[0], dtype).reshape(tuple(request.inputs[0].shape)))
    return found, b"".join(relay.messages)


def read_the_wire(folder: Path, seed: int = 0) -> Finding:
    """One image many times through noise, with and without 8-bit codes: what crossed against the audit's view."""
    rows, failures = [], list[str]()
    for codec in CODECS_TRIED:
        made = net(folder / f"noisy-{codec.replace(':', '-')}", codec, GaussianNoise(sigma=SIGMA), seed)
        row, wrong = _held_against(made, codec, seed)
        rows.append(row)
        failures += wrong
    return Finding(
        title="What crosses",
        ran=f"One image {COPIES} times in one request and twice alone through `GaussianNoise(sigma={SIGMA})`, recorded "
        "between device and server; beside it as many draws of `Protected.observe`, what an audit gives its "
        "adversaries.",
        columns=(
            "codec", "numbers", "noise on the wire: mean", "standard deviation", "of the audit's view",
            "KS test against that view: p", "largest correlation of two copies",
            "least distance from the undefended features",
        ),
        rows=tuple(rows),
        notes=(
            "Noise is in units of the spread that the defence states. It fails when mean or deviation lie more than "
            f"five standard errors from the audit's, p is below {LEAST_P:g}, two copies or two requests show the same "
            f"noise, a copy lies nearer than {NEAREST:g} to the undefended features (root mean square), or the image's "
            "first 32 bytes are found on the wire.",
        ),
        failures=tuple(failures),
    )  # fmt: skip


def _alike(noise: NDArray[np.float64]) -> float:
    """Largest correlation between two copies' noise, without what all share (as clipping does); 1 for no noise."""
    own = noise - noise.mean(0)
    if own.std(1).min() < 1e-3:
        return 1.0
    return float(np.abs(np.corrcoef(own)[np.triu_indices(len(own), 1)]).max())


def _held_against(made: Net, codec: str, seed: int) -> tuple[tuple[str, ...], list[str]]:
    x = np.repeat(made.images[:1], COPIES, axis=0)
    (many, one, again), sent = crossed(made, x, x[:1], x[:1])
    protected = made.protected
    torch.manual_seed(derive(seed, "view"))
    with torch.no_grad():
        h = protected.split.edge(torch.from_numpy(x))
        mean, spread = protected.defense.mean(h), protected.defense.spread(h)
        assert spread is not None
        view = protected.observe(h)
        read = protected.codec.decode(torch.from_numpy(many.astype(np.float32)))
    wire, audit = (((z - mean) / spread).double().numpy().reshape(COPIES, -1) for z in (read, view))
    n = wire.size
    p = float(stats.ks_2samp(wire.ravel(), audit.ravel()).pvalue)
    alike = _alike(wire)
    # Not by their bytes: onnxruntime rounds the edge half otherwise than torch does.
    nearest = float(np.sqrt((((read - h) / spread).double().numpy().reshape(COPIES, -1) ** 2).mean(1)).min())
    picture = x[0].tobytes()[:32] in sent
    failures = []
    if abs(wire.mean() - audit.mean()) > 5 * np.sqrt(2 / n) or abs(wire.std() - audit.std()) > 5 / np.sqrt(n):
        failures.append(f"{codec}: noise of another mean or deviation than the audit's.")
    if p < LEAST_P:
        failures.append(f"{codec}: another distribution than the audit's view (p = {p:.1e}).")
    if alike > MOST_ALIKE:
        failures.append(f"{codec}: copies share their noise (correlation {alike:.2f}).")
    if nearest < NEAREST:
        failures.append(f"{codec}: undefended features crossed (distance {nearest:.2f}).")
    if picture:
        failures.append(f"{codec}: the image crossed.")
    if np.array_equal(one, again) or np.array_equal(one, many[:1]):
        failures.append(f"{codec}: two requests showed the same draw.")
    row = (
        codec, f"{n:,}", f"{wire.mean():+.4f}", f"{wire.std():.4f}", f"{audit.mean():+.4f}, {audit.std():.4f}",
        f"{p:.2f}", f"{alike:.3f}", f"{nearest:.3f}",
    )  # fmt: skip
    return row, failures
