"""Pairs whose information is known."""

import math

import torch
from torch import Tensor


def squared_correlation(nats: float, dims: int) -> float:
    """Of each of `dims` independent Gaussian pairs that together hold `nats`."""
    return 1 - math.exp(-2 * nats / dims)


def gaussians(nats: float, dims: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """x and z, (n, dims) each, with exactly `nats` between them; the pairs are mixed by random rotations."""
    draws = torch.Generator().manual_seed(seed)
    rho = squared_correlation(nats, dims) ** 0.5
    x, noise = torch.randn(2, n, dims, generator=draws, dtype=torch.float64)
    z = rho * x + (1 - rho**2) ** 0.5 * noise
    turn_x, turn_z = (torch.linalg.qr(torch.randn(dims, dims, generator=draws, dtype=torch.float64))[0] for _ in "xz")
    return (x @ turn_x).float(), (z @ turn_z).float()


def uncorrelated(nats: float, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A pair (n, 1) each that no linear map finds: x has a random sign, its size and z share `nats`."""
    draws = torch.Generator().manual_seed(seed)
    x, z = gaussians(nats, 1, n, seed)
    sign = 2.0 * torch.randint(2, (n, 1), generator=draws) - 1
    return sign * (0.5 * x).exp(), z
