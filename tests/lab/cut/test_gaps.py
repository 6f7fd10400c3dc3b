"""Models without any cut are told why, however few their steps are."""

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.cut import trace


class Cast(nn.Module):
    """Computes in 16 bits by itself, as models from training scripts do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        return logits


class Constant(nn.Module):
    """Does not look at its image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(x.shape[0], 2)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Cast(), "torch.autocast inside the model makes one step of it"),
        (Constant(), "its answer is not computed from the image"),
        (nn.Flatten(), "the input itself would cross"),
    ],
)
def test_a_model_without_a_cut_says_why(model: nn.Module, why: str) -> None:
    traced = trace(model, torch.zeros(1, 3, 8, 8))
    (gap,) = traced.gaps()
    assert traced.cuts() == []
    assert (gap.after, gap.before, gap.share) == (None, None, 1.0)
    assert why in gap.why
