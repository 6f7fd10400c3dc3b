"""Single training steps, for `benchmarks.training_speed`: ways to take one, side by side in one run."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.net import load_net
from splitveil.core.records import Document
from splitveil.core.records.base import Record
from splitveil.lab.data import Dataset
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.parts.banded import BandedConv2d
from splitveil.lab.images import as_floats
from splitveil.lab.optimizers import Descent
from splitveil.lab.recipe import WhitenetRecipe
from splitveil.lab.seeds import fingerprint, hardware
from splitveil.lab.training import native_precision
from splitveil.wire.codecs import CODECS

USUAL, WARM, TURNS = 128, 2, 15
"""Images in a step, turns that do not count, and turns that do."""
Step = Callable[[], None]


class Way(Record):
    """One way to take a step.

    Attributes:
        images: a second of processor time, median over turns.
        factor: of the first way's time for an image to this one's, turn by turn: median, lower and upper quartile.
        apart: largest difference of any weight from the first way's after two steps; None where they take other steps.
    """

    name: str
    images: float
    factor: tuple[float, float, float]
    apart: float | None


class Steps(Document):
    """Ways to take one step, the first being as things were."""

    kind: ClassVar[str] = "steps"
    ways: list[Way]
    apart: float | None = None
    """Largest difference between what the first two ways' nets answer, relative to the largest answer, in float32."""
    turns: int = TURNS
    hardware: str
    versions: dict[str, str]


def pictures(data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """The first training images and their labels."""
    x = as_floats(torch.from_numpy(data.train.x[:count]))
    return x.contiguous(memory_format=torch.channels_last), torch.from_numpy(data.train.y[:count])


class Task(nn.Module):
    """(x, y) -> the cross-entropy of a net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.net(x), y)


class Loss(nn.Module):
    """(x, y) -> the loss of a protected split."""

    def __init__(self, protected: Protected) -> None:
        super().__init__()
        self.protected = protected

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.protected.loss(x, y)


def stepper(loss: nn.Module, descent: Descent, lr: float, x: Tensor, y: Tensor) -> Step:
    """A function that takes one step, as `splitveil.lab.training.fit` does."""
    loss.train()
    optimizer = descent.over(loss.parameters(), lr)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=native_precision().startswith("bf16")):
            value = loss(x, y)
        value.backward()
        optimizer.step()

    return step


def raced(steps: Mapping[str, tuple[Step, int]]) -> dict[str, tuple[float, tuple[float, float, float]]]:
    """Images a second, and the factor over the first, of every way; they take turns. steps: with images in a step."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM + TURNS):
        for name, (step, images) in steps.items():
            begun = time.process_time()
            step()
            times[name].append((time.process_time() - begun) / images)
    first = next(iter(times.values()))[WARM:]
    found = {}
    for name, all_of_them in times.items():
        own = all_of_them[WARM:]
        low, middle, high = statistics.quantiles([a / b for a, b in zip(first, own, strict=True)], n=4)
        found[name] = (1 / statistics.median(own), (middle, low, high))
    return found


def plain_gates(protected: Protected) -> Protected:
    """A copy whose gates are convolutions in training too."""
    found = copy.deepcopy(protected)
    for module in list(found.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BandedConv2d):
                side = child.kernel_size[0]
                conv = nn.Conv2d(child.in_channels, child.out_channels, side, padding=side // 2, bias=False)
                conv.load_state_dict(child.state_dict())
                setattr(module, name, conv)
    return found


def gates(data: Dataset) -> Steps:
    """SiftFunnel's step with its gates as convolutions and as banded products."""
    torch.manual_seed(0)
    defense = DEFENSES.build("siftfunnel")
    split = defense.install(load_net("resnet20", data, None).traced.split("layer2"))
    banded = Protected(split, defense, CODECS.build("raw"))
    plain = plain_gates(banded)
    x, y = pictures(data, USUAL)
    with torch.no_grad():
        a, b = (copy.deepcopy(p).train().split(x) for p in (plain, banded))
    ways = {
        "gates as convolutions": (stepper(Loss(plain), Descent(), 1e-4, x, y), USUAL),
        "gates as banded products": (stepper(Loss(banded), Descent(), 1e-4, x, y), USUAL),
    }
    found = [Way(name=n, images=i, factor=f, apart=None) for n, (i, f) in raced(ways).items()]
    apart = ((a - b).abs().max() / a.abs().max()).item()
    return Steps(ways=found, apart=apart, hardware=hardware(), versions=fingerprint())


def nets(data: Dataset) -> Steps:
    """ResNet-20's step as it is and in other ways, and the reference net's."""
    recipe = WhitenetRecipe()
    x, y = pictures(data, max(256, recipe.batch))

    def net(name: str, layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
        task = Task(load_net(name, data, None).traced.split("layer2" if name == "resnet20" else "stage2"))
        task.to(memory_format=layout)  # type: ignore[call-overload]
        return task

    made: dict[str, tuple[nn.Module, Descent, float, int]] = {
        "ResNet-20, AdamW": (net("resnet20"), Descent(), 1e-3, USUAL),
        "with fused AdamW": (net("resnet20"), Descent(optimizer="adamw-fused"), 1e-3, USUAL),
        "with weights channels last": (net("resnet20", torch.channels_last), Descent(), 1e-3, USUAL),
        "in batches of 256": (net("resnet20"), Descent(), 1e-3, 256),
        "Whitenet by its recipe": (net("whitenet"), recipe.descent, recipe.lr, recipe.batch),
    }
    steps = {n: (stepper(m, d, lr, x[:size], y[:size]), size) for n, (m, d, lr, size) in made.items()}
    apart = dict[str, float | None]()
    start = [copy.deepcopy(m) for m, _, _, _ in made.values()]
    after = dict[str, list[Tensor]]()
    for (name, (_, descent, lr, size)), module in zip(made.items(), start, strict=True):
        step = stepper(module, descent, lr, x[:size], y[:size])
        step(), step()
        after[name] = [p.detach() for p in module.parameters()]
    first = next(iter(after.values()))
    for name, (_, _, _, size) in made.items():
        like = size == USUAL
        apart[name] = max((a - b).abs().max().item() for a, b in zip(first, after[name], strict=True)) if like else None
    ways = [Way(name=n, images=i, factor=f, apart=apart[n]) for n, (i, f) in raced(steps).items()]
    return Steps(ways=ways, hardware=hardware(), versions=fingerprint())
