"""Certificates and tokens, made here and tried on both protocols."""

import asyncio
import datetime
import http.client
import io
import json
import logging
import shutil
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from splitveil.core.errors import InputError
from splitveil.server.journal import log_as_json
from splitveil.server.security import Certificates, Tls, Tokens, is_loopback, refuse_exposure
from splitveil.server.server import Server

from .conftest import Made, started
from .test_server import cloud, features
from .test_web import GOOD, INFER

TOKEN, OTHER = "a-token-of-this-test-7f3a", "another-token-of-this-test"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path, name: str, until: datetime.datetime = NOW + DAY) -> None:
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        made = (
            self._builder(self.name, self._key, until)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        until: datetime.datetime = NOW + DAY,
        since: datetime.datetime = NOW - 2 * DAY,
        of: tuple[str, ...] = ("127.0.0.1", "localhost"),
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        here = x509.SubjectAlternativeName(
            [x509.IPAddress(ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in of]
        )
        made = (
            self._builder(subject, key, until, since)
            .add_extension(here, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        pair.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        until: datetime.datetime,
        since: datetime.datetime = NOW - 2 * DAY,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
        )


@dataclass(frozen=True)
class World:
    """An authority of servers, one of devices, and one that nobody trusts."""

    servers: Authority
    devices: Authority
    strangers: Authority
    server: Pair
    expired_server: Pair
    device: Pair
    expired_device: Pair
    stranger: Pair
    token_file: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made_world(tmp_path_factory.mktemp("tls"))


def made_world(folder: Path) -> World:
    servers, devices, strangers = (Authority(folder, name) for name in ("servers", "devices", "strangers"))
    (folder / "tokens").write_text(f"# of this test\n\n{OTHER}\n{TOKEN}\n")
    return World(
        servers, devices, strangers, servers.issue("server"), servers.issue("expired-server", NOW - DAY),
        devices.issue("device"), devices.issue("expired-device", NOW - DAY), strangers.issue("stranger"),
        folder / "tokens",
    )  # fmt: skip


@pytest.fixture(scope="module")
def mutual(plain: Made, world: World) -> Iterator[Server]:
    tls = Tls(world.server.certificate, world.server.key, world.devices.path)
    tokens = Tokens(world.token_file)
    with started(lambda: Server(plain.bundle, port=0, http_port=0, tls=tls, tokens=tokens)) as server:
        yield server


def over_grpc(
    server: Server, z: NDArray[Any], ca: Path | None, pair: Pair | None = None, token: str | None = None
) -> NDArray[Any]:
    headers = None if token is None else {"authorization": token}
    with triton.InferenceServerClient(
        f"127.0.0.1:{server.port}",
        ssl=ca is not None,
        root_certificates=str(ca) if ca else None,
        certificate_chain=str(pair.certificate) if pair else None,
        private_key=str(pair.key) if pair else None,
    ) as client:
        tensor = triton.InferInput("z", list(z.shape), "FP32")
        tensor.set_data_from_numpy(z)
        got: NDArray[Any] = client.infer("tiny", [tensor], client_timeout=5, headers=headers).as_numpy("logits")
        return got


def over_http(
    server: Server, ca: Path, pair: Pair | None = None, token: str | None = None, path: str = INFER
) -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=str(ca))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    connection = http.client.HTTPSConnection("127.0.0.1", server.http_port, timeout=20, context=context)
    try:
        method, body = ("POST", json.dumps(GOOD)) if path == INFER else ("GET", None)
        connection.request(method, path, body, {} if token is None else {"Authorization": token})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_who_shows_all_credentials_is_answered(
    mutual: Server, world: World, plain: Made, images: NDArray[np.float32]
) -> None:
    z = features(plain, images[:2])
    for token in (f"Bearer {TOKEN}", f"bearer {OTHER}"):
        got = over_grpc(mutual, z, world.servers.path, world.device, token)
        np.testing.assert_allclose(got, cloud(plain, z), rtol=1e-5, atol=1e-5)
        status, said = over_http(mutual, world.servers.path, world.device, token)
        assert (status, len(said["outputs"][0]["data"])) == (200, 5)


@pytest.mark.parametrize("who", ["nobody", "expired_device", "stranger", "server"])
def test_other_certificates_end_at_the_handshake(mutual: Server, world: World, plain: Made, who: str) -> None:
    pair: Pair | None = getattr(world, who, None)
    z = np.zeros((1, 8, 16, 16), np.float32)
    with pytest.raises(InferenceServerException, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
        over_grpc(mutual, z, world.servers.path, pair, f"Bearer {TOKEN}")
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
        over_http(mutual, world.servers.path, pair, f"Bearer {TOKEN}")


def test_plain_connections_are_refused(mutual: Server) -> None:
    with pytest.raises(InferenceServerException, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
        over_grpc(mutual, np.zeros((1, 8, 16, 16), np.float32), None, token=f"Bearer {TOKEN}")
    connection = http.client.HTTPConnection("127.0.0.1", mutual.http_port or 0, timeout=20)
    connection.request("GET", "/v2/health/live")
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        connection.getresponse()
    connection.close()


@pytest.mark.parametrize(
    "token", [None, "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Basic {TOKEN}"]
)
def test_other_tokens_are_refused_by_name(mutual: Server, world: World, token: str | None) -> None:
    z = np.zeros((1, 8, 16, 16), np.float32)
    with pytest.raises(InferenceServerException, match=r"UNAUTHENTICATED.*Authorization: Bearer"):
        over_grpc(mutual, z, world.servers.path, world.device, token)
    status, said = over_http(mutual, world.servers.path, world.device, token)
    assert (status, "Authorization: Bearer" in said["error"]) == (401, True)


def test_clients_refuse_a_server_that_is_expired_or_of_another_authority(
    plain: Made, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours would not start with an expired certificate; one that runs since before does."""
    z = np.zeros((1, 8, 16, 16), np.float32)
    monkeypatch.setattr("splitveil.server.security.check_served", lambda terms, now: None)
    for pair, ca in ((world.expired_server, world.servers), (world.server, world.strangers)):
        tls = Tls(pair.certificate, pair.key)
        with started(lambda tls=tls: Server(plain.bundle, port=0, http_port=0, tls=tls)) as server:  # type: ignore[misc]
            with pytest.raises(InferenceServerException, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
                over_grpc(server, z, ca.path)
            with pytest.raises(ssl.SSLCertVerificationError):
                over_http(server, ca.path)


def test_certificates_are_renewed_without_a_restart_and_bad_ones_are_not_taken(
    plain: Made, world: World, tmp_path: Path
) -> None:
    chosen = Pair(tmp_path / "served.crt", tmp_path / "served.key")
    loops: list[asyncio.AbstractEventLoop] = []

    def use(certificate: Path, key: Path) -> None:
        shutil.copy(certificate, chosen.certificate)
        shutil.copy(key, chosen.key)

    def make_server() -> Server:
        loops.append(asyncio.get_running_loop())
        return Server(plain.bundle, port=0, http_port=0, tls=Tls(chosen.certificate, chosen.key))

    z = np.zeros((1, 8, 16, 16), np.float32)
    fresh = world.strangers.issue("renewed")
    use(world.server.certificate, world.server.key)
    with started(make_server) as server:

        def trusted_through(ca: Authority) -> None:
            assert over_http(server, ca.path)[0] == 200
            assert over_grpc(server, z, ca.path).shape == (1, 5)

        trusted_through(world.servers)
        for pair, shown in (
            ((fresh.certificate, world.server.key), world.servers),
            ((fresh.certificate, fresh.key), world.strangers),
        ):
            use(*pair)
            asyncio.run_coroutine_threadsafe(server.reload(), loops[0]).result(60)
            trusted_through(shown)


def test_probes_need_no_token_and_everything_else_does(plain: Made, world: World) -> None:
    tls, tokens = Tls(world.server.certificate, world.server.key), Tokens(world.token_file)
    methods = ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "RepositoryIndex", "ModelInfer")
    with started(lambda: Server(plain.bundle, port=0, http_port=0, tls=tls, tokens=tokens)) as server:
        for path, expected in (
            ("/v2/health/live", 200), ("/v2/health/ready", 200), ("/v2", 401), ("/v2/models/tiny", 401),
            ("/v2/models/tiny/ready", 401), ("/v2/models/tiny/config", 401), ("/v2/repository/index", 401), ("/", 401),
            ("/v2/health/live/..", 401), ("/v2/health/%6cive/", 401),
        ):  # fmt: skip
            assert over_http(server, world.servers.path, path=path)[0] == expected, path
        credentials = grpc.ssl_channel_credentials(world.servers.path.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
            for method in ("ServerLive", "ServerReady", *methods):
                ask = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
                content = getattr(service_pb2, f"{method}Request")().SerializeToString()
                if method in methods:
                    with pytest.raises(grpc.RpcError) as caught:
                        ask(content, timeout=20)
                    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
                else:
                    assert ask(content, timeout=20)


def test_a_token_never_reaches_a_log(plain: Made, world: World, caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    handler = log_as_json(stream)
    try:
        with (
            caplog.at_level(logging.DEBUG, "splitveil"),
            started(lambda: Server(plain.bundle, port=0, http_port=0, tokens=Tokens(world.token_file))) as server,
        ):
            for sent in (f"Bearer {TOKEN}", "Bearer a-wrong-secret-of-mine"):
                connection = http.client.HTTPConnection("127.0.0.1", server.http_port or 0, timeout=20)
                connection.request("POST", INFER, b"{", {"Authorization": sent})
                assert connection.getresponse().status in (400, 401)
                connection.close()
                with pytest.raises(InferenceServerException):
                    over_grpc(server, np.full((1, 8, 16, 16), np.nan, np.float32), None, token=sent)
    finally:
        logging.getLogger().removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    refused = [line for line in lines if line["message"].startswith("refused")]
    assert {(line["protocol"], line["reason"], line.get("rule")) for line in refused} == {
        ("http", "contract", "message"),
        ("http", "token", None),
        ("grpc", "contract", "values"),
        ("grpc", "token", None),
    }
    for secret in (TOKEN, OTHER, "a-wrong-secret-of-mine"):
        assert secret not in stream.getvalue() + caplog.text
    assert TOKEN not in repr(Tokens(world.token_file))


def test_tokens_are_read_anew_and_a_bad_file_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    for content, words in (
        ("", "no token"),
        ("# only\n", "no token"),
        ("short\n", "a short token"),
        ("tökén" * 5, "ASCII"),
    ):
        path.write_text(content, "utf-8")
        with pytest.raises(InputError, match=words):
            Tokens(path)
    with pytest.raises(InputError, match="cannot read"):
        Tokens(tmp_path / "none")
    path.write_text(TOKEN)
    tokens = Tokens(path)
    for content in ("short", "", "# none yet\n", f"{TOKEN}\x1b[2J"):
        path.write_text(TOKEN)
        tokens.reload()
        assert tokens.allow(f"Bearer {TOKEN}")
        path.write_text(content)
        with pytest.raises(InputError):
            tokens.reload()
        assert not tokens.allow(f"Bearer {TOKEN}"), content
    path.write_text(OTHER)
    tokens.reload()
    assert [tokens.allow(f"Bearer {t}") for t in (TOKEN, OTHER)] == [False, True]
    assert not tokens.allow("Bearer \udcff")


def test_files_that_make_no_tls_are_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no pem")
    pair, other = world.server, world.device
    for tls in (
        Tls(tmp_path / "text", pair.key),
        Tls(pair.certificate, pair.key, tmp_path / "text"),
    ):
        with pytest.raises(InputError, match="all PEM"):
            tls.context()
    both = tmp_path / "wrong-order.pem"
    both.write_bytes(world.servers.path.read_bytes() + pair.certificate.read_bytes())
    for certificate, key in ((pair.certificate, other.key), (both, pair.key)):
        with pytest.raises(InputError, match=f"is not the key of the first certificate in {certificate}"):
            Tls(certificate, key).context()
    with pytest.raises(InputError, match=r"cannot read .*none: No such file"):
        Certificates(Tls(tmp_path / "none", pair.key))


def test_only_loopback_may_go_without(world: World) -> None:
    tls, mutual = Tls(Path("c"), Path("k")), Tls(Path("c"), Path("k"), Path("ca"))
    tokens = Tokens(world.token_file)
    refuse_exposure("127.0.0.1", None, None, insecure=False)
    refuse_exposure("0.0.0.0", tls, tokens, insecure=False)
    refuse_exposure("0.0.0.0", mutual, None, insecure=False)
    refuse_exposure("0.0.0.0", None, None, insecure=True)
    for certificates, known, words in (
        (None, None, "--tls-cert and --tls-key and --token-file or --client-ca"),
        (tls, None, "give --token-file"),
        (None, tokens, "give --tls-cert"),
    ):
        with pytest.raises(InputError, match=words):
            refuse_exposure("0.0.0.0", certificates, known, insecure=False)


def test_loopback_is_told_from_the_world() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "[::1]", "localhost", "127.8.8.8")] == [True] * 5
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")] == [False] * 5
