"""The device's side of certificates and tokens, against gRPC's own TLS server."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from splitveil.core.errors import InputError, LinkError
from splitveil.device import Edge
from splitveil.device.client_tls import ClientTls
from splitveil.device.doorstep import seen_at
from splitveil.device.retry import Retry
from splitveil.device.transport import Transport
from splitveil.server.security import Tls
from splitveil.server.server import Server

from .conftest import Made, started
from .scripted import Scripted, scripted
from .test_edge import local
from .test_tls import DAY, NOW, Authority, Pair

ONCE = Retry(attempts=1)


@dataclass(frozen=True)
class Keys:
    servers: Authority
    server: Pair
    expired: Pair
    device: Pair
    strangers: Authority


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    servers, strangers = (Authority(folder, name) for name in ("servers", "strangers"))
    return Keys(
        servers, servers.issue("server"), servers.issue("old", NOW - DAY), servers.issue("device"), strangers
    )  # fmt: skip


def credentials(pair: Pair, clients: Authority) -> Any:
    held = [(pair.key.read_bytes(), pair.certificate.read_bytes())]
    return grpc.ssl_server_credentials(held, clients.path.read_bytes(), require_client_auth=True)


@pytest.fixture(scope="module")
def mutual(plain: Made, keys: Keys) -> Iterator[tuple[Scripted, str]]:
    service = Scripted(plain.bundle)
    with scripted(service, credentials(keys.server, keys.servers)) as port:
        yield service, f"127.0.0.1:{port}"


def test_mutual_tls_with_a_token(
    plain: Made, keys: Keys, mutual: tuple[Scripted, str], images: NDArray[np.float32]
) -> None:
    service, target = mutual
    tls = ClientTls(keys.servers.path, keys.device.certificate, keys.device.key)
    for targets in (target, [target, target]):
        service.tokens.clear()
        with Edge(plain.bundle, targets, tls=tls, token="of-this-device-only") as edge:
            np.testing.assert_allclose(edge.ask(images[:2]), local(plain, images[:2]), rtol=1e-4, atol=1e-4)
        assert service.tokens == ["Bearer of-this-device-only"]


TRUST = {
    "plain text": "it speaks TLS and was asked in plain text; give its authority with --ca",
    "wrong authority": "of an authority that this device does not trust; give that one's with --ca",
    "no certificate": "another certificate of the device or one at all; give --cert and --key",
    "stranger's": "another certificate of the device or one at all; give --cert and --key",
    "other name": "its certificate is not of elsewhere.example; give the name that it holds with --server-name",
}


@pytest.mark.parametrize("case", TRUST)
def test_a_server_and_a_device_that_do_not_trust_each_other_do_not_talk(
    case: str, plain: Made, keys: Keys, mutual: tuple[Scripted, str]
) -> None:
    ca, own, foreign = keys.servers.path, keys.device, keys.strangers.issue("x")
    tls = {
        "plain text": None,
        "wrong authority": ClientTls(keys.strangers.path, own.certificate, own.key),
        "no certificate": ClientTls(ca),
        "stranger's": ClientTls(ca, foreign.certificate, foreign.key),
        "other name": ClientTls(ca, own.certificate, own.key, name="elsewhere.example"),
    }[case]
    with pytest.raises(LinkError, match=f"no answer from {mutual[1]}: ") as caught:
        Edge(plain.bundle, mutual[1], tls=tls, timeout=5, retries=ONCE)
    assert TRUST[case] in str(caught.value)
    assert "check the address" not in str(caught.value)


def test_the_same_is_said_to_who_awaits(plain: Made, keys: Keys, mutual: tuple[Scripted, str]) -> None:
    """And to who has a fallback, in the log; the fallback answers."""

    async def ask(edge: Edge) -> None:
        with pytest.raises(LinkError, match="speaks TLS"):
            await edge._asynchronous().hold(edge._meet())

    with scripted(Scripted(plain.bundle)) as port, Edge(plain.bundle, f"127.0.0.1:{port}", retries=ONCE) as edge:
        edge._transport = Transport([mutual[1]], None, None, False)
        edge._exchange.max_batch = None
        asyncio.run(ask(edge))


@pytest.mark.parametrize("secured", [False, True])
def test_a_server_of_another_kind_is_named(secured: bool, plain: Made, keys: Keys) -> None:
    """Plain text asked with TLS, and the HTTP port of our own server, with TLS and without."""
    pair = Tls(keys.server.certificate, keys.server.key) if secured else None
    tls = ClientTls(keys.servers.path)
    with started(lambda: Server(plain.bundle, port=0, http_port=0, tls=pair)) as server:
        web, own = f"127.0.0.1:{server.http_port}", f"127.0.0.1:{server.port}"
        with pytest.raises(LinkError, match="it speaks HTTP and no gRPC; give the port of gRPC"):
            Edge(plain.bundle, web, tls=tls if secured else None, retries=ONCE)
        if not secured:
            with pytest.raises(LinkError, match="it speaks plain text and was asked with TLS"):
                Edge(plain.bundle, own, tls=tls, retries=ONCE)


def test_nothing_there_is_no_matter_of_tls(plain: Made, keys: Keys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for tls in (None, ClientTls(keys.servers.path)):
        with pytest.raises(LinkError, match="nothing listens there; check the address"):
            Edge(plain.bundle, f"127.0.0.1:{port}", tls=tls, retries=ONCE)
    with pytest.raises(LinkError, match="cannot be looked up"):
        Edge(plain.bundle, "no-such-host.invalid:1", retries=ONCE)


def test_a_server_that_says_nothing_takes_no_longer_than_it_may() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert seen_at("127.0.0.1", silent.getsockname()[1], None, None, 0.2) == ""
        assert time.monotonic() - began < 2


def test_our_lines_alone_reach_the_terminal(plain: Made, mutual: tuple[Scripted, str], tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    np.save(tmp_path / "x.npy", np.zeros((3, 16, 16), np.float32))
    words = [sys.executable, "-m", "splitveil", "query", str(plain.bundle.folder), "--to", mutual[1]]
    words += ["--input", str(tmp_path / "x.npy"), "--timeout", "5", "--attempts", "1"]
    for more, code, said in (
        ([], 1, "it speaks TLS"),
        (["--tls"], 1, "does not trust"),
        (["--ca", str(tmp_path / "no.pem")], 2, "holds no certificate"),
    ):
        done = subprocess.run([*words, *more], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1, done.stderr


def test_an_expired_server_is_not_trusted(plain: Made, keys: Keys) -> None:
    tls = ClientTls(keys.servers.path, keys.device.certificate, keys.device.key)
    with (
        scripted(Scripted(plain.bundle), credentials(keys.expired, keys.servers)) as port,
        pytest.raises(LinkError, match="its certificate has expired"),
    ):
        Edge(plain.bundle, f"127.0.0.1:{port}", tls=tls, timeout=5, retries=ONCE)


def test_a_token_goes_to_no_other_machine_in_plain_text(plain: Made) -> None:
    with pytest.raises(InputError, match="plain text to another machine") as caught:
        Edge(plain.bundle, ["127.0.0.1:1", "192.0.2.1:8001"], token="secret-of-this-device")
    assert "secret" not in str(caught.value)


def test_what_cannot_be_used_is_said(plain: Made, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give both for mutual TLS"):
        ClientTls(cert=tmp_path / "a")
    (tmp_path / "no.pem").write_text("no certificate")
    own, foreign = keys.device, keys.strangers.issue("y")
    for wrong, words in (
        (ClientTls(ca=tmp_path / "no.pem"), "no.pem holds no certificate"),
        (ClientTls(cert=own.certificate, key=foreign.key), r"are no pair \(key values mismatch\)"),
        (ClientTls(cert=own.certificate, key=tmp_path / "no.pem"), "are no pair"),
    ):
        with pytest.raises(InputError, match=words):
            Edge(plain.bundle, "127.0.0.1:1", tls=wrong)
    with pytest.raises(InputError, match="cannot read"):
        Edge(plain.bundle, "127.0.0.1:1", tls=ClientTls(ca=tmp_path / "missing.pem"))
    for target in ("", "host", "host:0", "host:http", ":8001", "host:70000"):
        with pytest.raises(InputError, match="expected HOST:PORT"):
            Edge(plain.bundle, target)
    with pytest.raises(InputError, match="at least one server"):
        Edge(plain.bundle, [])
    with pytest.raises(InputError, match="one kind"):
        Edge(plain.bundle, ["127.0.0.1:1", "[::1]:1"])
    with pytest.raises(InputError, match="timeout"):
        Edge(plain.bundle, "127.0.0.1:1", timeout=0)
