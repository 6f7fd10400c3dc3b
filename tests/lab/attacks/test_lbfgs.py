from itertools import pairwise

import pytest
import torch
from torch import Tensor

from splitveil.lab.attacks.parts.lbfgs import descend


def run(evaluate, start: Tensor, steps: int) -> Tensor:  # type: ignore[no-untyped-def]
    last = start
    trail = []

    def show(q: Tensor, values: Tensor) -> None:
        nonlocal last
        last = q
        trail.append(values)

    descend(evaluate, start, steps, show)
    for before, after in pairwise(trail):
        assert (after <= before + 1e-6).all()
    return last


def test_quadratics_of_different_curvature_are_solved_each_by_itself() -> None:
    torch.manual_seed(0)
    curvature = torch.stack([torch.logspace(0, k, 12) for k in (0, 2, 3)])
    target = torch.randn(3, 12)

    def evaluate(q: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * (curvature * (q - target).square()).sum(1), curvature * (q - target)

    assert torch.allclose(run(evaluate, torch.zeros(3, 12), 80), target, atol=1e-2)


def test_rosenbrock() -> None:
    def evaluate(q: Tensor) -> tuple[Tensor, Tensor]:
        q = q.detach().requires_grad_(True)
        value = (1 - q[:, 0]).square() + 100 * (q[:, 1] - q[:, 0].square()).square()
        return value.detach(), torch.autograd.grad(value.sum(), q)[0]

    assert run(evaluate, torch.tensor([[-1.2, 1.0], [2.0, 2.0]]), 120).tolist() == [
        pytest.approx([1, 1], abs=1e-2), pytest.approx([1, 1], abs=1e-2)
    ]  # fmt: skip


def test_rows_do_not_disturb_each_other() -> None:
    torch.manual_seed(1)
    matrix = torch.randn(6, 6)
    hessian, target = matrix @ matrix.T + torch.eye(6), torch.randn(4, 6)

    def solve(target: Tensor) -> Tensor:
        def evaluate(q: Tensor) -> tuple[Tensor, Tensor]:
            gradient = (q - target) @ hessian
            return 0.5 * ((q - target) * gradient).sum(1), gradient

        return run(evaluate, torch.zeros_like(target), 8)

    assert torch.allclose(solve(target)[2:3], solve(target[2:3]), atol=1e-4)
