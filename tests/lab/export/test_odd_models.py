"""Constants that both halves hold, and torch's own transformers: exported, bundled, restored."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import nn

from splitveil.core.errors import BundleError
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.export import save
from splitveil.lab.export.checks import refuse_leaked
from splitveil.lab.export.halves import export_halves
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import CLOUD_WEIGHTS, EDGE_WEIGHTS
from splitveil.wire.codecs import CODECS

from ..cut.nets import TABLES, Tables, lively
from ..cut.test_attention import Tokens, encoder

SHAPE = (3, 16, 16)
FILE = """
from tests.lab.cut.nets import Tables

def make():
    return Tables({how!r})
"""


def bare(halves: Split) -> Protected:
    return Protected(halves, DEFENSES.build("none"), CODECS.build("raw"))


@pytest.mark.parametrize("how", TABLES)
def test_a_table_of_both_halves_is_bundled_trained_and_restored(how: str, data: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(FILE.format(how=how))
    model = lively(load_model(f"{file}:make", shape=SHAPE, classes=4, weights=None).model, SHAPE)
    halves = trace(model, torch.zeros(1, *SHAPE)).split("blocks.0")
    protected, _ = protect(halves, "noise:sigma=0.1", "uniform:bits=8", data, epochs=1)
    table = next(b for n, b in protected.split.edge.named_buffers() if n.startswith("table"))
    assert any(torch.equal(table, b) for b in protected.split.cloud.buffers())
    bundle = save(
        protected, tmp_path / "b", name="net", model_spec=f"{file}:make", image_shape=SHAPE, classes=data.classes
    )
    shared = load(bundle.read(EDGE_WEIGHTS)).keys() & load(bundle.read(CLOUD_WEIGHTS)).keys()
    assert shared == {"table.weight" if how == "embedding" else "table"}
    again = restore(bundle, model=f"{file}:make").split
    x = torch.rand(3, *SHAPE)
    with torch.no_grad():
        assert torch.equal(again(x), protected.split.cpu().eval()(x))


def test_a_weight_of_the_cloud_in_the_edge_graph_is_still_found() -> None:
    halves = trace(lively(Tables("buffer"), SHAPE), torch.zeros(1, *SHAPE)).split("blocks.0")
    edge_onnx = export_halves(bare(halves), SHAPE).files["edge.onnx"]
    refuse_leaked(halves.edge, halves.cloud, edge_onnx)
    thief = nn.Module()
    thief.register_buffer("copy", halves.edge.get_parameter("stem.weight").detach())
    with pytest.raises(BundleError, match="the cloud's weight 'copy' is in the exported edge half"):
        refuse_leaked(halves.edge, thief, edge_onnx)


@pytest.mark.parametrize(
    ("norm_first", "batch_first"), [(False, True), pytest.param(True, False, marks=pytest.mark.slow)]
)
def test_an_encoder_of_torch_is_exported_after_its_first_layer(norm_first: bool, batch_first: bool) -> None:
    shape = (3, 8, 8)
    body = encoder(2, norm_first=norm_first, batch_first=batch_first)
    model = lively(Tokens(body, batch_first=batch_first), shape)
    halves = export_halves(bare(trace(model, torch.zeros(1, *shape)).split("body.layers.0")), shape)
    assert halves.features == (16, 16)


@pytest.mark.parametrize(
    ("body", "call", "at"),
    [
        (lambda: encoder(1), "causal", "body.layers.0.norm1"),
        (lambda: nn.MultiheadAttention(16, 4, batch_first=True), "attention", "body+getitem+add"),
        (lambda: nn.Transformer(16, 4, 1, 1, 32, batch_first=True), "queries", "body.encoder"),
        (lambda: nn.LSTM(16, 16, 1, batch_first=True), "recurrent", "body+getitem"),
        (lambda: nn.GRU(16, 16, 1, batch_first=True), "recurrent", "embed"),
    ],
    ids=["causal", "attention", "transformer", "lstm", "gru"],
)
@pytest.mark.long
def test_other_blocks_of_torch_are_exported(body: object, call: str, at: str) -> None:
    shape = (3, 8, 8)
    model = lively(Tokens(body(), call=call), shape)  # type: ignore[operator]
    assert export_halves(bare(trace(model, torch.zeros(1, *shape)).split(at)), shape).classes == 5


def test_what_onnx_lacks_is_named(data: Dataset, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(5), nn.Flatten(), nn.Linear(100, 4))
    halves = bare(trace(model, torch.zeros(1, *SHAPE)).split("1"))
    with pytest.raises(BundleError, match=r"the edge half cannot be exported \(.*aten.adaptive_max_pool2d"):
        save(halves, tmp_path / "b", name="net", model_spec="net.py:make", image_shape=SHAPE, classes=data.classes)
