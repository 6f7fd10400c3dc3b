import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import TrainingError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.training import IndexBatches, fit, infer, native_precision, one_cycle


class Regression(nn.Module):
    """Least squares with dropout, so that resuming must restore the random state too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = (self.net(x) - y).square().mean()
        return out


X = torch.randn(96, 8, generator=torch.Generator().manual_seed(1))
Y = X @ torch.linspace(-1, 1, 8)[:, None]
BATCHES = IndexBatches(96, 20, lambda index, draws: (X[index], Y[index]))


def train(checkpoint: Path | None = None, *, resume: bool = False, stop: int | None = None) -> Regression:
    """Train six epochs; `stop` kills the run in the validation after that many."""
    objective = Regression()
    done = 0

    def validate() -> float:
        nonlocal done
        done += 1
        if done == stop:
            raise KeyboardInterrupt
        with torch.no_grad():
            return -float(objective(X, Y))

    fit(objective, BATCHES, epochs=6, lr=5e-2, checkpoint=checkpoint, resume=resume, validate=validate)
    return objective


def test_learns() -> None:
    before, after = Regression().eval(), train()
    with torch.no_grad():
        assert after(X, Y) < 0.3 * before(X, Y)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_killed_run_resumes_to_the_same_weights(stop: int, tmp_path: Path) -> None:
    whole, path = train(), tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(path, stop=stop)
    assert path.exists() == (stop > 1)
    resumed = train(path, resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    first, again = train(path), train(path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    train(path)
    with pytest.raises(TrainingError, match="another run"):
        fit(Regression(), BATCHES, epochs=7, lr=5e-2, checkpoint=path, resume=True)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match="cannot be read"):
        train(path, resume=True)


def test_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    fit(Regression(), BATCHES, epochs=2, lr=1e-2, checkpoint=file, of="noise at relu2")
    with pytest.raises(TrainingError, match="another run"):
        fit(Regression(), BATCHES, epochs=2, lr=1e-2, checkpoint=file, of="nopeek at relu2", resume=True)


def test_keeps_the_best_epoch_not_the_last() -> None:
    objective, scores, kept = Regression(), iter([1.0, 3.0, 2.0]), list[Tensor]()

    def validate() -> float:
        kept.append(next(objective.parameters()).detach().clone())
        return next(scores)

    history = fit(objective, BATCHES, epochs=3, lr=1e-2, validate=validate)
    assert history.scores == [1.0, 3.0, 2.0]
    assert torch.equal(next(objective.parameters()), kept[1])
    assert not torch.equal(kept[1], kept[2])


TWO_PROCESSES = """
import sys
import torch
from lightning_fabric import Fabric
from tests.lab.test_training import BATCHES, Linear
from splitveil.lab.training import fit
if __name__ == "__main__":
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    objective = Linear()
    fit(objective, BATCHES, epochs=3, lr=5e-2, fabric=fabric)
    if fabric.global_rank == 0:
        torch.save(objective.net.weight.detach(), sys.argv[1])
"""


class Linear(nn.Module):
    """Least squares without dropout: any number of processes computes the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(8, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = (self.net(x) - y).square().mean()
        return out


@pytest.mark.slow
def test_two_processes_train_to_the_weights_of_one(tmp_path: Path) -> None:
    script, saved = tmp_path / "two.py", tmp_path / "weights.pt"
    script.write_text(TWO_PROCESSES)
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, str(script), str(saved)], env={**os.environ, "PYTHONPATH": str(root)}, check=True, timeout=200
    )
    two, one, alone = torch.load(saved, weights_only=True), Linear(), Linear()
    fit(one, BATCHES, epochs=3, lr=5e-2)
    fit(alone, IndexBatches(96, 20, lambda i, draws: (X[i][::2], Y[i][::2])), epochs=3, lr=5e-2)
    apart = (one.net.weight - two).abs().max()
    assert apart < 2e-3, "Adam amplifies rounding, no more"
    assert (alone.net.weight - two).abs().max() > 5 * apart, "the first process did not train on its share alone"


def test_divergence_is_an_error_that_names_the_remedy() -> None:
    class Diverging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.w.sum() * torch.nan

    with pytest.raises(TrainingError, match="lower the learning rate"):
        fit(Diverging(), BATCHES, epochs=1, lr=1.0)


def test_every_sample_is_seen_once_an_epoch() -> None:
    def read(index: Tensor, draws: torch.Generator) -> tuple[Tensor, ...]:
        return (index,)

    def seen(seed: int) -> list[int]:
        batches: Iterator[tuple[Tensor, ...]] = IndexBatches(50, 16, read).epoch(torch.Generator().manual_seed(seed))
        return torch.cat([b[0] for b in batches]).tolist()

    assert sorted(seen(0)) == list(range(50))
    assert seen(0) == seen(0)
    assert seen(0) != seen(1)


def test_one_cycle_rises_then_falls() -> None:
    values = [one_cycle(k, 100) for k in range(101)]
    top = values.index(max(values))
    assert values[0] == pytest.approx(0.1)
    assert max(values) == pytest.approx(1.0)
    assert values[:top] == sorted(values[:top])
    assert values[top:] == sorted(values[top:], reverse=True)


def test_training_is_in_bf16_where_the_machine_multiplies_it() -> None:
    objective = Regression()
    objective.net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    history = fit(objective, BATCHES, epochs=1, lr=1e-3)
    assert history.precision == native_precision() == ("bf16-mixed" if Accelerator.chosen().bf16 else "32-true")
    assert all(p.dtype == torch.float32 for p in objective.parameters())
    assert all(b.dtype in (torch.float32, torch.int64) for b in objective.buffers())


def test_infer_concatenates_in_float32() -> None:
    net = nn.Linear(8, 2)
    out = infer(net, X.split(10), "bf16-mixed")
    assert out.dtype == torch.float32
    assert torch.allclose(out, net(X), atol=0.05)
    assert torch.allclose(infer(net, X.split(10)), net(X), atol=1e-6)


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    train(path)
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["state"])["run"]["epochs"] == 6
