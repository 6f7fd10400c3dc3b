"""One forward pass over the images gives the task accuracy and the features of every cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from splitveil.core.progress import Show, task
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.data import Dataset
from splitveil.lab.data.parts import Parts
from splitveil.lab.images import as_floats
from splitveil.lab.seeds import derive
from splitveil.lab.tensors import classes_of

if TYPE_CHECKING:
    from splitveil.lab.auditing.subject import Subject

BATCH = 250
SHARE_OF_MEMORY = 0.4
"""Of the machine's, and of the accelerator's, for the features kept at one time."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Clean features of the private and the auxiliary images by cut name, and accuracies by configuration label.

    The features lie in the machine's memory.
    """

    private: dict[str, Tensor]
    aux: dict[str, Tensor]
    accuracies: dict[str, float]


def memory_budget() -> int:
    """Bytes of features that may be kept at one time on this machine, and on the accelerator in use.

    All lie in the machine's memory, those of the configuration under attack on the accelerator too.
    """
    machine = Accelerator(torch.device("cpu"))
    return int(SHARE_OF_MEMORY * min(machine.memory, Accelerator.chosen().memory))


def most_images(subject: "Subject", budget: int) -> int:
    """Images whose features at the widest cut fit `budget` bytes."""
    return budget // max(c.bytes_fp32 for c in subject.cuts)


def groups(subject: "Subject", images: int, budget: int) -> list[list[Configuration]]:
    """Configurations in order, in groups whose cuts' features of that many images fit `budget` bytes."""
    found: list[list[Configuration]] = []
    used = budget + 1
    for cut in subject.cuts:
        needed = images * cut.bytes_fp32
        if used + needed > budget:
            found.append([])
            used = 0
        used += needed
        found[-1] += [c for c in subject.configurations if c.cut == cut]
    return found


def collect(subject: "Subject", wanted: Sequence[Configuration], data: Dataset, parts: Parts, seed: int) -> Collected:
    """Run the subject once over the test images and over the auxiliary images that are not among them.

    Accuracy is over all test images and of every wanted configuration, a defence's own draws included.

    Raises:
        AnswerError: a configuration answers NaN or infinity.
    """
    private, own = len(parts.private_index), len(parts.test_aux_index)
    keep = np.concatenate([parts.private_index, parts.test_aux_index])
    others = parts.aux.x[own:]
    right = dict.fromkeys((c.label for c in wanted), 0)
    labels = torch.from_numpy(data.test.y)

    def count(first: int, logits: Tensor, zs: dict[str, Tensor]) -> None:
        for c in wanted:
            torch.manual_seed(derive(seed, "accuracy", c.label, first))
            answers = logits if c.plain else c.split.cloud(c.protected.observe(zs[c.cut.name]))
            right[c.label] += int((classes_of(answers, c.label).cpu() == labels[first : first + len(answers)]).sum())

    nets = [subject.tap, *(c.protected for c in wanted)]
    with (
        task("features of all cuts", len(data.test) + len(others)) as show,
        Accelerator.chosen().used(*nets),
        torch.no_grad(),
    ):
        at = [c.name for c in subject.cuts if c in {w.cut for w in wanted}]
        test = _features(subject, at, data.test.x, keep, count, show, 0, seed)
        extra = _features(subject, at, others, np.arange(len(others)), None, show, len(data.test), seed)
    return Collected(
        {name: z[:private] for name, z in test.items()},
        {name: torch.cat([z[private:], extra[name]]) if extra else z[private:] for name, z in test.items()},
        {label: n / len(data.test) for label, n in right.items()},
    )


def features_at(
    subject: "Subject", at: Sequence[str], images: "np.ndarray[Any, np.dtype[np.uint8]]"
) -> dict[str, Tensor]:
    """Clean features of all images at the cuts named `at`. images: (N, C, H, W) -> name -> (N, *cut)."""
    with task("features of all cuts", len(images)) as show, Accelerator.chosen().used(subject.tap), torch.no_grad():
        return _features(subject, at, images, np.arange(len(images)), None, show, 0, 0)


def _features(
    subject: "Subject",
    at: Sequence[str],
    images: "np.ndarray[Any, np.dtype[np.uint8]]",
    keep: "np.ndarray[Any, Any]",
    each: Callable[[int, Tensor, dict[str, Tensor]], None] | None,
    show: Show,
    done: int,
    seed: int,
) -> dict[str, Tensor]:
    """Features of the images at `keep`, in that order, at the cuts named `at`; `each` sees every batch."""
    out, device = dict[str, Tensor](), Accelerator.of(subject.tap).device
    place = np.full(len(images), -1)
    place[keep] = np.arange(len(keep))
    for first in range(0, len(images), BATCH):
        x = as_floats(torch.from_numpy(images[first : first + BATCH])).to(device)
        if subject.random:
            torch.manual_seed(derive(seed, "features", done + first))
        logits, features = subject.tap(x.contiguous(memory_format=torch.channels_last))
        zs = {c.name: z for c, z in zip(subject.cuts, features, strict=True) if c.name in at}
        if not out:
            out = {name: torch.empty(len(keep), *z.shape[1:]) for name, z in zs.items()}
        if each is not None:
            each(first, logits, zs)
        target = torch.from_numpy(place[first : first + BATCH])
        kept = target >= 0
        for name, z in zs.items():
            out[name][target[kept]] = z[kept].cpu()
        show(done + first + len(x))
    return {k: z.contiguous(memory_format=torch.channels_last) if z.ndim == 4 else z for k, z in out.items()}
