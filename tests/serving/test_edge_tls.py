"""The device's side of certificates and tokens, against gRPC's own TLS server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from splitveil.errors import InputError, LinkError
from splitveil.serving import Edge
from splitveil.serving.retry import Retry
from splitveil.serving.transport import ClientTls

from .conftest import Made
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


@pytest.mark.parametrize("case", ["plain text", "wrong authority", "no certificate", "stranger's", "other name"])
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
    with pytest.raises(LinkError, match="no answer from"):
        Edge(plain.bundle, mutual[1], tls=tls, timeout=2, retries=ONCE)


def test_an_expired_server_is_not_trusted(plain: Made, keys: Keys) -> None:
    tls = ClientTls(keys.servers.path, keys.device.certificate, keys.device.key)
    with (
        scripted(Scripted(plain.bundle), credentials(keys.expired, keys.servers)) as port,
        pytest.raises(LinkError, match="no answer from"),
    ):
        Edge(plain.bundle, f"127.0.0.1:{port}", tls=tls, timeout=2, retries=ONCE)


def test_a_token_goes_to_no_other_machine_in_plain_text(plain: Made) -> None:
    with pytest.raises(InputError, match="plain text to another machine") as caught:
        Edge(plain.bundle, ["127.0.0.1:1", "192.0.2.1:8001"], token="secret-of-this-device")
    assert "secret" not in str(caught.value)


def test_what_cannot_be_used_is_said(plain: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give both for mutual TLS"):
        ClientTls(cert=tmp_path / "a")
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
