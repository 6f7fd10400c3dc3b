"""`fit`: the one training loop, for tasks, defences and decoders alike.

Lightning Fabric places modules and data, sets the precision and scales to several devices. A checkpoint is safetensors
and JSON, written after every epoch; a run that was killed and resumed ends with the same weights as one that was not.
"""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from splitveil.core.errors import InputError, TrainingError
from splitveil.core.progress import task
from splitveil.core.records import write_atomically
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.optimizers import Average, Descent
from splitveil.lab.seeds import generator

logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)

WARM_UP = 0.15
"""Share of the steps in which the learning rate rises; it falls as a cosine afterwards."""

TOO_FEW = 1 / 8
"""Share of a batch."""


class Batches(Protocol):
    """Where a loop's batches come from; each epoch is a function of its generator only."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, draws: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        """The batches of one epoch, shuffled by `draws`."""
        ...


@dataclass(frozen=True, slots=True)
class IndexBatches:
    """Shuffled batches of whatever `read` gives for an index; the last one is smaller.

    One below `TOO_FEW` of a batch, too few for BatchNorm and terms over pairs, shares evenly with the one before.

    Args:
        count: samples.
        size: samples in a batch.
        read: index (n,) and a generator for augmentation -> tensors.
    """

    count: int
    size: int
    read: Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def epoch(self, draws: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(self.count, generator=draws).split(self.size)
        if len(order) > 1 and len(order[-1]) < TOO_FEW * self.size:
            order = (*order[:-2], *torch.cat(order[-2:]).chunk(2))
        for index in order:
            yield self.read(index, draws)


@dataclass(slots=True)
class Tally:
    """What a run has read, which its checkpoints keep: one that was killed and went on has read as often as another."""

    count: int = 0


@dataclass(slots=True)
class History:
    """What a run did. `losses` and `scores` have one value an epoch; a score is NaN where nothing validated."""

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    precision: str = ""


def native_precision(like: Tensor | nn.Module | None = None) -> str:
    """``bf16-mixed`` or ``16-mixed`` where a device multiplies that natively, else ``32-true``.

    Of the device of a tensor or module, or of the one in use. One step of ResNet-20 at batch 128 takes 0.56 of its time
    in bf16 on one core with AMX, of a plain CNN 0.3.
    """
    return (Accelerator.chosen() if like is None else Accelerator.of(like)).precision


def fit(
    objective: nn.Module,
    batches: Batches,
    *,
    epochs: int,
    lr: float,
    weight_decay: float = 0.0,
    descent: Descent | None = None,
    seed: int = 0,
    precision: str = "auto",
    checkpoint: Path | str | None = None,
    resume: bool = False,
    settle: Callable[[], None] | None = None,
    validate: Callable[[], float] | None = None,
    fabric: Fabric | None = None,
    what: str = "training",
    of: str = "",
    tally: Tally | None = None,
) -> History:
    """Minimise ``objective(*batch)``; one cycle of warm-up and cosine.

    Args:
        objective: a module whose call on a batch gives the scalar loss; trained in place, where
            its parameters lie, and left there in eval mode; batches follow.
        batches: see `Batches`.
        epochs: passes over the data.
        lr: peak learning rate.
        weight_decay: decoupled, on weights of two dimensions or more only.
        descent: how weights move, its own weight decay included; None for AdamW. Where it averages weights, the average
            is what settles, is validated and stays.
        seed: of shuffling, dropout and noise; initialisation is the caller's.
        precision: Fabric's word for it, or ``auto``: see `native_precision`. A given `fabric` has its own.
        checkpoint: file written after every epoch; None for none.
        resume: go on from `checkpoint` if it is there.
        settle: called after each epoch, in eval mode: fixes anew what is measured and not learned, such as scales.
        validate: score after each epoch, larger is better, on the adversary's or defender's own validation data; the
            best epoch's weights are the ones kept. Without it the last epoch's are.
        fabric: a launched Fabric, for several devices or processes: each takes its share of every batch, the first one
            writes the checkpoint, and it moves `objective`. None for the device of `objective` alone.
        what: for the progress bar.
        of: what is trained and on what, in words or as a digest; a checkpoint of anything else is refused.
        tally: counts what batches read; what an epoch that is found in the checkpoint had read is added.

    Raises:
        InputError: a learning rate that is not above 0.
        TrainingError: the loss is no longer finite, or the checkpoint belongs to another run.
    """
    if not (lr > 0 and math.isfinite(lr)):
        raise InputError(f"expected a learning rate above 0, got {lr:g}; use --lr 0.001.")
    checkpoint = None if checkpoint is None else Path(checkpoint)
    objective.train()
    chosen, alone = native_precision(objective) if precision == "auto" else precision, fabric is None
    fabric = fabric or Accelerator.of(objective).fabric(chosen)
    share = slice(fabric.global_rank, None, fabric.world_size)
    descent = descent or Descent(weight_decay=weight_decay)
    optimizer = descent.over((p for p in objective.parameters() if p.requires_grad), lr)
    steps = epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: one_cycle(k, steps))
    module, wrapped = fabric.setup(objective, optimizer, move_to_device=not alone)
    average = Average(objective, descent.average) if descent.average else None
    history = History(precision=chosen)
    best: dict[str, Tensor] = {}
    tally = tally or Tally()
    begun = tally.count
    run: dict[str, Any] = {"epochs": epochs, "lr": lr, "weight_decay": descent.weight_decay, "seed": seed}
    run |= {"batches": len(batches), "of": of}
    if descent != Descent(weight_decay=descent.weight_decay):
        run["descent"] = repr(descent)
    if resume and checkpoint is not None and checkpoint.exists():
        best = _restore(checkpoint, run, objective, optimizer, schedule, history, average, tally)
    with task(what, steps) as show:
        for epoch in range(len(history.losses), epochs):
            objective.train()
            draws = generator(seed, "epoch", epoch)
            torch.manual_seed(int(torch.randint(2**62, (), generator=draws)))
            losses = []
            for k, batch in enumerate(batches.epoch(draws)):
                optimizer.zero_grad(set_to_none=True)
                loss = module(*(fabric.to_device(t[share]) for t in batch))
                fabric.backward(loss)
                wrapped.step()
                schedule.step()
                if average is not None:
                    average.step()
                losses.append(loss.detach())
                show(epoch * len(batches) + k + 1)
            mean = torch.stack(losses).float().mean().item()
            if not math.isfinite(mean):
                raise TrainingError(f"{what}: the loss is {mean} in epoch {epoch + 1}; lower the learning rate ({lr}).")
            objective.eval()
            with nullcontext() if average is None else average.standing_in():
                if settle is not None:
                    settle()
                score = validate() if validate is not None else math.nan
                if validate is not None and score > max(history.scores, default=-math.inf):
                    best = {k: v.detach().cpu().clone() for k, v in objective.state_dict().items()}
            history.losses.append(mean)
            history.scores.append(score)
            if checkpoint is not None and fabric.global_rank == 0:
                _keep(checkpoint, run, objective, optimizer, schedule, history, best, average, tally.count - begun)
    if average is not None:
        average.swap()
    if best:
        objective.load_state_dict(best)
    objective.eval()
    return history


def infer(module: nn.Module, parts: Iterable[Tensor], precision: str = "32-true") -> Tensor:
    """`module` over `parts` without gradients, in the precision it trained in; float32 where it is, concatenated."""
    where = Accelerator.of(module)
    with torch.inference_mode(), where.autocast(precision):
        return torch.cat([module(part.to(where.device)).float() for part in parts])


def one_cycle(step: int, steps: int) -> float:
    """Factor on the learning rate: linear from 0.1 to 1 during warm-up, then a cosine to 0.01."""
    warm = max(1, int(WARM_UP * steps))
    if step < warm:
        return 0.1 + 0.9 * step / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _keep(
    path: Path,
    run: dict[str, Any],
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    history: History,
    best: dict[str, Tensor],
    average: Average | None,
    read: int,
) -> None:
    tensors = {f"model.{k}": v for k, v in objective.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in best.items()}
    tensors |= {f"average.{k}": v for k, v in average.mean.items()} if average else {}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    words = {"run": run, "losses": history.losses, "scores": history.scores, "steps": schedule.last_epoch, "read": read}
    own = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    # Weights of a defence, whose secrets are in them.
    write_atomically(path, save(own, {"state": json.dumps(words)}), secret=True)


def _restore(
    path: Path,
    run: dict[str, Any],
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    history: History,
    average: Average | None,
    tally: Tally,
) -> dict[str, Tensor]:
    """Load a checkpoint into everything given; the answer is the best weights so far."""
    try:
        with safe_open(path, framework="pt") as file:
            words = json.loads(file.metadata()["state"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"the checkpoint {path} cannot be read ({error}); delete it to start over.") from None
    if words["run"] != run:
        raise TrainingError(
            f"the checkpoint {path} is of another run ({words['run']}, not {run}); delete it to start over."
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    try:
        objective.load_state_dict(part("model."))
    except RuntimeError:
        raise TrainingError(f"the checkpoint {path} is of another version; delete it to start over.") from None
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        i, _, name = key.partition(".")
        state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    schedule.last_epoch = words["steps"]
    for group, base in zip(optimizer.param_groups, schedule.base_lrs, strict=True):
        group["lr"] = base * schedule.lr_lambdas[0](words["steps"])
    if average is not None:
        average.resume(part("average."), words["steps"])
    history.losses, history.scores = words["losses"], words["scores"]
    tally.count += words.get("read", 0)
    return part("best.")
