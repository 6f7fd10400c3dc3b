"""Bundles as a stranger may write them: every hash is right, and something in them is not."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load, save

from splitveil.core.records import Manifest
from splitveil.wire.bundle import CARD, CLOUD, GOLDEN, MANIFEST, contract_id

Change = Callable[[Path], None]
"""Spoils the bundle in a folder; its hashes are made right afterwards."""
ENDLESS = 2**62


def spoil(source: Path, folder: Path, change: Change) -> None:
    """A copy of a bundle, spoilt, with the hashes of what it holds then."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(source, folder)
    change(folder)
    rehash(folder)


def rehash(folder: Path) -> None:
    """Make hashes and the contract right, as far as the manifest can be read and files are files."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    try:
        told = json.loads(path.read_bytes())
        for name in told["files"]:
            if (folder / name).is_file() and not (folder / name).is_symlink():
                told["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        told["contract"] = contract_id(Manifest.model_validate(told))
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    path.write_text(json.dumps(told))


def told(change: Callable[[dict[str, Any]], object]) -> Change:
    """Spoils the manifest."""

    def spoilt(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        change(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return spoilt


def written(name: str, content: bytes) -> Change:
    """Another content of a file."""

    def spoilt(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return spoilt


def golden(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Spoils the golden features."""

    def spoilt(folder: Path) -> None:
        (folder / GOLDEN).write_bytes(save(change(load((folder / GOLDEN).read_bytes()))))

    return spoilt


def graph(change: Callable[[onnx.ModelProto], object]) -> Change:
    """Spoils the cloud's graph."""

    def spoilt(folder: Path) -> None:
        model = onnx.load_from_string((folder / CLOUD).read_bytes())
        change(model)
        (folder / CLOUD).write_bytes(model.SerializeToString())

    return spoilt


def instead(name: str, put: Callable[[Path], object]) -> Change:
    """Something else in the place of a file."""

    def spoilt(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        put(folder / name)

    return spoilt


def external(name: str = "stolen") -> TensorProto:
    """A tensor whose numbers lie in a file below the working directory."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "secret.key"), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def behind(model: onnx.ModelProto, make: Callable[[str, str], list[onnx.NodeProto]]) -> None:
    """Further nodes between what the graph computed (their first name) and its output (their second)."""
    out = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == out else name for name in node.output]
    model.graph.node.extend(make("before", out))


def body(name: str, nodes: list[onnx.NodeProto], **more: Any) -> onnx.GraphProto:
    """A body of a loop: (turn, go on, v) -> (go on, v)."""
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    go, on = (helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in ("go", "on"))
    v, w = (helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("v", "w"))
    held = [helper.make_node("Identity", ["go"], ["on"]), *nodes]
    return helper.make_graph(held, name, [turn, go, v], [on, w], **more)


def looping(model: onnx.ModelProto, turns: int, inner: onnx.GraphProto) -> None:
    """So many turns over the logits."""
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.array(turns), "turns"), numpy_helper.from_array(np.array(True), "yes")]
    )
    behind(model, lambda was, out: [helper.make_node("Loop", ["turns", "yes", was], [out], body=inner)])


def endless(model: onnx.ModelProto) -> None:
    """A loop that does not end within a life."""
    looping(model, ENDLESS, body("endless", [helper.make_node("Neg", ["v"], ["w"])]))


def in_a_body(model: onnx.ModelProto) -> None:
    """External data in the body of a loop."""
    nodes = [helper.make_node("Identity", ["v"], ["w"])]
    looping(model, 1, body("inner", nodes, initializer=[external()]))


def in_an_attribute(model: onnx.ModelProto) -> None:
    """External data in an attribute."""
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=external()))


def in_a_sparse_tensor(model: onnx.ModelProto) -> None:
    """External data among the values of a sparse initializer."""
    sparse = model.graph.sparse_initializer.add(dims=[8])
    sparse.values.CopyFrom(external("sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(4), "sparse_indices"))


def in_a_function(model: onnx.ModelProto) -> None:
    """External data in an attribute of a function."""
    node = helper.make_node("Constant", [], ["f"], value=external())
    made = helper.make_function("own", "F", [], ["f"], [node], [helper.make_opsetid("", 18)])
    model.functions.append(made)
    model.opset_import.append(helper.make_opsetid("own", 1))


def of_a_library(model: onnx.ModelProto) -> None:
    """An operator of a shared library."""
    behind(model, lambda was, out: [helper.make_node("Steal", [was], [out], domain="com.stranger")])
    model.opset_import.append(helper.make_opsetid("com.stranger", 1))


def hungry(model: onnx.ModelProto) -> None:
    """A tensor of 40 GB."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([10**10]), "much"))
    behind(
        model,
        lambda was, out: [
            helper.make_node("ConstantOfShape", ["much"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", [was, "zero"], [out]),
        ],
    )


def waiting_card(folder: Path) -> None:
    """A card that is listed, and a FIFO."""
    told(lambda m: m["files"].update({CARD: "0" * 64}))(folder)
    os.mkfifo(folder / CARD)


def led_outside(folder: Path) -> None:
    """Golden features that lie beside the bundle."""
    outside = (folder / GOLDEN).rename(folder.with_name("outside"))
    (folder / GOLDEN).symlink_to(outside)


REACHING: dict[str, Callable[[onnx.ModelProto], object]] = {
    "initializer": lambda model: model.graph.initializer.append(external()),
    "body of a loop": in_a_body,
    "attribute": in_an_attribute,
    "sparse tensor": in_a_sparse_tensor,
    "function": in_a_function,
    "operator of a library": of_a_library,
}
"""Graphs that name something outside of their own bytes."""

SPOILS: dict[str, Change] = {
    "golden features without logits": golden(lambda g: {"z": g["z"]}),
    "golden features of 64 bits": golden(lambda g: {**g, "z": g["z"].astype(np.float64)}),
    "golden logits as bytes": golden(lambda g: {**g, "logits": g["logits"].astype(np.uint8)}),
    "golden features of another shape": golden(lambda g: {**g, "z": g["z"][:, :1]}),
    "golden features of no image": golden(lambda g: {name: values[:0] for name, values in g.items()}),
    "golden logits that are NaN": golden(lambda g: {**g, "logits": g["logits"] * np.float32("nan")}),
    "golden features that are none": written(GOLDEN, b"\xff" * 64),
    "200,000 brackets in the manifest": written(MANIFEST, b"[" * 200_000),
    "brackets within the manifest": lambda folder: written(
        MANIFEST, (folder / MANIFEST).read_bytes().rstrip()[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    )(folder),
    "an empty manifest": written(MANIFEST, b""),
    "a line break in a name": told(lambda m: m["features"].update(name='z" }\nparameters { key: "x')),
    "an escape sequence in a class": told(lambda m: m["classes"].__setitem__(0, "\x1b[2J")),
    "a shape of 2^40": told(lambda m: m["features"].update(shape=[-1, 2**40])),
    "fewer classes than logits": told(lambda m: m["classes"].pop()),
    "a datatype that is none": told(lambda m: m["features"].update(datatype="FP8")),
    "a graph that is none": written(CLOUD, b"\x08\x0a" + b"\xff" * 99),
    "a graph of other names": graph(lambda m: m.graph.input[0].__setattr__("name", "q")),
    "an endless loop in the graph": graph(endless),
    "a graph of 40 GB": graph(hungry),
    **{f"a graph that reaches out: {where}": graph(change) for where, change in REACHING.items()},
    "a FIFO for golden features": instead(GOLDEN, os.mkfifo),
    "/dev/zero for a graph": instead(CLOUD, lambda path: path.symlink_to("/dev/zero")),
    "a folder for a graph": instead(CLOUD, lambda path: path.mkdir()),
    "a link to a folder for the manifest": instead(MANIFEST, lambda path: path.symlink_to("/")),
    "a FIFO for the manifest": instead(MANIFEST, os.mkfifo),
    "a FIFO for the card": waiting_card,
    "a link to a file outside": led_outside,
    "a file that is not listed": written("make.py", b"raise SystemExit"),
}  # fmt: skip
"""Name -> what makes such a bundle."""
