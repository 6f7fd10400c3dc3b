"""``splitveil serve`` as an operator types it."""

import importlib.util
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from splitveil.cli.serve import run as serve
from splitveil.core.errors import InputError
from splitveil.lab.cut import halves
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.export import save
from splitveil.wire.bundle import Bundle
from splitveil.wire.codecs.raw import Raw

from .conftest import Command

SHAPE = (3, 16, 12)
TOKEN = "a-token-of-this-test-7f3a"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    edge = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
    split = halves(edge, nn.Sequential(nn.Flatten(), nn.Linear(4 * 8 * 6, 3)), torch.rand(8, *SHAPE))
    return save(
        Protected(split, Undefended(), Raw()), tmp_path_factory.mktemp("b") / "pets", name="pets",
        model_spec="by hand", image_shape=SHAPE, classes=["cat", "dog", "fox"],
    )  # fmt: skip


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(serve)
    return made


@pytest.fixture
def server(bundle: Bundle, splitveil: Command) -> "Iterator[subprocess.Popen[str]]":
    """All there is on one command line."""
    (splitveil.folder / "tokens").write_text(TOKEN)
    process = splitveil.start(
        "serve", bundle.folder, "--grpc-port", "0", "--http-port", "0", "--metrics-port", "0", "--token-file",
        "tokens", "--log-json", "--json", "--max-batch", "4", "--max-queue", "16", "--threads", "1",
        "--max-payload", "100000", "--max-connections", "8",
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_it_says_where_and_serves_until_it_is_told_to_stop(
    server: "subprocess.Popen[str]", bundle: Bundle, splitveil: Command
) -> None:
    assert server.stdout is not None
    where = json.loads(server.stdout.readline())
    assert where["contract"] == bundle.manifest.contract
    assert (where["tls"], where["tokens"], where["host"]) == (False, True, "127.0.0.1")
    base = f"http://127.0.0.1:{where['http_port']}/v2"
    with urllib.request.urlopen(f"{base}/health/ready", timeout=20) as answer:
        assert answer.status == 200
    with pytest.raises(HTTPError, match="401"):
        urllib.request.urlopen(base, timeout=20)
    config = urllib.request.Request(f"{base}/models/pets/config", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(config, timeout=20) as answer:
        assert json.load(answer)["max_batch_size"] == 4
    with urllib.request.urlopen(f"http://127.0.0.1:{where['metrics_port']}/metrics", timeout=20) as answer:
        assert bundle.manifest.contract in answer.read().decode()
    second = splitveil("serve", bundle.folder, "--port", str(where["grpc_port"]))
    assert (second.code, "choose another --grpc-port" in second.err) == (1, True)
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait(20) == 0
    assert server.stderr is not None
    log = [json.loads(line) for line in server.stderr.read().splitlines() if line.startswith("{")]
    assert [(line["message"].partition(":")[0], line.get("reason")) for line in log] == [
        ("refused", "token"),
        ("draining", None),
    ]


def test_a_policy_that_the_bundle_does_not_keep_is_exit_code_3(bundle: Bundle, splitveil: Command) -> None:
    (splitveil.folder / "policy.toml").write_text("[max]\nssim = 0.3\n")
    done = splitveil("serve", bundle.folder, "--port", "0", "--privacy-policy", "policy.toml")
    assert done.code == 3
    assert "no leakage card, which the privacy policy asks for" in done.err


def test_the_world_is_refused_without_credentials(app: typer.Typer, bundle: Bundle) -> None:
    for words, told in (
        (["--host", "0.0.0.0"], "give --tls-cert and --tls-key and --token-file or --client-ca"),
        (["--tls-cert", "c.pem"], "--tls-cert and --tls-key together"),
        (["--client-ca", "c.pem"], "--tls-cert and --tls-key together"),
        (["--token-file", "none"], "cannot read none"),
        (["--port", "70000"], "0 to 65535"),
        (["--tls-cert", "none", "--tls-key", "none"], "cannot read none"),
    ):
        with pytest.raises(InputError, match=told):
            CliRunner().invoke(app, [str(bundle.folder), *words], catch_exceptions=False)


def test_insecure_forces_it(app: typer.Typer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: list[str] = []
    monkeypatch.setattr(
        "splitveil.server.lifecycle.run_until_told", lambda server, ready, watch: hosts.append(server.host)
    )
    monkeypatch.setattr("splitveil.server.journal.log_as_text", lambda: None)
    words = [str(bundle.folder), "--host", "0.0.0.0", "--insecure"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert hosts == ["0.0.0.0"]


def test_ray_is_told_what_it_knows_and_nothing_else(
    app: typer.Typer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[dict[str, object]] = []
    monkeypatch.setattr(
        "splitveil.server.ray_app.serve_on_ray", lambda folder, **words: told.append({"folder": folder, **words})
    )
    (tmp_path / "tokens").write_text(TOKEN)
    words = ["--ray", "--replicas", "2", "--max-batch", "8", "--http-port", "8100", "--token-file"]
    for more in ([], ["--replicas", "1"]):
        given = [str(bundle.folder), *words, str(tmp_path / "tokens"), *more]
        assert CliRunner().invoke(app, given, catch_exceptions=False).exit_code == 0
    assert [{**one, "replicas": 0} for one in told] == 2 * [
        {
            "folder": bundle.folder, "host": "127.0.0.1", "port": 8100, "replicas": 0, "max_batch": 8,
            "token_file": tmp_path / "tokens",
        }
    ]  # fmt: skip
    assert [one["replicas"] for one in told] == [2, 1]
    for refused, sentence in (
        (["--ray", "--json", "--threads", "2"], "--threads, --json beside --ray"),
        (["--ray", "--host", "0.0.0.0"], "can be reached from outside"),
        (["--replicas", "2"], "--replicas without --ray"),
    ):
        with pytest.raises(InputError, match=sentence):
            CliRunner().invoke(app, [str(bundle.folder), *refused], catch_exceptions=False)
    assert len(told) == 2


def test_without_ray_the_extra_is_named(bundle: Bundle, splitveil: Command) -> None:
    if importlib.util.find_spec("fastapi") is not None:
        pytest.skip("Ray is installed here")
    done = splitveil("serve", bundle.folder, "--ray")
    assert (done.code, done.err) == (1, "error: Ray Serve is not installed; pip install 'splitveil[ray]'.\n")
