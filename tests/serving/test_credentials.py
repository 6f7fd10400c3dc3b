"""Credentials fail closed: the file is the truth, each server has its own name, and what has ended lets nobody in."""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitveil.cli.query import _first_line
from splitveil.core.errors import BundleError, InputError, LinkError
from splitveil.device import Edge
from splitveil.device.client_tls import ClientTls
from splitveil.device.retry import Retry
from splitveil.server.security import Certificates, Tls, Tokens
from splitveil.server.server import Server
from splitveil.wire.bundle import Bundle, make_keys, sign
from splitveil.wire.credentials import MOST, read_credential

from .conftest import Made, started
from .scripted import Scripted, scripted
from .test_edge import local
from .test_tls import DAY, NOW, Pair, World, made_world, over_grpc, over_http

TOKEN = "a-token-of-this-test-7f3a"
QUICK = Retry(attempts=2, first=0.01, longest=0.02)
Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made_world(tmp_path_factory.mktemp("tls"))


def spoil_text(path: Path) -> None:
    path.write_text("short")


def spoil_away(path: Path) -> None:
    path.unlink()


def spoil_mode(path: Path) -> None:
    path.chmod(0o666)


def spoil_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def spoil_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def spoil_zero(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def spoil_size(path: Path) -> None:
    path.write_bytes(b"#" * (MOST + 1))


SPOILED = [spoil_text, spoil_away, spoil_mode, spoil_pipe, spoil_folder, spoil_zero, spoil_size]


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_token_file_that_cannot_be_trusted_lets_nobody_in(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    tokens = Tokens(path)
    assert tokens.allow(f"Bearer {TOKEN}")
    spoil(path)
    with pytest.raises(InputError) as caught:
        tokens.reload()
    assert str(path) in str(caught.value)
    assert not tokens.allow(f"Bearer {TOKEN}")
    with pytest.raises(InputError):
        Tokens(path)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    content=st.binary(max_size=120)
    | st.text(max_size=60).map(str.encode)
    | st.lists(st.sampled_from([TOKEN, "short", "# x", "", "\x85", "\t" + TOKEN, TOKEN + "\x1c" + TOKEN])).map(
        lambda lines: "\n".join(lines).encode()
    )
)
def test_any_bytes_are_tokens_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-tokens"
    path.write_bytes(content)
    try:
        tokens = Tokens(path)
    except InputError:
        return
    lines = [line.strip() for line in content.decode("ascii").split("\n")]
    for line in filter(None, lines):
        assert tokens.allow(f"Bearer {line}") != line.startswith("#")


@pytest.mark.parametrize("which", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("spoil", SPOILED)
def test_files_of_tls_are_held_to_the_same(
    world: World, tmp_path: Path, which: str, spoil: Callable[[Path], None]
) -> None:
    files = {
        name: tmp_path / name
        for name, found in (
            ("certificate", world.server.certificate), ("key", world.server.key), ("client_ca", world.devices.path),
        )
        if shutil.copy(found, tmp_path / name)
    }  # fmt: skip
    held = Certificates(Tls(**files))
    before = held.lapsed
    spoil(files[which])
    with pytest.raises(InputError):
        held.reload()
    assert (before, held.lapsed) == (False, True), "nobody is let in while nobody knows whom to trust"
    with pytest.raises(InputError):
        Certificates(Tls(**files))


def test_links_and_modes_of_mounted_secrets_are_taken(tmp_path: Path) -> None:
    """As Kubernetes mounts them: name -> ..data/name -> ..2026/name, readable by a group."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "tokens").write_text(TOKEN)
    (tmp_path / "..2026" / "tokens").chmod(0o440)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    assert read_credential(tmp_path / "tokens", "--token-file") == TOKEN.encode()
    assert Tokens(tmp_path / "tokens").allow(f"Bearer {TOKEN}")
    (tmp_path / "..2026" / "tokens").chmod(0o666)
    for read in (lambda: Tokens(tmp_path / "tokens"), lambda: _first_line(tmp_path / "tokens")):
        with pytest.raises(InputError, match="everybody may write"):
            read()


@contextmanager
def reloading(make_server: Callable[[], Server]) -> Iterator[tuple[Server, Callable[[], None]]]:
    loops: list[asyncio.AbstractEventLoop] = []

    def made() -> Server:
        loops.append(asyncio.get_running_loop())
        return make_server()

    with started(made) as server:

        def reload() -> None:
            asyncio.run_coroutine_threadsafe(server.reload(), loops[0]).result(60)

        yield server, reload


def test_a_server_whose_tokens_are_gone_refuses_all_and_says_so(
    plain: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    z = np.zeros((1, 8, 16, 16), np.float32)
    with reloading(lambda: Server(plain.bundle, port=0, tokens=Tokens(path))) as (server, reload):
        assert over_grpc(server, z, None, token=f"Bearer {TOKEN}").shape == (1, 5)
        path.write_text("")
        reload()
        assert "nobody is let in until it is mended" in caplog.text
        with pytest.raises(Exception, match="UNAUTHENTICATED"):
            over_grpc(server, z, None, token=f"Bearer {TOKEN}")
        path.write_text(TOKEN)
        reload()
        assert over_grpc(server, z, None, token=f"Bearer {TOKEN}").shape == (1, 5)


def test_an_authority_that_is_dropped_lets_nobody_in_over_either_protocol(
    plain: Made, world: World, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.pem"
    shutil.copy(world.devices.path, authority)
    tls, z = Tls(world.server.certificate, world.server.key, authority), np.zeros((1, 8, 16, 16), np.float32)
    with reloading(lambda: Server(plain.bundle, port=0, http_port=0, tls=tls)) as (server, reload):
        assert over_http(server, world.servers.path, world.device)[0] == 200
        assert over_grpc(server, z, world.servers.path, world.device).shape == (1, 5)
        shutil.copy(world.strangers.path, authority)
        reload()
        assert over_http(server, world.servers.path, world.stranger)[0] == 200
        assert over_grpc(server, z, world.servers.path, world.stranger).shape == (1, 5)
        with pytest.raises(OSError):  # noqa: PT011
            over_http(server, world.servers.path, world.device)
        with pytest.raises(Exception, match=r"UNAVAILABLE|DEADLINE"):
            over_grpc(server, z, world.servers.path, world.device)
        authority.write_text("nothing")
        reload()
        assert over_http(server, world.servers.path, world.stranger)[0] == 503
        assert over_http(server, world.servers.path, world.stranger, path="/v2/health/ready")[0] == 503
        assert over_http(server, world.servers.path, world.stranger, path="/v2/health/live")[0] == 200


def test_a_certificate_that_ends_while_it_is_served_ends_the_service(plain: Made, world: World) -> None:
    moment = [NOW]
    tls = Tls(world.server.certificate, world.server.key)
    with started(lambda: Server(plain.bundle, port=0, http_port=0, tls=tls)) as server:
        assert server._certificates is not None
        server._certificates._clock = lambda: moment[0]
        assert over_http(server, world.servers.path)[0] == 200
        moment[0] = NOW + 2 * DAY
        status, said = over_http(server, world.servers.path)
        assert (status, "does not hold now" in said["error"]) == (503, True)
        with pytest.raises(Exception, match="does not hold now"):
            over_grpc(server, np.zeros((1, 8, 16, 16), np.float32), world.servers.path)
        assert over_http(server, world.servers.path, path="/v2/health/ready")[0] == 503


def credentials(pair: Pair) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.certificate.read_bytes())])


def test_each_of_several_servers_is_held_to_its_own_name(plain: Made, world: World, images: Array) -> None:
    one = world.servers.issue("one", of=("localhost",))
    two = world.servers.issue("two", of=("127.0.0.1",))
    tls, x = ClientTls(world.servers.path), images[:2]
    first, second = Scripted(plain.bundle), Scripted(plain.bundle)
    with scripted(second, credentials(two)) as port2:
        with scripted(first, credentials(one)) as port1:
            edge = Edge(plain.bundle, [f"localhost:{port1}", f"127.0.0.1:{port2}"], tls=tls, retries=QUICK)
            for _ in range(4):
                np.testing.assert_allclose(edge.ask(x), local(plain, x), rtol=1e-4, atol=1e-4)
            assert (len(first.asked), len(second.asked)) == (2, 2)

            async def both() -> None:
                async with edge:
                    for _ in range(2):
                        await edge.ask_async(x)

            asyncio.run(both())
            assert (len(first.asked), len(second.asked)) == (3, 3)
        with Edge(plain.bundle, [f"localhost:{port1}", f"127.0.0.1:{port2}"], tls=tls, retries=QUICK) as edge:
            for _ in range(3):
                assert edge.ask(x).shape == (2, 5)
            assert len(second.asked) == 6, "the one that is there answers for the other"


def test_one_servers_certificate_is_none_at_anothers_address(plain: Made, world: World, images: Array) -> None:
    one = world.servers.issue("only-one", of=("localhost",))
    tls = ClientTls(world.servers.path)
    wrong = Scripted(plain.bundle)
    with scripted(wrong, credentials(one)) as port, pytest.raises(LinkError):
        Edge(plain.bundle, ["localhost:1", f"127.0.0.1:{port}"], tls=tls, retries=QUICK, timeout=2)
    assert wrong.asked == []
    named = ClientTls(world.servers.path, name="localhost")
    with (
        scripted(wrong, credentials(one)) as port,
        Edge(plain.bundle, ["localhost:1", f"127.0.0.1:{port}"], tls=named, retries=QUICK) as edge,
    ):
        assert edge.ask(images[:1]).shape == (1, 5)


def test_several_servers_of_which_none_is_there_are_waited_for(plain: Made, world: World, images: Array) -> None:
    two = world.servers.issue("back", of=("127.0.0.1",))
    tls = ClientTls(world.servers.path)
    with scripted(Scripted(plain.bundle), credentials(two)) as port:
        edge = Edge(plain.bundle, ["localhost:1", f"127.0.0.1:{port}"], tls=tls, retries=QUICK)
    with edge:
        found: list[Array] = []
        asking = threading.Thread(target=lambda: found.append(edge.ask(images[:1])))
        asking.start()
        with scripted(Scripted(plain.bundle), credentials(two), port):
            asking.join(20)
    assert found[0].shape == (1, 5)


def test_a_device_can_demand_a_signature(plain: Made, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(plain.bundle.folder, folder)
    key, public = make_keys(tmp_path / "ours")
    _, foreign = make_keys(tmp_path / "theirs")
    with scripted(Scripted(plain.bundle)) as port:
        at = f"127.0.0.1:{port}"
        with pytest.raises(BundleError, match="not signed"):
            Edge(Bundle.load(folder), at, signed_by=public)
        sign(Bundle.load(folder), key)
        with pytest.raises(BundleError, match="signed by key"):
            Edge(Bundle.load(folder), at, signed_by=foreign)
        with Edge(Bundle.load(folder), at, signed_by=public) as edge:
            assert edge.max_batch == 64
