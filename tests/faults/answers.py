"""Answers over the wire against those of the local model: bit for bit where they can be, else within a bound."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from splitveil.core.progress import task
from splitveil.device import Edge
from splitveil.lab.cut import halves
from splitveil.lab.defenses.base import Defense, Protected
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.export import save
from splitveil.wire.bundle import Bundle
from splitveil.wire.codecs import CODECS
from splitveil.wire.engine import load_cloud, load_edge
from tests.faults.finding import Finding
from tests.faults.process import Victim

IMAGE, BATCHES = (3, 16, 16), (1, 2, 3, 4, 8, 16, 32, 64)
CODECS_TRIED = ("raw", "half", "uniform:bits=8", "uniform:bits=6", "uniform:bits=4")
BATCHED, ROUNDING = "splitveil_batch_rows_count", 1e-4
"""How many batches there were; what float32 may add to a bound, relative to the largest logit."""
THREADS, ROUNDS = 32, 40
Images = NDArray[np.float32]
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Net:
    """A small convolutional split, its bundle, and images of which the codec's scales were taken."""

    bundle: Bundle
    protected: Protected
    images: Images


def net(folder: Path, codec: str, defense: Defense | None = None, seed: int = 0) -> Net:
    """A net of 8 channels at the edge; two convolutions of 64 and two linear layers in the cloud; random weights."""
    torch.manual_seed(seed)
    edge = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    cloud = nn.Sequential(
        nn.Conv2d(8, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64),
        nn.ReLU(), nn.Linear(64, 5),
    )  # fmt: skip
    images = torch.rand(64, *IMAGE)
    split = halves(edge, cloud, images)
    defense = defense or Undefended()
    with torch.no_grad():
        z = split.edge(images)
        defense.calibrate(z)
        protected = Protected(split, defense, CODECS.build(codec).calibrate(defense(z))).eval()
    classes = [f"class {i}" for i in range(5)]
    bundle = save(protected, folder, name="net", model_spec="by hand", image_shape=IMAGE, classes=classes)
    return Net(bundle, protected, images.numpy())


def amplified(cloud: nn.Module) -> float:
    """How much larger than the largest error of a feature any logit's error can be.

    The product over layers of the largest absolute row sum (operator norm for the maximum norm); ReLU, average pooling
    and flattening add nothing to it.
    """
    bound = 1.0
    for layer in cloud.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound *= float(layer.weight.detach().abs().flatten(1).sum(1).max())
    return bound


@contextmanager
def _device(bundle: Bundle) -> Iterator[tuple[Edge, Victim]]:
    with Victim(bundle) as server, Edge(bundle, server.target) as edge:
        yield edge, server


def local(bundle: Bundle, x: Images) -> Logits:
    """Both graphs of the bundle on onnxruntime in this process, with no wire between."""
    m = bundle.manifest
    return load_cloud(bundle).run({m.features.name: load_edge(bundle).run({m.input.name: x})})


def _one(folder: Path, codec: str, seed: int) -> tuple[tuple[str, ...], list[str], float]:
    """A row of the table, failures, and the largest difference between batch sizes."""
    made = net(folder / codec.replace(":", "-"), codec, seed=seed)
    x, failures = made.images, []
    alone = np.concatenate([local(made.bundle, x[i : i + 1]) for i in range(len(x))])
    with _device(made.bundle) as (edge, server):
        same, apart = [], 0.0
        for n in BATCHES:
            got, here = edge.ask(x[:n]), local(made.bundle, x[:n])
            same.append(np.array_equal(got, here))
            apart = max(apart, float(np.abs(here - alone[:n]).max()))
        mixed, shared = _in_company(edge, server, x)
    if shared == 0:
        failures.append(f"{codec}: no request shared a batch, so this shows nothing of company.")
    if not all(same):
        failures.append(f"{codec}: other bits than the local graphs at batch {BATCHES[same.index(False)]}.")
    with torch.no_grad():
        z = made.protected.split.edge(torch.from_numpy(x))
        plain = made.protected.split.cloud(z).numpy()
        error = float((made.protected.observe(z) - z).abs().max())
    largest = float(np.abs(plain).max())
    bound = error * amplified(made.protected.split.cloud) + ROUNDING * largest
    worst = float(np.abs(mixed - plain).max())
    allowed = _step(made, float(z.abs().max()))
    if not worst <= bound:
        failures.append(f"{codec}: {worst:.2e} from the model without codec, the bound is {bound:.2e}.")
    if not error <= allowed:
        failures.append(f"{codec}: features move by {error:.2e}, the codec promises {allowed:.2e}.")
    mixed_apart = float(np.abs(mixed - alone).max())
    if not mixed_apart <= ROUNDING * largest:
        failures.append(f"{codec}: {mixed_apart:.2e} between company and alone, more than rounding.")
    moved = worst / float(plain.std(0).mean())
    row = (
        codec, f"{sum(same)} of {len(same)}", f"{mixed_apart:.1e} ({shared})", f"{error:.2e} ({allowed:.2e})",
        f"{worst:.2e}", f"{moved:.2%}", f"{bound:.2e}",
    )  # fmt: skip
    return row, failures, apart


def _in_company(edge: Edge, server: Victim, x: Images) -> tuple[Logits, int]:
    """Answers to one image each, asked at once until requests have met in batches; how many runs that saved."""
    z = [edge.features(x[i : i + 1]) for i in range(len(x))]
    best, shared = np.empty((0, 5), np.float32), 0
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(ROUNDS):
            before = server.metrics()[BATCHED]
            logits = np.concatenate(list(pool.map(edge.send, z)))
            saved = len(x) - int(server.metrics()[BATCHED] - before)
            if saved >= shared:
                best, shared = logits, saved
            if shared >= THREADS:
                break
    return best, shared


def _step(made: Net, largest: float) -> float:
    """By how much a codec may move a feature: half a step, or half a unit in the last place of float16."""
    codec = made.protected.codec
    step = codec.state().get("step")
    if step is not None:
        return 0.5 * float(max(step)) * (1 + 1e-4)
    return largest / 2**11 if codec.wire_dtype == "FP16" else 0.0


def _sizes(apart: float) -> str:
    if apart == 0:
        return "On this machine onnxruntime gave a row the same bits at every batch size; that is not promised."
    return (
        f"Batch size itself changes bits, for onnxruntime then sums in another order: by at most {apart:.1e} here. "
        "So a "
        "request that shares a batch equals the local model up to that, not bit for bit."
    )


def compare_answers(folder: Path, seed: int = 0) -> Finding:
    """Ask for 64 images in requests of 1 to 64 rows, with each codec, and hold the answers against local ones."""
    rows, failures, apart = [], list[str](), 0.0
    with task("answers", len(CODECS_TRIED)) as show:
        for done, codec in enumerate(CODECS_TRIED):
            row, wrong, between = _one(folder, codec, seed)
            rows.append(row)
            failures += wrong
            apart = max(apart, between)
            show(done + 1)
    return Finding(
        title="Answers",
        ran=f"A small convolutional net with random weights, 64 images, requests of {', '.join(map(str, BATCHES))} "
        "rows one "
        "after the other, then 64 requests of one row from 32 threads, until they share batches.",
        columns=(
            "codec", "requests with the bits of the local graphs", "in company: from alone (runs saved)",
            "features move by (codec's promise)", "logits move by", "of their deviation over images", "bound",
        ),
        rows=tuple(rows),
        notes=(
            "*Bits of the local graphs*: `Edge.ask` equals edge.onnx and cloud.onnx on onnxruntime in one process at "
            f"the same batch size. {_sizes(apart)} *Logits move by*: the largest difference from the model without any "
            "codec. *Bound*: the largest error of a feature times the cloud half's amplification in the maximum norm, "
            f"plus {ROUNDING:g} of the largest logit for rounding; it holds for any features, so nets stay far below "
            "it, and with random weights, whose logits hardly differ, the deviation over images is small.",
        ),
        failures=tuple(failures),
    )  # fmt: skip
