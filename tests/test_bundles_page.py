"""docs/bundles.md runs, from its first command to its last."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from splitveil.cli import app
from splitveil.wire.bundle import MANIFEST, SIGNATURE, Bundle

PAGE = (Path(__file__).parents[1] / "docs" / "bundles.md").read_text()
COMMANDS = re.findall(r"^    splitveil (.*)$", PAGE, re.MULTILINE)


def test_every_command_runs_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = {}
    for line in COMMANDS:
        done = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"
        said[line] = done.output
    assert len(said) >= 12
    whole, device, server, integer = (Bundle.load(Path(name)) for name in ("digits", "device", "server", "digits-int8"))
    assert whole.manifest.contract == device.manifest.contract == server.manifest.contract != integer.manifest.contract
    assert (Path("digits") / SIGNATURE).is_file()
    assert {path.name for path in Path("models/digits").iterdir()} == {"config.pbtxt", "1"}
    assert Path("service.yaml").read_text().startswith("apiVersion: serving.kserve.io/v1beta1")
    [told] = [text for line, text in said.items() if "quantize" in line]
    found = integer.manifest.quantization
    assert found is not None
    for figure in (f"{found.accuracy_after:.2%}", f"{found.bytes_after:,}", f"{found.latency_after.p95 * 1e3:.3f} ms"):
        assert figure in told
    # A change after signing is told by the same command that told that all was well.
    manifest = Path("digits") / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"task_accuracy": 1.0}))
    [command] = [line for line in COMMANDS if "verify" in line and "--key" in line]
    done = CliRunner().invoke(app, shlex.split(command))
    assert (done.exit_code, "is not of its manifest.json" in done.output) == (1, True)


def test_every_file_of_a_bundle_is_in_the_table() -> None:
    for name in ("manifest.json", "manifest.sig", "card.json", "edge.onnx", "cloud.onnx", "golden.safetensors"):
        assert f"| `{name}`" in PAGE
