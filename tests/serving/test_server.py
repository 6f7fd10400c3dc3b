import asyncio
import re
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from numpy.typing import NDArray
from safetensors.numpy import load, save
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from splitveil.core.errors import BundleError, InputError, LinkError
from splitveil.server.limits import Limits
from splitveil.server.server import Server
from splitveil.wire.bundle import GOLDEN, Bundle, write_bundle

from .conftest import Made, ask_with_triton, running, spawned, started
from .test_contract import BAD, change, request

GATED = """
import sys
from pathlib import Path
from splitveil.wire.bundle import Bundle
from splitveil.server import serve
from splitveil.wire.contract import RequestRules
from splitveil.wire.engine import LoadedHalf

run, read = LoadedHalf.run, RequestRules.read

def gated(self, inputs):
    sys.stdin.readline()
    return run(self, inputs)

def told(self, request):
    z = read(self, request)
    print("got", flush=True)
    return z

def announce(line):
    LoadedHalf.run, RequestRules.read = gated, told
    print(line, flush=True)

serve(Bundle.load(Path(sys.argv[1])), port=int(sys.argv[2]), announce=announce)
print("drained", flush=True)
"""


def features(made: Made, images: NDArray[np.float32]) -> NDArray[Any]:
    with torch.no_grad():
        z = made.protected.codec.encode(made.protected.split.edge(torch.from_numpy(images)))
    out: NDArray[Any] = z.numpy().astype(np.uint8) if made.protected.codec.wire_dtype == "UINT8" else z.numpy()
    return out


def cloud(made: Made, z: NDArray[Any]) -> NDArray[Any]:
    with torch.no_grad():
        logits: NDArray[Any] = made.protected.split.cloud(
            made.protected.codec.decode(torch.from_numpy(z.astype(np.float32)))
        ).numpy()
    return logits


def test_an_unmodified_client_gets_what_torch_computes(plain: Made, noisy: Made, images: NDArray[np.float32]) -> None:
    for made in (plain, noisy):
        z = features(made, images[:3])
        agreed = {"contract": made.bundle.manifest.contract}
        with running(made.bundle) as server:
            np.testing.assert_allclose(ask_with_triton(server.port, z, agreed), cloud(made, z), rtol=1e-5, atol=1e-5)


def test_metadata_follow_the_protocol(noisy: Made) -> None:
    with running(noisy.bundle) as server, triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.get_server_metadata().name == "splitveil"
        model = client.get_model_metadata("tiny")
        assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [("z", "UINT8", [-1, 8, 16, 16])]
        assert [(t.name, t.datatype, list(t.shape)) for t in model.outputs] == [("logits", "FP32", [-1, 5])]
        config = client.get_model_config("tiny").config
        assert config.max_batch_size == 64
        assert config.parameters["contract"].string_value == noisy.bundle.manifest.contract
        for ask in (client.is_model_ready, client.get_model_metadata, client.get_model_config):
            with pytest.raises(InferenceServerException, match="only 'tiny'"):
                ask("other")


def test_bad_requests_are_refused_while_good_clients_all_succeed(plain: Made, images: NDArray[np.float32]) -> None:
    z = features(plain, images[:8])
    expected = cloud(plain, z)

    def good(port: int, row: int) -> int:
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            tensor = triton.InferInput("z", [1, *z.shape[1:]], "FP32")
            tensor.set_data_from_numpy(z[row : row + 1])
            for _ in range(25):
                got = client.infer("tiny", [tensor], client_timeout=20).as_numpy("logits")
                np.testing.assert_allclose(got, expected[row : row + 1], rtol=1e-5, atol=1e-5)
            return 25

    with running(plain.bundle) as server, ThreadPoolExecutor(8) as pool, _stub(server.port) as stub:
        clients = [pool.submit(good, server.port, row) for row in range(8)]
        codes = set()
        for name in [*BAD, *BAD]:
            bad = request()
            change(name)(bad)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(bad, timeout=20)
            codes.add(caught.value.code())
        assert codes == {grpc.StatusCode.INVALID_ARGUMENT}
        assert sum(c.result(60) for c in clients) == 200
        assert max(server.batcher.batches) > 1


def test_an_oversized_message_is_refused_before_it_is_read(plain: Made) -> None:
    with running(plain.bundle, max_batch=2) as server, _stub(server.port) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request(rows=64), timeout=20)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(stub.ModelInfer(request(rows=2), timeout=20).raw_output_contents[0]) == 2 * 5 * 4


def test_sigterm_lets_requests_in_flight_finish(plain: Made, images: NDArray[np.float32]) -> None:
    z = features(plain, images[:4])
    with spawned(plain.bundle, program=GATED) as server, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask_with_triton, server.port, z[i : i + 1]) for i in range(4)]
        assert [server.read() for _ in asked] == ["got"] * 4
        server.process.send_signal(signal.SIGTERM)
        wait_until_refused(server.port)
        # On a connection of its own: on one that is there already, a request may be in time to be answered.
        with _stub(server.port) as stub, pytest.raises(grpc.RpcError) as late:
            stub.ModelInfer(request(), timeout=20)
        assert late.value.code() == grpc.StatusCode.UNAVAILABLE
        server.write("\n" * 4)
        logits = np.concatenate([a.result(20) for a in asked])
        assert server.read() == "drained"
        assert server.process.wait(20) == 0
    np.testing.assert_allclose(logits, cloud(plain, z), rtol=1e-5, atol=1e-5)


def wait_until_refused(port: int) -> None:
    """Until nobody listens there."""
    with suppress(ConnectionRefusedError):
        while True:
            with suppress(ConnectionResetError):
                socket.create_connection(("127.0.0.1", port), timeout=20).close()


def test_it_says_what_it_serves_and_where(noisy: Made) -> None:
    with spawned(noisy.bundle) as server:
        assert re.fullmatch(
            r"serving tiny \(custom, noise:sigma=0.5,clip=1.0, uniform:bits=8\) on 127.0.0.1:\d+", server.line
        )
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0


def test_it_is_not_ready_before_the_self_test_has_passed(plain: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go = threading.Event(), threading.Event()

    def slow_test(bundle: Bundle, half: object, seconds: float) -> None:
        entered.set()
        assert go.wait(20)

    monkeypatch.setattr("splitveil.server.deployment.self_test", slow_test)
    server = Server(plain.bundle, port=0)

    async def main() -> None:
        async with server:
            assert server.front.ready

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert entered.wait(20)
        with _stub(server.port) as stub:
            assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
            assert not stub.ServerReady(service_pb2.ServerReadyRequest()).ready
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(request(), timeout=20)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        go.set()
        thread.join(20)


def test_other_golden_logits_keep_it_from_serving(plain: Made, tmp_path: Path) -> None:
    golden = load(plain.bundle.read(GOLDEN))
    golden["logits"] += 0.1
    files: dict[str, bytes | Path] = {n: plain.bundle.folder / n for n in plain.bundle.manifest.files}
    files[GOLDEN] = save(golden)
    wrong = write_bundle(tmp_path / "wrong", plain.bundle.manifest, files)
    with pytest.raises(BundleError, match="golden"), running(wrong):
        pass


def test_a_taken_port_is_an_error(plain: Made) -> None:
    async def second(port: int) -> None:
        async with Server(plain.bundle, port=port):
            pass

    with running(plain.bundle) as server, pytest.raises(LinkError, match="choose another --grpc-port"):
        asyncio.run(second(server.port))
    with pytest.raises(InputError, match="0 to 65535"):
        Server(plain.bundle, port=70_000)


def test_an_index_lists_the_model_once_it_is_ready(plain: Made) -> None:
    with running(plain.bundle) as server, triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        (model,) = client.get_model_repository_index().models
        assert (model.name, model.version, model.state) == ("tiny", "1", "READY")


def test_what_is_no_message_and_what_never_comes_are_refused(plain: Made) -> None:
    limits = Limits(read_seconds=0.3)
    with (
        started(lambda: Server(plain.bundle, port=0, limits=limits)) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        path = "/inference.GRPCInferenceService/ModelInfer"
        with pytest.raises(grpc.RpcError) as garbled:
            channel.unary_unary(path)(b"\xff\xff\xff", timeout=20)
        assert garbled.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as empty:
            channel.stream_unary(path)(iter(()), timeout=20)
        assert empty.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        forever = threading.Event()
        with pytest.raises(grpc.RpcError) as stalled:
            channel.stream_unary(path)(iter(lambda: forever.wait(20), True), timeout=20)
        forever.set()
        assert stalled.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "arrive in time" in str(stalled.value.details())


class _stub:  # noqa: N801
    """The protocol's own stub, without any client around it."""

    def __init__(self, port: int) -> None:
        limit: Callable[[str], tuple[str, int]] = lambda way: (f"grpc.max_{way}_message_length", -1)  # noqa: E731
        alone = ("grpc.use_local_subchannel_pool", 1)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", [limit("send"), limit("receive"), alone])

    def __enter__(self) -> Any:
        return service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def __exit__(self, *_: object) -> None:
        self.channel.close()
