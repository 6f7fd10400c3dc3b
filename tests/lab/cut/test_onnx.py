"""Halves go through torch's ONNX exporter with a free batch axis, and onnxruntime agrees with the whole model."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.cut import split
from splitveil.lab.models.resnet import resnet20
from splitveil.lab.vision import timm, torchvision

from .nets import Folded, lively


def in_onnxruntime(half: nn.Module, x: Tensor, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings(action="ignore"):  # the exporter warns about its own calls
        torch.onnx.export(half, (x,), path, dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(values: np.ndarray) -> np.ndarray:
        out: np.ndarray = session.run(None, {name: values})[0]
        return out

    return run


@pytest.mark.parametrize(
    ("build", "at"),
    [
        pytest.param(Folded, "conv", id="folded"),
        pytest.param(lambda: resnet20((3, 32, 32)), "layer2", id="resnet20"),
        pytest.param(
            lambda: torchvision().models.mobilenet_v3_small(),
            "features.6",
            id="mobilenet_v3_small",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: timm().create_model("vit_tiny_patch16_224", img_size=32, depth=4, pretrained=False),
            "blocks.1",
            id="vit_tiny",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: timm().create_model("mobilevit_xxs", pretrained=False),
            "stages.1",
            id="mobilevit",
            marks=pytest.mark.long,
        ),
    ],
)
def test_halves_in_onnxruntime(build: Callable[[], nn.Module], at: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = lively(build(), (3, 32, 32))
    halves = split(model, at, torch.rand(1, 3, 32, 32))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        edge = in_onnxruntime(halves.edge, x, tmp_path / "edge.onnx")
        cloud = in_onnxruntime(halves.cloud, halves.edge(x), tmp_path / "cloud.onnx")
        for n in (1, 3, 5):
            x = torch.rand(n, 3, 32, 32)
            expected = model(x)
            found = torch.from_numpy(cloud(edge(x.numpy())))
            assert expected.std() > 1e-2
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
