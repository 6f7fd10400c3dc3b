"""Pretrained weights over a network: a server of our own in the place of the hub, and none at all."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from splitveil.core.errors import WeightsError
from splitveil.lab.models import hub
from splitveil.lab.models.loader import load_model
from splitveil.lab.vision import timm, torchvision

NET = "timm:test_resnet"
PRINT = f"""
import sys
from splitveil.core.errors import SplitVeilError
from splitveil.lab.models.loader import load_model
try:
    loaded = load_model({NET!r}, shape=None, classes=None, weights="pretrained")
except SplitVeilError as error:
    sys.exit(str(error))
print(loaded.weights, float(loaded.model.get_parameter("fc.weight").double().sum()))
"""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[str]:
    """A hub that has these files, by the end of their addresses."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            found = next((data for name, data in files.items() if self.path.endswith(name)), None)
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Length", str(len(found or b"")))
            self.send_header("ETag", '"0123456789abcdef"')
            self.send_header("X-Repo-Commit", "a" * 40)
            self.end_headers()
            if body and found is not None:
                self.wfile.write(found)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def asked(home: Path, endpoint: str) -> "subprocess.CompletedProcess[str]":
    """Pretrained weights asked for in a process of its own, as the hub's client reads its address when imported."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", PRINT]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)


def test_timm_weights_come_from_the_hub_and_then_from_its_cache(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = timm().create_model("test_resnet")
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    expected = f"pretrained {float(net.fc.weight.detach().double().sum())}"
    with serving({"/model.safetensors": (tmp_path / "w.safetensors").read_bytes()}) as endpoint:
        done = asked(tmp_path, endpoint)
        assert done.stdout.strip() == expected, done.stderr
    again = asked(tmp_path, endpoint)
    assert again.stdout.strip() == expected, again.stderr


def test_a_hub_that_cannot_be_reached_is_said_at_once(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = asked(tmp_path, "http://127.0.0.1:9")
    assert time.monotonic() - begun < 20
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith(f"cannot download pretrained weights of {NET}: 127.0.0.1 cannot be reached ([Errno 111]")
    assert said.endswith("; connect this machine to it, or load them where it can be and give the file.")


def test_torchvision_weights_come_from_their_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    models = torchvision().models
    torch.manual_seed(3)
    net = models.squeezenet1_1()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    weights = models.SqueezeNet1_1_Weights.DEFAULT.value
    with serving({"/squeeze.pth": (tmp_path / "w.pth").read_bytes()}) as address:
        monkeypatch.setattr(weights.__class__, "url", property(lambda _: f"{address}/squeeze.pth"), raising=False)
        loaded = load_model("torchvision:squeezenet1_1", shape=(3, 64, 64), classes=None, weights="pretrained")
    assert torch.equal(loaded.model.get_parameter("classifier.1.weight"), net.classifier[1].weight)


def test_names_that_do_not_resolve() -> None:
    with pytest.raises(WeightsError, match=r"of torchvision:x: nowhere.invalid cannot be reached \(.*\); connect"):
        hub.check_reachable("https://nowhere.invalid/file.pth", "torchvision:x")
