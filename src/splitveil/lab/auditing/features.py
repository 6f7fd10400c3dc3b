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
from splitveil.lab.data.base import Array
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
    keep, others = kept_of(parts)
    counted = Right(wanted, data.test.y, 0, seed)
    with (
        task("features of all cuts", len(data.test) + len(others)) as show,
        Accelerator.chosen().used(subject.tap, *(c.protected for c in wanted)),
        torch.no_grad(),
    ):
        at = names_of(subject, wanted)
        test = _features(subject, at, data.test.x, keep, counted, show, 0, seed)
        extra = _features(subject, at, others, np.arange(len(others)), None, show, len(data.test), seed)
    crossed = {name: parted(z, extra.get(name), len(parts.private_index)) for name, z in test.items()}
    return Collected(
        {name: private for name, (private, _) in crossed.items()},
        {name: known for name, (_, known) in crossed.items()},
        {label: n / len(data.test) for label, n in counted.right.items()},
    )


def kept_of(parts: Parts) -> tuple[Array, Array]:
    """Places of the test images whose features are kept, private ones first; further images of the adversary."""
    return np.concatenate([parts.private_index, parts.test_aux_index]), parts.aux.x[len(parts.test_aux_index) :]


def names_of(subject: "Subject", wanted: Sequence[Configuration]) -> list[str]:
    """Of the cuts of these configurations."""
    return [c.name for c in subject.cuts if c in {w.cut for w in wanted}]


def parted(z: Tensor, extra: Tensor | None, private: int) -> tuple[Tensor, Tensor]:
    """Features of the private images and of the adversary's, of whom `extra` has those outside the test part."""
    return z[:private], z[private:] if extra is None else torch.cat([z[private:], extra])


class Right:
    """Right answers on test images, batch by batch, by configuration.

    Args:
        wanted: the configurations.
        labels: (N,) of the images that come.
        before: images of the test part before the first of them.
        seed: of a defence's draws.
    """

    def __init__(self, wanted: Sequence[Configuration], labels: Array, before: int, seed: int) -> None:
        self.wanted, self.labels, self.before, self.seed = wanted, torch.from_numpy(labels), before, seed
        self.right = dict.fromkeys((c.label for c in wanted), 0)

    def __call__(self, first: int, logits: Tensor, zs: dict[str, Tensor]) -> None:
        """Count. logits: (n, K) of the whole model for the images from `first` on; zs: cut name -> (n, *cut)."""
        for c in self.wanted:
            torch.manual_seed(derive(self.seed, "accuracy", c.label, self.before + first))
            answers = logits if c.plain else c.split.cloud(c.protected.observe(zs[c.cut.name]))
            true = self.labels[first : first + len(answers)]
            self.right[c.label] += int((classes_of(answers, c.label).cpu() == true).sum())


def features_of_part(
    subject: "Subject",
    wanted: Sequence[Configuration],
    images: "np.ndarray[Any, np.dtype[np.uint8]]",
    labels: Array | None,
    keep: Array,
    before: int,
    seed: int,
) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Right answers by configuration, and features at the places `keep`, of images that follow `before` others.

    A part is what `collect` would find for these images if `before` is a multiple of `BATCH`. labels: None counts none.
    """
    counted = Right(wanted, np.zeros(0, np.int64) if labels is None else labels, before, seed)
    at, each = names_of(subject, wanted), None if labels is None else counted
    with Accelerator.chosen().used(subject.tap, *(c.protected for c in wanted)), torch.no_grad():
        return counted.right, _features(subject, at, images, keep, each, lambda *_: None, before, seed)


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
    keep: Array,
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
    return {k: in_rows(z) for k, z in out.items()}


def in_rows(z: Tensor) -> Tensor:
    """Maps in ``channels_last``."""
    return z.contiguous(memory_format=torch.channels_last) if z.ndim == 4 else z
