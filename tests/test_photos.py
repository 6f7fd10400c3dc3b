"""A new user's way with own photos: a model file and a folder of JPEGs, from `fit` to `query`, in an empty folder."""

import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from splitveil.cli import app
from splitveil.device.encoding import Encoder
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import Bundle

MODEL = '''
"""A small net for small photos."""

from torch import nn


class Net(nn.Module):
    """Two convolutions, then a linear layer."""

    def __init__(self, channels, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.mean = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(256, classes)

    def forward(self, x):
        x = self.pool(self.relu1(self.conv1(x)))
        return self.head(self.mean(self.relu2(self.conv2(x))).flatten(1))


def net(shape, classes):
    return Net(shape[0], classes)
'''
CLASSES = ("lying", "standing", "leaning")
SIZE = (24, 16)
TRAIN, TEST = 20, 8


def photo(kind: int, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Stripes that lie, stand or lean, in a random colour."""
    width, height = size
    row, column = np.mgrid[0:height, 0:width] / min(size)
    wave = np.sin(2 * math.pi * 4 * (row, column, row + column)[kind] + rng.uniform(0, 6))
    colour = rng.uniform(60, 120, 3)
    pixels = 127 + wave[..., None] * colour + rng.normal(0, 8, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photos(root: Path) -> None:
    rng = np.random.default_rng(0)
    for part, many in (("train", TRAIN), ("test", TEST)):
        for kind, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for i in range(many):
                mark = Image.Exif()
                made = photo(kind, (int(rng.integers(40, 160)), int(rng.integers(40, 160))), rng)
                if i % 4 == 0:
                    mark[0x0112] = 6  # the camera was turned: the file holds the photo turned the other way
                    made = made.transpose(Image.Transpose.ROTATE_90)
                made = made.convert({1: "L", 2: "CMYK"}.get(i % 4, "RGB"))
                made.save(root / part / name / f"{i:02d}.jpg", exif=mark, quality=92)


def reference(path: Path) -> NDArray[np.uint8]:
    """What must enter the edge half, with Pillow alone: upright, RGB, the centre, antialiased. (3, H, W)."""
    with Image.open(path) as opened:
        turned = opened.getexif().get(0x0112) == 6
        picture = opened.convert("RGB")
    if turned:
        picture = picture.transpose(Image.Transpose.ROTATE_270)
    (width, height), (wide, high) = picture.size, SIZE
    across, down = (width, width * high / wide) if width / height <= wide / high else (height * wide / high, height)
    left, top = (width - across) / 2, (height - down) / 2
    small = picture.resize(SIZE, Image.Resampling.BILINEAR, box=(left, top, left + across, top + down))
    return np.asarray(small).transpose(2, 0, 1)


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


@contextmanager
def served(folder: str) -> Iterator[str]:
    """``splitveil serve`` in a process of its own; its address."""
    words = [sys.executable, "-m", "splitveil", "serve", folder, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_an_empty_folder_to_answers_about_the_original_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    write_photos(Path("photos"))
    data = "folder:photos?size={}x{}".format(*SIZE)
    entered: list[NDArray[Any]] = []
    encode = Encoder.encode

    def seen(self: Encoder, x: NDArray[np.float32]) -> NDArray[Any]:
        entered.append(x)
        return encode(self, x)

    monkeypatch.setattr(Encoder, "encode", seen)
    tests = sorted(Path("photos/test").rglob("*.jpg"))
    pixels = np.stack([reference(path) for path in tests])

    fitting = ["fit", "model.py:net", "--data", data, "--at", "relu1", "--epochs", "40", "--lr", "0.01", "--json"]
    plain = json.loads(run(*fitting, "--out", "plain", "--defense", "none", "--codec", "raw"))
    veiled = json.loads(run(*fitting, "--out", "veiled", "--defense", "veil"))
    assert plain["task_accuracy"] > 0.6
    run(
        "audit",
        "veiled",
        "--trust-model",
        "model.py",
        "--data",
        data,
        "--attack",
        "linear",
        "-n",
        "6",
        "--out",
        "audit",
        code=3,
    )
    assert json.loads(Path("audit/card.json").read_text())["private_n"] == 6
    shown = re.sub(r"\s+", " ", run("bundle", "show", "veiled"))
    assert "turned upright by EXIF" in shown
    assert "24 x 16" in shown

    told = {}
    for name in ("plain", "veiled"):
        with served(name) as address:
            told[name] = json.loads(run("query", name, "--to", address, "--input", "photos/test", "--json"))
        assert [answer["input"] for answer in told[name]["answers"]] == [str(path) for path in tests]
        np.testing.assert_array_equal(np.concatenate(entered[: len(tests)]), pixels.astype(np.float32) / 255)
        entered.clear()

    with torch.no_grad():
        own = restore(Bundle.load(Path("plain")), model="model.py:net")(torch.from_numpy(pixels).float() / 255).numpy()
    logits = np.array([answer["logits"] for answer in told["plain"]["answers"]])
    np.testing.assert_allclose(logits, own, atol=1e-4, rtol=1e-4)
    assert (logits.argmax(1) == own.argmax(1)).all()

    right = [answer["class"] == Path(answer["input"]).parent.name for answer in told["veiled"]["answers"]]
    low, high = veiled["tested"]["interval"]
    assert low <= np.mean(right) <= high
