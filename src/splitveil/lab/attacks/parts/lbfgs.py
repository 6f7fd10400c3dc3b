"""Limited-memory BFGS for many independent problems at once: each image has its own curvature and its own step."""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

HISTORY = 10
"""Pairs of step and change of gradient that are remembered (Nocedal and Wright 2006, section 7.2)."""
DECREASE, SHRINK, TRIES = 1e-4, 0.3, 6
"""Of the backtracking line search: Armijo's factor, what a refused step is multiplied by, and how often."""

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


def descend(evaluate: Evaluate, q: Tensor, steps: int, show: Callable[[Tensor, Tensor], None]) -> None:
    """Minimise each row's value.

    Args:
        evaluate: q (n, ...) -> values (n,) and gradients (n, ...); the same for the same q.
        q: where to start.
        steps: iterations.
        show: called with every accepted (q, values).
    """
    value, gradient = evaluate(q)
    show(q, value)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=HISTORY)
    for step in range(steps):
        direction = -_curved(gradient, pairs)
        slope = _dot(direction, gradient)
        uphill = slope >= 0
        direction = torch.where(_wide(uphill, q), -gradient, direction)
        slope = torch.where(uphill, -_dot(gradient, gradient), slope)
        size = torch.ones_like(value) if step else 1 / _dot(gradient, gradient).sqrt().clamp_min(1e-12)
        taken, new_value, new_gradient = torch.zeros_like(value, dtype=torch.bool), value, gradient
        new = q
        for _ in range(TRIES):
            tried = torch.where(_wide(taken, q), new, q + _wide(size, q) * direction)
            v, g = evaluate(tried)
            good = ~taken & (v <= value + DECREASE * size * slope)
            new = torch.where(_wide(good, q), tried, new)
            new_value, new_gradient = torch.where(good, v, new_value), torch.where(_wide(good, q), g, new_gradient)
            taken |= good
            if bool(taken.all()):
                break
            size = torch.where(taken, size, size * SHRINK)
        pairs.append((new - q, new_gradient - gradient))
        q, value, gradient = new, new_value, new_gradient
        show(q, value)


def _curved(gradient: Tensor, pairs: "deque[tuple[Tensor, Tensor]]") -> Tensor:
    """The inverse Hessian's estimate times the gradient: two loops over the pairs, row by row."""
    out, weights = gradient, []
    for s, y in reversed(pairs):
        rho = _inverse(_dot(s, y))
        weights.append((rho, rho * _dot(s, out)))
        out = out - _wide(weights[-1][1], y) * y
    if pairs:
        s, y = pairs[-1]
        scale = _dot(s, y) * _inverse(_dot(y, y))
        out = out * _wide(torch.where(scale > 0, scale, 1.0), out)
    for (s, y), (rho, weight) in zip(pairs, reversed(weights), strict=True):
        out = out + _wide(weight - rho * _dot(y, out), s) * s
    return out


def _inverse(value: Tensor) -> Tensor:
    """1 / value where it is positive, else 0: such a pair says nothing."""
    return torch.where(value > 1e-20, 1 / value.clamp_min(1e-20), 0.0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _wide(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (like.ndim - 1))
