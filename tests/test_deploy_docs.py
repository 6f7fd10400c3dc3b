"""docs/deploy.md runs from its first block to its last, or says in place why a block does not."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from splitveil.cli import app
from splitveil.core.errors import SplitVeilError
from splitveil.server.policy import PrivacyPolicy

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "deploy.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ADDRESS = "192.0.2.10"
PORTS = ("8000", "8001", "8443", "9090")
SIGNALS = {"sudo systemctl reload splitveil": signal.SIGHUP, "sudo systemctl stop splitveil": signal.SIGTERM}
SLOW_AUDIT, QUICK_AUDIT = "--suite smoke -n 100", "--attack linear -n 100 --samples 0"
PATIENCE = 60


class Block(NamedTuple):
    """A fenced block: its language, the file it is or "", its text, why it is not run, what it needs, its heading."""

    language: str
    file: str
    text: str
    not_run: str
    needs: str
    heading: str


def blocks() -> Iterator[Block]:
    heading = not_run = needs = ""
    for found in re.finditer(
        r"^## ([^\n]*)$|^<!-- ([^\n]*) -->$|^```(\w+) ?(\S*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    ):
        title, comment, language, file, text = found.groups()
        if title:
            heading = title
        elif comment:
            not_run = comment.removeprefix("not run: ") if comment.startswith("not run: ") else ""
            needs = comment.removeprefix("run where there is: ") if comment.startswith("run where") else ""
        else:
            yield Block(language, file, text, not_run, needs, heading)
            not_run = needs = ""


BLOCKS = list(blocks())


class Walk:
    """Runs lines in a folder as a reader would; `serve` in a terminal of its own, until the next one or the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.said = folder, folder / "serve.log", dict[str, str]()
        self.server: subprocess.Popen[str] | None = None
        taken = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
        self.ports = dict(zip(PORTS, (str(s.getsockname()[1]) for s in taken), strict=True))
        for one in taken:
            one.close()

    def here(self, text: str) -> str:
        """With this machine's address and free ports."""
        text = text.replace(ADDRESS, "127.0.0.1").replace(SLOW_AUDIT, QUICK_AUDIT)
        return re.sub(r"(?<=[: ])(8000|8001|8443|9090)\b", lambda found: self.ports[found[0]], text)

    def run(self, line: str) -> None:
        """One line; ``# exit N`` at its end says how it ends."""
        command, _, ends = line.partition("  # exit ")
        expected = int(ends or 0)
        words = shlex.split(self.here(command))
        if command in SIGNALS:
            self.tell(SIGNALS[command])
        elif words[:2] == ["splitveil", "serve"] and not expected:
            self.serve(words[2:])
        elif words[0] == "splitveil":
            done = CliRunner().invoke(app, self.served_at_a_free_port(words[1:]))
            code = done.exception.exit_code if isinstance(done.exception, SplitVeilError) else done.exit_code
            self.said[line] = f"{done.output}{done.exception or ''}"
            assert code == expected, f"{line}\n{self.said[line]}\n{self.log.read_text() if self.log.exists() else ''}"
        else:
            shell = subprocess.run(
                ["bash", "-c", self.here(command)], cwd=self.folder, capture_output=True, text=True, check=False
            )
            self.said[line] = shell.stdout + shell.stderr
            assert shell.returncode == expected, f"{line}\n{self.said[line]}"

    def served_at_a_free_port(self, words: list[str]) -> list[str]:
        return [*words, "--grpc-port", self.ports["8001"]] if words[0] == "serve" else words

    def serve(self, words: list[str]) -> None:
        self.stop()
        words = self.served_at_a_free_port(["serve", *words])
        with self.log.open("w") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "splitveil", *words],
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.server.stdout is not None
        assert self.server.stdout.readline().startswith("serving "), self.log.read_text()

    def tell(self, number: signal.Signals) -> None:
        """Send the signal that systemd would, and wait for what comes of it."""
        assert self.server is not None
        if number is signal.SIGTERM:
            self.stop()
            return
        os.kill(self.server.pid, number)
        until = time.monotonic() + PATIENCE
        while "serving contract" not in self.log.read_text():
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server as an operator does: it drains and ends with 0."""
        if self.server is None:
            return
        process, self.server = self.server, None
        process.terminate()
        try:
            assert process.wait(PATIENCE) == 0, self.log.read_text()
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").parent.mkdir(exist_ok=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(tmp_path / "photo.png")
    made = Walk(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def healthy(walk: Walk) -> bool:
    """What the image's health check says of the server."""
    [command] = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    words = [re.sub(r"\b9090\b", walk.ports["9090"], word) for word in json.loads(command)]
    return subprocess.run([sys.executable, *words[1:]], capture_output=True, check=False).returncode == 0


def there(needed: str) -> bool:
    if needed == "nginx" and os.geteuid() != 0:
        return False  # Debian's keeps temporary files where only root may write
    return not needed or shutil.which(needed) is not None


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("curl")), reason="the page uses openssl and curl")
@pytest.mark.timeout(600)
def test_every_block_runs_in_its_order(walk: Walk) -> None:
    heading = ""
    for block in BLOCKS:
        if block.heading != heading:
            walk.stop()
            heading = block.heading
        if block.file:
            (walk.folder / block.file).write_text(walk.here(block.text))
        if block.language == "sh" and not block.not_run and there(block.needs):
            for line in block.text.splitlines():
                walk.run(line)
                if "/metrics" in line:
                    assert healthy(walk)
    walk.stop()
    assert not healthy(walk)
    told = "".join(text for line, text in walk.said.items() if line.startswith("curl") and "9090/metrics" in line)
    assert re.findall(r"`(splitveil_\w+)`", PAGE)
    for series in re.findall(r"`(splitveil_\w+)`", PAGE):
        assert series in told, series
    contracts = {json.loads(path.read_text())["contract"] for path in walk.folder.glob("**/device/manifest.json")}
    assert len(contracts) == 2, "the change of bundles changed nothing"
    assert 'splitveil_requests_total{protocol="grpc",status="ok"} 2.0' in told, "both devices were answered"
    assert any(c in told for c in contracts)
    refusals = [walk.said[line] for line in walk.said if "# exit" in line]
    for part in ("can be reached from outside", "no answer from", "refuses this device", "expected standard-1"):
        assert any(part in said for said in refusals), part


def test_what_is_not_run_says_why() -> None:
    for block in BLOCKS:
        if block.language == "sh":
            assert not block.not_run or len(block.not_run.split()) > 3, block.text
            assert block.needs in ("", "nginx"), block.text
        else:
            assert block.file, block.text
    assert sum(block.language == "sh" and not block.not_run and not block.needs for block in BLOCKS) >= 10


def test_files_are_what_their_readers_take(tmp_path: Path) -> None:
    files = {block.file: block.text for block in BLOCKS if block.file}
    assert set(files) == {"splitveil.service", "nginx.conf", "policy.toml", "prometheus.yml"}
    (tmp_path / "policy.toml").write_text(files["policy.toml"])
    assert PrivacyPolicy.read(tmp_path / "policy.toml").max["ssim"] == 0.5
    [job] = yaml.safe_load(files["prometheus.yml"])["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9090"]}]
    [command] = re.findall(r"^ExecStart=\S+/splitveil (.*)$", files["splitveil.service"], re.MULTILINE)
    check_words(shlex.split(command))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    [unit] = [block.text for block in BLOCKS if block.file == "splitveil.service"]
    (tmp_path / "splitveil.service").write_text(unit.replace("/opt/splitveil/bin/splitveil", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "splitveil.service"], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stderr.splitlines() if "splitveil.service" in line]
    assert (done.returncode, told) == (0, []), done.stderr


def test_each_sentence_of_the_table_is_in_the_code() -> None:
    table = PAGE.partition("| it says |")[2].partition("\n## ")[0]
    sentences = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(sentences) >= 12
    said = [
        node.value
        for path in (ROOT / "src" / "splitveil").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    for sentence in sentences:
        assert any(sentence in text for text in said), sentence


def test_links_point_to_files() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_the_image_runs_what_the_package_has() -> None:
    words = {
        name: json.loads(found) for name, found in re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", DOCKERFILE, re.MULTILINE)
    }
    check_words(words["CMD"])
    assert Path(words["ENTRYPOINT"][0]).name == "splitveil"
    assert "--metrics-port 9090" in " ".join(words["CMD"]), "the health check reads them"
    for source in re.findall(r"^COPY ((?!--).*) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split()), source
    [user] = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    assert f"USER = {user}\n" in (ROOT / "src/splitveil/lab/export/kserve.py").read_text()


def check_words(words: list[str]) -> None:
    """Whether ``splitveil`` has this command with these options."""
    group = typer.main.get_command(app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    unknown = [word for word in words if word.startswith("--") and word not in known]
    assert not unknown
