"""Certificates in time: refused outside of it, at the start and at a reload, and a word before they end."""

import asyncio
import datetime
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from splitveil.core.errors import InputError
from splitveil.server.security import Certificates, Tls
from splitveil.server.server import Server
from splitveil.server.validity import AHEAD, Term, read_terms

from .conftest import Made, started
from .test_metrics import scraped
from .test_tls import DAY, NOW, Authority, Pair

HOUR = datetime.timedelta(hours=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("keys"), "servers", NOW + 300 * DAY)


@pytest.fixture(scope="module")
def good(authority: Authority) -> Pair:
    return authority.issue("good", NOW + 200 * DAY)


def chain(authority: Authority, name: str, until: datetime.datetime) -> Pair:
    """A server's certificate with that of an authority between, which ends then."""
    between = Authority(authority.folder, f"between-{name}", until)
    pair = between.issue(name, NOW + 200 * DAY)
    with pair.certificate.open("ab") as file:
        file.write(between.path.read_bytes())
    return pair


def test_what_does_not_hold_now_is_refused_with_the_reason(authority: Authority, good: Pair) -> None:
    old, early = authority.issue("old", NOW - DAY), authority.issue("early", NOW + 9 * DAY, NOW + 5 * DAY)
    over = Authority(authority.folder, "over", NOW - HOUR)
    cases = [
        (Tls(old.certificate, old.key), f"CN=old in {old.certificate} expired on "),
        (Tls(early.certificate, early.key), "CN=early .* is not valid before "),
        (Tls(*vars_of(chain(authority, "lapsed", NOW - HOUR))), "CN=between-lapsed .* expired on "),
        (Tls(good.certificate, good.key, over.path), "no authority in .* is valid .*CN=over expired on "),
    ]
    for tls, words in cases:
        with pytest.raises(InputError, match=words):
            tls.context()
    both = authority.folder / "both.pem"
    both.write_bytes(over.path.read_bytes() + authority.path.read_bytes())
    assert Tls(good.certificate, good.key, both).context(), "the other authority still lets clients in"
    assert Tls(*vars_of(chain(authority, "whole", NOW + DAY))).context()


def vars_of(pair: Pair) -> tuple[Path, Path]:
    return pair.certificate, pair.key


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(InputError, match="holds something else than certificates"):
        read_terms(tmp_path / "x.pem")


def test_the_last_moment_and_the_fourteen_days_are_exact() -> None:
    term = Term(Path("s.pem"), "CN=s", NOW, NOW + 100 * DAY)
    assert term.wrong(term.until) == term.wrong(term.since) == ""
    assert term.wrong(term.until + HOUR).startswith("expired on ")
    assert term.wrong(term.since - HOUR).startswith("is not valid before ")
    assert term.reminder(term.until - AHEAD - HOUR) == ""
    assert "expires in 13.9 days" in term.reminder(term.until - AHEAD + 2 * HOUR)
    assert "renew it now" in term.reminder(term.until + HOUR)


def test_the_log_says_it_once_a_day(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    pair, moment = authority.issue("soon", NOW + 10 * DAY), [NOW]
    devices = Authority(authority.folder, "devices", NOW + 3 * DAY)
    held = Certificates(Tls(pair.certificate, pair.key, devices.path), lambda: moment[0])
    for _ in range(3):
        held.remind()
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]
    assert f"the certificate of CN=soon in {pair.certificate} expires in 10.0 days" in caplog.messages[0]
    assert "CN=devices" in caplog.messages[1]
    assert held.seconds_left() == pytest.approx({"server": 10 * 86400, "client_ca": 3 * 86400}, abs=2)
    caplog.clear()
    moment[0] += 4 * DAY
    held.remind()
    assert "expires in 6.0 days" in caplog.messages[0]
    assert "renew it now" in caplog.messages[1]
    assert held.seconds_left()["client_ca"] < 0


def test_a_reload_takes_no_expired_one_and_the_gauge_follows(
    plain: Made, authority: Authority, good: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = Pair(tmp_path / "served.crt", tmp_path / "served.key")
    loops: list[asyncio.AbstractEventLoop] = []

    def use(pair: Pair) -> None:
        shutil.copy(pair.certificate, served.certificate)
        shutil.copy(pair.key, served.key)

    def make_server() -> Server:
        loops.append(asyncio.get_running_loop())
        return Server(plain.bundle, port=0, metrics_port=0, tls=Tls(served.certificate, served.key))

    def left(server: Server) -> float:
        return scraped(server)["splitveil_certificate_expiry_seconds", frozenset({"server"})] / 86400

    use(good)
    with started(make_server) as server:
        assert left(server) == pytest.approx(200, abs=0.1)
        assert not caplog.records
        use(authority.issue("late", NOW - DAY))
        asyncio.run_coroutine_threadsafe(server.reload(), loops[0]).result(60)
        assert "that were read before stay" in caplog.text
        assert "expired on" in caplog.text
        assert left(server) == pytest.approx(200, abs=0.1)
        caplog.clear()
        use(authority.issue("next", NOW + 5 * DAY))
        with caplog.at_level(logging.WARNING):
            asyncio.run_coroutine_threadsafe(server.reload(), loops[0]).result(60)
        assert "CN=next" in caplog.text
        assert left(server) == pytest.approx(5, abs=0.1)


def test_the_command_refuses_an_expired_certificate(plain: Made, authority: Authority) -> None:
    old = authority.issue("yesterday", NOW - DAY)
    words = ["serve", plain.bundle.folder, "--port", "0", "--tls-cert", old.certificate, "--tls-key", old.key]
    done = subprocess.run(
        [sys.executable, "-m", "splitveil", *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the certificate of CN=yesterday in ")
    assert done.stderr.count("\n") == 1
