"""Views on edges whose answer is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.attacks.view import PRESETS, Aux, Knows, View

SIZE = 16
PRIVATE, KNOWN = 24, 256


class Passing(nn.Module):
    """A defence that does nothing, or adds noise."""

    def __init__(self, sigma: float = 0.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        return z + self.sigma * torch.randn_like(z) if self.sigma else z


def images(count: int, seed: int, channels: int = 3) -> Tensor:
    """Smooth random pictures, (count, channels, 16, 16) uint8: blobs of colour with an edge through them."""
    draws = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=draws)
    smooth = nn.functional.interpolate(coarse, size=SIZE, mode="bilinear", align_corners=False)
    edge = (torch.arange(SIZE)[None] > torch.randint(2, SIZE - 2, (count, 1), generator=draws)).float()
    return ((0.75 * smooth + 0.25 * edge[:, None, None]) * 255).round().to(torch.uint8)


def labels(x: Tensor) -> Tensor:
    """Two classes: is the first channel bright."""
    return (x[:, 0].float().mean((1, 2)) > 127).long()


Make = Callable[..., tuple[View, Tensor]]


@pytest.fixture
def make_view() -> Make:
    """``make_view(edge, scale=1, sigma=0, knows=...)`` -> view and the private images that are not in it."""

    def make(
        edge: nn.Module,
        *,
        scale: float = 1.0,
        sigma: float = 0.0,
        channels: int = 3,
        knows: Knows = PRESETS["white-box"],
        cloud: nn.Module | None = None,
        crossings: int = 1,
    ) -> tuple[View, Tensor]:
        private, known = images(PRIVATE, 1, channels), images(KNOWN, 2, channels)
        defense, scaled = Passing(sigma), Scaled(edge, scale).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            hidden, clean = scaled(private.float() / 255), scaled(known.float() / 255)
            z, *more = (defense(hidden) for _ in range(crossings))

        def observe(index: Tensor) -> Tensor:
            with torch.no_grad():
                seen: Tensor = defense(clean[index])
            return seen

        view = View(
            z, (channels, SIZE, SIZE), knows=knows, aux=Aux(known, labels(known)), observe=observe,
            query=lambda x: defense(scaled(x)), edge=scaled, defense=defense, cloud=cloud or nn.Flatten(),
            again=torch.stack(more) if more else None, stochastic=sigma > 0, seed=0,
        )  # fmt: skip
        return view, private.float() / 255

    return make


class Scaled(nn.Module):
    """An edge whose features are multiplied by a constant."""

    def __init__(self, edge: nn.Module, scale: float) -> None:
        super().__init__()
        self.edge, self.scale = edge, scale

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.edge(x) * self.scale
        return z
