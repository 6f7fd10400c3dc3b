"""`protect`: give a split its defence and codec, train it if asked, and fix every scale on training images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.arguments import checked
from splitveil.core.errors import InputError
from splitveil.core.records import Accuracy, Lost
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense, Protected, Sample, Stage
from splitveil.lab.images import as_floats
from splitveil.lab.probing import probe
from splitveil.lab.recipe import FRESH, Recipe
from splitveil.lab.seeds import derive, digest, generator
from splitveil.lab.tensors import classes_of
from splitveil.lab.training import History, IndexBatches, fit, infer
from splitveil.wire.codecs import CODECS, Codec

CALIBRATION = 1024
"""Training images that scales are fixed on."""
SHARE_OF_MEMORY = 0.25
"""Of the accelerator's, that training images may fill; more of them stay in the machine's and go there by batches."""


class TrainingLoss(nn.Module):
    """What `fit` minimises: (x, y) -> the loss of a protected split."""

    def __init__(self, protected: Protected) -> None:
        super().__init__()
        self.protected = protected

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.protected.loss(x, y)


@checked
def protect(
    split: Split,
    defense: Defense | str,
    codec: Codec | str,
    data: Dataset,
    *,
    epochs: int = 0,
    lr: float = FRESH,
    recipe: Recipe | None = None,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    watch: Callable[[Protected], None] | None = None,
    accelerator: str = "auto",
) -> tuple[Protected, History]:
    """Install, calibrate, train, finish; scales of the codec come from defended features of training images.

    All scales are fixed anew after every epoch, since features grow while the edge half learns. The epoch kept is the
    one most accurate on a tenth of the training images that is set aside, unless the recipe says otherwise. No test
    image is touched.

    Args:
        split: halves with their weights; changed in place.
        defense: a `Defense`, or its spec such as ``noise:sigma=0.5``.
        codec: a `Codec`, or its spec such as ``uniform:bits=8``; the answer holds the calibrated one.
        data: training part only.
        epochs: 0 keeps the weights; a defence that works by training then does nothing yet, and `Protected.untrained`,
            the bundle and every audit of it say so. `Defense.least_epochs` is what it needs.
        lr: peak learning rate.
        recipe: how it is trained, in place of `epochs` and `lr`; None for them and what is usual.
        seed: of shuffling, augmentation and noise.
        checkpoint: see `splitveil.lab.training.fit`.
        resume: go on from the checkpoint.
        watch: called after each epoch, in eval mode, with what would be kept of it.
        accelerator: where to train, see `Accelerator.chosen`; the answer is on the processor.

    Raises:
        InputError: no such accelerator here; fewer epochs than the defence has stages; a stage in which nothing may
            move; a split that is random in eval mode, mixes the images of a batch or gives NaN or infinity.
        TrainingError: training diverged.
        AnswerError: it answers NaN or infinity.
    """
    with Accelerator.chosen(accelerator).used() as where:
        return _protected(
            split, defense, codec, data, recipe or Recipe(epochs=epochs, lr=lr), where.device,
            seed=seed, checkpoint=checkpoint, resume=resume, watch=watch,
        )  # fmt: skip


def _protected(
    split: Split, defense: Defense | str, codec: Codec | str, data: Dataset, recipe: Recipe, device: torch.device, *,
    seed: int, checkpoint: Path | str | None, resume: bool, watch: Callable[[Protected], None] | None,
) -> tuple[Protected, History]:  # fmt: skip
    _refuse_unsteady(split, data.shape)
    defense = DEFENSES.build(defense) if isinstance(defense, str) else defense
    codec = CODECS.build(codec) if isinstance(codec, str) else codec
    checkpoint = None if checkpoint is None else Path(checkpoint)
    begun = {**split.edge.state_dict(), **{f"cloud.{k}": v for k, v in split.cloud.state_dict().items()}}
    decides = digest(data.train.x, data.train.y, *(begun[k].cpu().numpy() for k in sorted(begun)))
    torch.manual_seed(derive(seed, "install"))
    # What is new gets its weights on the processor, the same for every device.
    split = defense.install(split.cpu()).to(device)
    defense.to(device)
    x, y = torch.from_numpy(data.train.x), torch.from_numpy(data.train.y).to(device)
    if x.nbytes <= SHARE_OF_MEMORY * Accelerator.of(y).memory:
        x = x.to(device)
    held, train = _parted(len(x), seed)
    if recipe.keep == "last":
        train = torch.cat([held, train])
    sample = Sample(as_floats(x[train[:CALIBRATION]].to(device)), y[train[:CALIBRATION]], derive(seed, "study"))
    defense.study(split.eval(), sample)
    protected = Protected(split, defense, codec)
    protected.epochs = recipe.epochs
    _settle(protected, codec, sample, seed)
    stages, spans = scheduled(protected, recipe.epochs)

    def read(index: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = train[index]
        images = augmented(as_floats(x[chosen].to(device)), draws)
        return images.contiguous(memory_format=torch.channels_last), y[chosen]

    def accuracy() -> float:
        return _accuracy(protected, x[held], y[held])

    def settle() -> None:
        _rescale(protected, codec, sample, seed)
        if watch is not None:
            watch(protected)

    def train_for(stage: Stage, epochs: int) -> History:
        named = stage.name != stages[0].name
        protected.stage, protected.smoothing = stage, recipe.smoothing
        for name, part in protected.parts().items():
            _let_move(part, name in stage.trains)
        if not stage.task_only:
            torch.manual_seed(derive(seed, "adversary"))
            rival = defense.adversary(protected.split.cut.shape, data.shape, len(data.classes))
            protected.rival = None if rival is None else rival.to(device)
        history = fit(
            TrainingLoss(protected),
            IndexBatches(len(train), recipe.batch_of(len(train)), read),
            epochs=epochs,
            lr=recipe.lr * stage.rate,
            descent=recipe.descent,
            seed=derive(seed, stage.name) if named else seed,
            checkpoint=checkpoint.with_suffix(f".{stage.name}{checkpoint.suffix}")
            if checkpoint and named
            else checkpoint,
            resume=resume,
            settle=settle,
            validate=None if stage.last or recipe.keep == "last" else accuracy,
            what=stage.name,
            of=f"{defense!r} {codec!r} at {protected.split.cut.name} of {decides}"
            + (f" smoothing {recipe.smoothing}" if recipe.smoothing else ""),
        )
        protected.rival, protected.stage, protected.smoothing = None, None, 0.0
        return history

    history = History()
    for stage, some in zip(stages, spans, strict=True):
        protected.split = defense.enter(protected.split, stage)
        if some:
            _settle(protected, codec, sample, seed)
            more = train_for(stage, some)
            history = History(history.losses + more.losses, history.scores + more.scores, more.precision)
    protected.split = defense.finish(protected.split)
    _settle(protected, codec, sample, seed)
    return protected.cpu(), history


def _let_move(part: nn.Module, moves: bool) -> None:
    """Parameters that count, in integers, never move."""
    for parameter in part.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(moves)


def scheduled(protected: Protected, epochs: int) -> tuple[tuple[Stage, ...], list[int]]:
    """The stages of training and the epochs of each.

    Raises:
        InputError: fewer epochs than stages, unless there are none; a stage in which nothing may move.
    """
    defense, stages = protected.defense, protected.defense.stages()
    if not epochs:
        return stages, [0] * len(stages)
    if epochs < len(stages):
        raise InputError(
            f"expected at least {len(stages)} epochs, one for each stage of {defense.name}, got {epochs}; "
            f"use --epochs {len(stages)}."
        )
    for stage in stages:
        if not any(p.numel() for name in stage.trains for p in protected.parts()[name].parameters()):
            why = (
                "one part keeps still what another trains; chain only one of them"
                if any(p.numel() for name in ("edge", "cloud") for p in protected.parts()[name].parameters())
                else "the model has no parameters; keep them as nn.Parameter in modules, or use --epochs 0"
            )
            raise InputError(
                f"expected something to train in the stage {stage.name!r} of {defense!r}, got nothing: {why}."
            )
    return stages, shared([s.share for s in stages], epochs)


def shared(shares: list[float], epochs: int) -> list[int]:
    """Whole epochs of each stage, in proportion, at least one each if there are as many; the sum is `epochs`."""
    ends = np.cumsum([0.0, *shares]) / max(1e-12, sum(shares)) * epochs
    spans = [int(n) for n in np.diff(np.rint(ends))]
    while 0 in spans and max(spans) > 1:
        spans[spans.index(max(spans))] -= 1
        spans[spans.index(0)] += 1
    return spans


def accuracy_of(protected: Protected, data: Dataset, seed: int = 0) -> float:
    """Share of test images that the protected split, codec included, answers correctly.

    Raises:
        AnswerError: it answers NaN or infinity.
    """
    return right_of(protected, data.test, seed).float().mean().item()


def right_of(net: nn.Module, images: Images, seed: int = 0) -> Tensor:
    """Which of the images a net answers correctly: (N,) bool. A protected split draws its noise by `seed`.

    Raises:
        AnswerError: it answers NaN or infinity.
    """
    torch.manual_seed(derive(seed, "accuracy"))
    with Accelerator.chosen().used(net):
        return _right(net, torch.from_numpy(images.x), torch.from_numpy(images.y))


def tested(right: Tensor) -> Accuracy:
    """Accuracy with its interval. right: (N,) bool."""
    return Accuracy.of(int(right.sum()), len(right))


def lost(before: Tensor, after: Tensor) -> Lost:
    """Accuracy lost between two nets that were asked the same images. before, after: (N,) bool, which are right."""
    counts = (before & after, before & ~after, ~before & after, ~before & ~after)
    return Lost.of(*(int(some.sum()) for some in counts))


def validation_accuracy(protected: Protected, data: Dataset, seed: int = 0) -> float:
    """The same for the training images that `protect` set aside with this seed: what tuning may look at."""
    held, _ = _parted(len(data.train), seed)
    torch.manual_seed(derive(seed, "validation"))
    with Accelerator.chosen().used(protected):
        return _accuracy(protected, torch.from_numpy(data.train.x)[held], torch.from_numpy(data.train.y)[held])


def held_out(data: Dataset) -> int:
    """Training images that `protect` sets aside."""
    return max(1, len(data.train) // 10)


def augmented(x: Tensor, draws: torch.Generator) -> Tensor:
    """Random shifts by up to an eighth, and mirror images for colour pictures, one draw an image. x: (N, C, H, W)."""
    n, channels, height, width = x.shape
    reach = max(1, height // 8)
    padded = F.pad(x, [reach] * 4)
    down, right = torch.randint(0, 2 * reach + 1, (2, n, 1), generator=draws)
    rows, columns = torch.arange(height)[None] + down, torch.arange(width)[None] + right
    if channels == 3:
        mirror = torch.rand(n, 1, generator=draws) < 0.5
        columns = torch.where(mirror, columns.flip(1), columns)
    rows, columns, each = rows.to(x.device), columns.to(x.device), torch.arange(n, device=x.device)
    return padded[each[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _parted(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Training images by index: the tenth that is set aside, and the others."""
    order = torch.from_numpy(np.random.default_rng(derive(seed, "held out")).permutation(count))
    held = max(1, count // 10)
    return order[:held], order[held:]


def _refuse_unsteady(split: Split, shape: tuple[int, int, int]) -> None:
    images = torch.rand((3, *shape), generator=generator(0, "probe")).to(Accelerator.of(split).device)
    training = {m: m.training for m in split.modules()}
    told = probe(split.eval(), (images,), images=True).words
    for module, mode in training.items():
        module.training = mode
    if told:
        raise InputError(f"cannot protect this split: {told}.")


def _settle(protected: Protected, codec: Codec, sample: Sample, seed: int) -> None:
    """Nothing trains any more, or yet: all in eval mode, nothing frozen, scales fixed."""
    _let_move(protected.eval(), True)
    _rescale(protected, codec, sample, seed)


def _rescale(protected: Protected, codec: Codec, sample: Sample, seed: int) -> None:
    """Fix the scales of the defence, and those of the codec on defended features."""
    features = infer(protected.split.edge, sample.x.split(250)).to(sample.x.device)
    protected.defense.calibrate(features)
    torch.manual_seed(derive(seed, "codec"))
    with torch.no_grad():
        protected.codec = codec.calibrate(protected.defense(features).cpu())


def _accuracy(protected: Protected, x: Tensor, y: Tensor) -> float:
    """x: (N, C, H, W) uint8, y: (N,)."""
    return _right(protected, x, y).float().mean().item()


def _right(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits = infer(net.eval(), (as_floats(part) for part in x.split(250)))
    return classes_of(logits, "the net").cpu() == y.cpu()
