"""Protect a split, write it as a bundle, serve its cloud half as a process of its own, and ask it as a device does."""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import splitveil as sv
from splitveil.lab.export import save

data = sv.load_data("digits")
model = sv.load_model("small", shape=data.shape, classes=10, weights=None).model
halves = sv.split(model, "relu3", torch.zeros(2, *data.shape))
protected, history = sv.protect(halves, "noise:sigma=0.5", "uniform:bits=8", data, epochs=8)
print(f"{max(history.scores):.1%} of the images set aside are right")

with tempfile.TemporaryDirectory() as folder:
    bundle = save(
        protected,
        Path(folder) / "digits",
        name="digits",
        model_spec="small",
        image_shape=data.shape,
        classes=data.classes,
    )
    command = [sys.executable, "-m", "splitveil", "serve", str(bundle.folder), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        with sv.Edge(bundle, address) as edge:
            answers = edge.ask(data.test.x[:20]).argmax(1)
        print(
            f"asked {address}: {(answers == data.test.y[:20]).mean():.0%} right, {edge.bytes_per_image} bytes an image"
        )
    finally:
        server.terminate()
        server.wait(10)
