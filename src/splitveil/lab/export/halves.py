"""Both halves of a protected split as ONNX graphs, held against torch, and the bundle around them. The lab's side."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import onnx
import onnxruntime
import PIL
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from splitveil.core.errors import BundleError
from splitveil.core.records import Accuracy, Card, Manifest, Picture
from splitveil.core.records import Tensor as TensorSpec
from splitveil.lab.cut.capture import no_fast_path
from splitveil.lab.defenses.base import Protected
from splitveil.lab.export.checks import check_halves, refuse_leaked, refuse_shared, refuse_unsteady
from splitveil.lab.export.graphs import CloudGraph, EdgeGraph
from splitveil.lab.seeds import fingerprint, generator
from splitveil.lab.silence import quiet
from splitveil.wire.bundle import CLOUD, CLOUD_WEIGHTS, EDGE, EDGE_WEIGHTS, GOLDEN, Bundle, write_bundle
from splitveil.wire.pictures import check_recipe, picture_words, recipe_for


class Halves(NamedTuple):
    """Graphs, weights and golden features by file name; one sample's features and noise, if any; number of classes."""

    files: Mapping[str, bytes]
    features: tuple[int, ...]
    noise: tuple[int, ...] | None
    classes: int


def export_halves(protected: Protected, image_shape: tuple[int, int, int]) -> Halves:
    """Export both halves with a dynamic batch and hold them against torch at batch 1 and 3.

    The edge graph takes ``x`` and, for a stochastic defence, ``noise`` (standard normal), and gives ``z`` as it crosses
    the wire; the cloud graph takes ``z`` and gives ``logits``. `protected` is left as it is.

    Raises:
        BundleError: a half cannot be exported, gives other numbers than torch, is random by itself, mixes the images
            of a batch or gives NaN or infinity, or a weight is in both halves.
    """
    ours = copy.deepcopy(protected).cpu().float().eval().requires_grad_(False)
    refuse_shared(ours.split.edge, ours.split.cloud)
    edge = EdgeGraph(ours.split.edge, ours.defense, ours.codec)
    with torch.inference_mode(), no_fast_path():
        refuse_unsteady(edge, ours.split.cloud, _draw(edge, image_shape, 3))
        inputs = _draw(edge, image_shape, 2)
        features = ours.defense.apply_noise(ours.split.edge(inputs[0]), *(inputs[1:] or (None,)))
        cloud = CloudGraph(ours.split.cloud, ours.codec, tuple(features.shape[1:]))
        codes = edge(*inputs)
        names = ["x", "noise"][: len(inputs)]
        edge_onnx = _to_onnx("edge", edge, inputs, names, "z")
        cloud_onnx = _to_onnx("cloud", cloud, (codes,), ["z"], "logits")
        refuse_leaked(ours.split.edge, ours.split.cloud, edge_onnx)
        for batch in (1, 3):
            check_halves(edge, cloud, edge_onnx, cloud_onnx, _draw(edge, image_shape, batch))
        logits = cloud(codes)
    files = {
        EDGE: edge_onnx,
        CLOUD: cloud_onnx,
        GOLDEN: to_safetensors({"z": codes.clone().contiguous(), "logits": logits.clone().contiguous()}),
        EDGE_WEIGHTS: to_safetensors(_state(ours.split.edge) | _state(ours.defense, "defense.")),
        CLOUD_WEIGHTS: to_safetensors(_state(ours.split.cloud)),
    }
    noise = tuple(inputs[1].shape[1:]) if len(inputs) > 1 else None
    return Halves(files, tuple(codes.shape[1:]), noise, logits.shape[1])


def save(
    protected: Protected,
    folder: Path | str,
    *,
    name: str,
    model_spec: str,
    image_shape: tuple[int, int, int],
    classes: Sequence[str],
    card: Card | None = None,
    task_accuracy: float | None = None,
    picture: Picture | None = None,
    tested: Accuracy | None = None,
    undefended: Accuracy | None = None,
) -> Bundle:
    """Export both halves and write them as a bundle, which says so where its defence was never trained.

    Args:
        protected: the split, its defence and its calibrated codec.
        folder: where; an existing bundle is replaced, anything else is left alone.
        name: under which the server offers the model.
        model_spec: as given to the model loader.
        image_shape: (C, H, W).
        classes: names, K of them.
        card: the audit's result.
        task_accuracy: of the protected split, 0 to 1; not needed beside `tested`.
        picture: how pictures became the images that it was trained with (`Dataset.picture`); None: it was trained on
            arrays, and pictures are to be read by the standard recipe.
        tested: the accuracy with its interval.
        undefended: of the model before the defence, on the same images.

    Raises:
        BundleError: the export failed its self-test, the classes or `picture` do not fit, the card is of another
            bundle, or the folder holds something else.
        InputError: a name with a line break or with what controls a terminal.
    """
    halves = export_halves(protected, image_shape)
    if len(classes) != halves.classes:
        raise BundleError(f"expected {halves.classes} class names, got {len(classes)}; give one name a logit.")
    picture = picture or recipe_for(image_shape)
    if picture is not None:
        check_recipe(picture, image_shape)
    wire = protected.codec.wire_dtype
    manifest = Manifest(
        name=name,
        model=model_spec,
        cut=protected.split.cut,
        classes=list(classes),
        image_shape=image_shape,
        preprocessing=preprocessing_words(image_shape, picture),
        picture=picture,
        defense=repr(protected.defense),
        codec=repr(protected.codec),
        codec_state=protected.codec.state(),
        noise=None if halves.noise is None else TensorSpec(name="noise", datatype="FP32", shape=(-1, *halves.noise)),
        input=TensorSpec(name="x", datatype="FP32", shape=(-1, *image_shape)),
        features=TensorSpec(name="z", datatype=wire, shape=(-1, *halves.features)),
        output=TensorSpec(name="logits", datatype="FP32", shape=(-1, halves.classes)),
        contract="",
        task_accuracy=tested.share if task_accuracy is None and tested is not None else task_accuracy,
        tested=tested,
        undefended=undefended,
        epochs=protected.epochs,
        untrained=protected.untrained,
        versions={
            **fingerprint(),
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "pillow": PIL.__version__,
        },
    )
    return write_bundle(Path(folder), manifest, halves.files, card)


def preprocessing_words(image_shape: tuple[int, int, int], picture: Picture | None) -> str:
    """What makes an input, of a picture where the net takes pictures."""
    if picture is not None:
        return picture_words(picture)
    return (
        f"array of {image_shape} (C, H, W), float32 in [0, 1]; no other normalisation, which is part of the edge half"
    )


def _draw(edge: EdgeGraph, image_shape: tuple[int, int, int], batch: int) -> tuple[Tensor, ...]:
    """Random images, never real ones, and the noise that the defence takes."""
    source = generator(0, "export", batch)
    x = torch.rand((batch, *image_shape), generator=source)
    if not edge.defense.stochastic:
        return (x,)
    drawn = edge.defense.noise_shape(tuple(edge.edge(x).shape[1:]))
    return x, torch.randn((batch, *drawn), generator=source)


def _state(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}


def _to_onnx(which: str, module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], output: str) -> bytes:
    batch = torch.export.Dim("batch", min=1)
    # Inference tensors cannot be traced.
    with torch.inference_mode(False), torch.no_grad(), quiet():
        try:
            program = torch.onnx.export(
                module.eval(),
                tuple(t.clone() for t in inputs),
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=names,
                output_names=[output],
                dynamic_shapes=tuple({0: batch} for _ in inputs),
            )
        except Exception as error:  # torch.onnx wraps whatever its tracer, decomposer or translator raised
            raise BundleError(f"the {which} half cannot be exported ({_cause(error)}); choose another cut.") from error
    model = cast(Any, program).model_proto
    anonymize(model.graph)
    return cast(bytes, model.SerializeToString(deterministic=True))


def _cause(error: BaseException) -> str:
    """The first line of what was raised first: the rest says where, and what torch's own developers may do."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:200].rstrip(".")


def anonymize(graph: Any) -> None:
    """Drop the exporter's notes: they hold source paths of this machine and make equal exports differ."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
