import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError, TrainingError, UnknownNameError
from splitveil.lab.optimizers import EARLY, OPTIMIZERS, PLAIN, Average, Descent, Muon, orthogonal
from splitveil.lab.training import IndexBatches, fit, one_cycle


class Pictures(nn.Module):
    """A loss of a net with kernels, a matrix, vectors and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 4, 3, bias=False)
        self.net = nn.Sequential(self.first, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.net(x), y)


X = torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(1))
Y = (X.mean((1, 2, 3)) > 0).long()
BATCHES = IndexBatches(24, 8, lambda index, draws: (X[index], Y[index]))
DESCENTS = [Descent(optimizer=name, average=average) for name in OPTIMIZERS for average in (0.0, 0.8)]


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("descent", DESCENTS, ids=lambda d: f"{d.optimizer}-{d.average}")
@pytest.mark.parametrize("scored", [False, True])
def test_a_killed_run_resumes_bit_for_bit(descent: Descent, scored: bool, tmp_path: Path) -> None:
    def run(name: str, stop: int = 0, *, resume: bool = False) -> dict[str, Tensor]:
        objective, done, path = Pictures(), 0, tmp_path / f"{name}.safetensors"

        def settle() -> None:
            nonlocal done
            done += 1
            if done == stop:
                raise KeyboardInterrupt

        def validate() -> float:
            with torch.no_grad():
                return -float(objective(X, Y))

        fit(
            objective, BATCHES, epochs=4, lr=2e-2, descent=descent, precision="32-true", checkpoint=path,
            resume=resume, settle=settle, validate=validate if scored else None,
        )  # fmt: skip
        return weights(objective)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", stop=3)
    for name, tensor in run("killed", resume=True).items():
        assert torch.equal(tensor, whole[name]), name
    for name, tensor in run("whole", resume=True).items():
        assert torch.equal(tensor, whole[name]), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name: str) -> None:
    objective = Pictures().eval()
    with torch.no_grad():
        before = float(objective(X, Y))
    lr = 0.5 if name == "muon" else 5e-2
    fit(objective, BATCHES, epochs=20, lr=lr, descent=Descent(optimizer=name), precision="32-true")
    with torch.no_grad():
        assert float(objective(X, Y)) < 0.5 * before


def test_a_checkpoint_of_another_descent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    fit(Pictures(), BATCHES, epochs=1, lr=1e-2, descent=Descent(optimizer="sgd"), checkpoint=path)
    with pytest.raises(TrainingError, match="another run"):
        fit(Pictures(), BATCHES, epochs=1, lr=1e-2, descent=Descent(optimizer="muon"), checkpoint=path, resume=True)


def test_the_usual_descent_is_torchs_adamw_bit_for_bit() -> None:
    ours, theirs = Pictures(), Pictures()
    fit(ours, IndexBatches(24, 24, lambda i, d: (X, Y)), epochs=3, lr=1e-2, weight_decay=0.1, precision="32-true")
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
    )
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * one_cycle(step, 3)
        optimizer.zero_grad()
        theirs(X, Y).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_the_average_by_hand() -> None:
    """Of every step's weights, and what is settled, validated and kept is the average."""
    decay, seen, at = 0.8, list[Tensor](), list[Tensor]()
    objective = Pictures()
    weight = objective.first.weight

    class Noting(IndexBatches):
        """Notes the weights that each batch finds."""

        def epoch(self, draws: torch.Generator):  # type: ignore[no-untyped-def]
            for batch in super().epoch(draws):
                seen.append(weight.detach().clone())
                yield batch
            seen.append(weight.detach().clone())

    fit(
        objective, Noting(24, 8, lambda i, d: (X[i], Y[i])), epochs=2, lr=2e-2, descent=Descent(average=decay),
        precision="32-true", settle=lambda: at.append(weight.detach().clone()),
    )  # fmt: skip
    steps = [seen[i] for i in (1, 2, 3, 5, 6, 7)]
    assert torch.equal(seen[3], seen[4]), "training goes on from the weights, not from their average"
    mean, found = seen[0], []
    for k, now in enumerate(steps, 1):
        keep = min(decay, k / (k + EARLY))
        mean = keep * mean + (1 - keep) * now
        found.append(mean)
    assert torch.allclose(at[0], found[2], atol=1e-6)
    assert torch.allclose(at[1], found[5], atol=1e-6)
    assert torch.equal(weight, at[1])


def test_the_average_holds_running_statistics_and_leaves_what_does_not_train() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    net[0].bias.requires_grad_(False)
    net[2].eval()
    names = set(Average(net, 0.9).mean)
    assert names == {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight", "2.bias"}


def test_orthogonal_has_equal_singular_values() -> None:
    for shape in ((6, 20), (20, 6), (1, 9)):
        matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) @ torch.diag(
            torch.logspace(-1, 1, shape[1])
        )
        values = torch.linalg.svdvals(orthogonal(matrix))
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_one_step_of_muon_by_hand() -> None:
    kernel, matrix, vector = (nn.Parameter(torch.randn(*s)) for s in ((8, 2, 2, 1), (3, 5), (4,)))
    before = [p.detach().clone() for p in (kernel, matrix, vector)]
    optimizer = Muon([kernel, matrix, vector], lr=0.1, momentum=0.5, weight_decay=0.2)
    for parameter in (kernel, matrix, vector):
        parameter.grad = torch.randn_like(parameter)
    assert kernel.grad is not None
    assert vector.grad is not None
    optimizer.step()
    moved = before[0] * (1 - 0.1 * 0.2) - 0.1 * math.sqrt(2) * orthogonal(1.5 * kernel.grad.flatten(1)).view_as(kernel)
    assert torch.allclose(kernel, moved, atol=1e-6)
    assert torch.allclose(vector, before[2] - PLAIN * 0.1 * vector.grad.sign(), atol=1e-6)
    shrunk = before[1] * (1 - PLAIN * 0.1 * 0.2)
    assert torch.allclose((matrix - shrunk).abs(), torch.full_like(matrix, PLAIN * 0.1), atol=1e-6)


def test_muon_moves_all_else_as_torchs_adamw_does() -> None:
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    muon = Muon(list(ours.parameters()), lr=0.1, momentum=0.9, weight_decay=0.0)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=PLAIN * 0.1, weight_decay=0.0)
    for step in range(4):
        for net, optimizer in ((ours, muon), (theirs, adamw)):
            optimizer.zero_grad()
            net(torch.full((2, 5), float(step + 1))).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"average": -0.1}, {"weight_decay": math.inf}])
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected momentum and average"):
        Descent(**options)  # type: ignore[arg-type]


def test_an_unknown_optimizer_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'muon'"):
        Descent(optimizer="moun")
