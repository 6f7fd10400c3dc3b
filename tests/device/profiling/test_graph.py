import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node

from splitveil.core.errors import InputError
from splitveil.device.profiling import by_node, graph_macs, time_graph
from splitveil.device.profiling.reference import reference_graph
from tests.device.profiling.graphs import classifier, classifier_macs, graph


class Clock:
    """Stands for a session whose calls take given spans, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spans: list[float]) -> None:
        self.now, self.spans, self.fed = 0.0, iter(spans), list[dict[str, Any]]()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr("splitveil.device.profiling.graph._run", self.run)

    def run(self, session: Any, inputs: dict[str, Any]) -> None:
        self.now += next(self.spans, 0.0)
        self.fed.append(inputs)
        session.run(None, inputs)


def test_the_warm_up_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, [500.0, 100.0, *map(float, range(20, 0, -1))])
    found = time_graph(classifier(), warmup=2, runs=20, batch=3)
    assert (found.median, found.p95, found.runs, found.batch) == (10.5, 20, 20, 3)
    assert clock.fed[0]["x"].shape == (3, 3, 8, 8)


def test_it_is_the_right_graph(tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(classifier())
    small, wide = time_graph(tmp_path / "small.onnx", runs=30), time_graph(classifier(width=512), runs=30)
    assert (small.graph, wide.graph) == ("small.onnx", "graph")
    assert (small.macs, wide.macs) == (classifier_macs(), classifier_macs(512))
    assert small.sha256 == hashlib.sha256(classifier()).hexdigest() != wide.sha256
    assert small.file_bytes == len(classifier())
    assert 0 < small.median < wide.median <= wide.p95
    assert small.peak_rss_bytes is not None
    assert small.peak_rss_bytes > 1e6


def test_every_type_of_input(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {
        "x": TensorProto.FLOAT, "noise": TensorProto.FLOAT, "codes": TensorProto.UINT8, "half": TensorProto.FLOAT16,
        "wide": TensorProto.DOUBLE, "token": TensorProto.INT64, "short": TensorProto.INT32, "flag": TensorProto.BOOL,
        "byte": TensorProto.INT8,
    }  # fmt: skip
    nodes = [make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT) for name in kinds]
    nodes.append(make_node("Sum", [f"{name}_f" for name in kinds], ["y"]))
    clock = Clock(monkeypatch, [])
    found = time_graph(graph(nodes, {name: (kind, ["n", 50]) for name, kind in kinds.items()}, {}), warmup=0, runs=1)
    assert found.macs == 0
    fed = clock.fed[0]
    assert {v.shape for v in fed.values()} == {(1, 50)}
    assert fed["x"].min() >= 0
    assert fed["noise"].min() < 0
    assert fed["codes"].max() > 1
    assert set(np.unique(fed["token"])) == {0, 1}


def test_node_shares_are_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    nodes = by_node(reference_graph(), runs=10)
    assert sum(n.share for n in nodes) == pytest.approx(1)
    assert sum(n.share for n in nodes if n.op == "Conv") > 0.5
    assert [n.seconds for n in nodes] == sorted((n.seconds for n in nodes), reverse=True)
    assert nodes[0].share == pytest.approx(nodes[0].seconds / sum(n.seconds for n in nodes))
    assert list(tmp_path.iterdir()) == []


def test_node_times_leave_out_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(name: str, microseconds: int) -> dict[str, Any]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": {"op_name": "Conv"}}

    # Two calls of a and of b, which runs twice a call.
    told = [event("a", 900), event("b", 500), event("b", 500), event("a", 30), event("b", 40), event("b", 50)]
    monkeypatch.setattr("splitveil.device.profiling.graph._events", lambda *_: told)
    nodes = by_node(b"", warmup=1, runs=1)
    assert [n.name for n in nodes] == ["b", "a"]
    assert [n.seconds for n in nodes] == pytest.approx([90e-6, 30e-6])
    assert [n.share for n in nodes] == pytest.approx([0.75, 0.25])
    with pytest.raises(InputError, match="not run equally often"):
        by_node(b"", warmup=1, runs=2)
    monkeypatch.setattr("splitveil.device.profiling.graph._events", lambda *_: [event("a", 0), event("a", 0)])
    with pytest.raises(InputError, match="larger graph"):
        by_node(b"", warmup=1, runs=1)


@pytest.mark.parametrize(
    ("node", "shape", "weight", "expected"),
    [
        (make_node("Conv", ["x", "w"], ["y"], group=2), (1, 4, 9, 9), (6, 2, 3, 3), 6 * 49 * 18),
        (make_node("Conv", ["x", "w"], ["y"], strides=[2, 2]), (1, 4, 9, 9), (6, 4, 3, 3), 6 * 16 * 36),
        (make_node("MatMul", ["x", "w"], ["y"]), (1, 7, 10), (10, 3), 7 * 3 * 10),
        (make_node("Gemm", ["x", "w"], ["y"], transB=1), (1, 10), (3, 10), 30),
        (make_node("Gemm", ["x", "w"], ["y"], transA=1), (10, 1), (10, 3), 30),
        (make_node("Add", ["x", "w"], ["y"]), (1, 10), (10,), 0),
        (make_node("ConvTranspose", ["x", "w"], ["y"]), (1, 4, 9, 9), (4, 6, 3, 3), 0),
    ],
)
def test_macs_by_hand(node: Any, shape: tuple[int, ...], weight: tuple[int, ...], expected: int) -> None:
    assert graph_macs(graph([node], {"x": (TensorProto.FLOAT, shape)}, {"w": weight})) == expected


def test_macs_are_those_of_one_sample() -> None:
    assert graph_macs(classifier((4, 3, 8, 8))) == classifier_macs() == graph_macs(classifier())


def test_bad_input(tmp_path: Path) -> None:
    fixed = classifier((4, 3, 8, 8))
    with pytest.raises(InputError, match="fixed to batches of 4, got 1; use batch 4"):
        time_graph(fixed)
    assert time_graph(fixed, batch=4, warmup=0, runs=1).batch == 4
    with pytest.raises(InputError, match="only the batch to be free"):
        time_graph(classifier(("n", 3, "h", "w")))
    with pytest.raises(InputError, match="cannot load the graph"):
        time_graph(b"no graph")
    with pytest.raises(InputError, match=r"cannot load .*none\.onnx"):
        by_node(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="1 thread, run and sample or more"):
        time_graph(classifier(), runs=0)
    with pytest.raises(InputError, match="1 thread, run and sample or more"):
        by_node(classifier(), threads=0)
    words = graph([make_node("Identity", ["x"], ["y"])], {"x": (TensorProto.STRING, [1])}, {}, TensorProto.STRING)
    with pytest.raises(InputError, match=r"is a tensor\(string\)"):
        time_graph(words)
    # A reshape that no batch of 1 allows.
    nodes = [make_node("Concat", ["x", "w"], ["y"], axis=1)]
    clash = graph(nodes, {"x": (TensorProto.FLOAT, ["n", 2])}, {"w": (3, 2)})
    with pytest.raises(InputError, match="cannot run the graph"):
        time_graph(clash)
