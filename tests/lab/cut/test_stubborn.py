"""What no tracer follows is told in one sentence, and torch's own long reports stay out of sight."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import CutError
from splitveil.lab.cut import cuts

EXAMPLE = torch.rand(1, 3, 8, 8)


class Step(nn.Module):
    """A net whose first features go through `step`."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.step = nn.Conv2d(3, 4, 3, padding=1), step
        self.mix, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.mix(self.step(self.conv(x))).mean((2, 3)))
        return logits


def on_condition(z: Tensor) -> Tensor:
    return z + 1 if z.sum() > 0 else z


def in_a_loop(z: Tensor) -> Tensor:
    while z.abs().max() > 0.1:
        z = z / 2
    return z


def by_a_number(z: Tensor) -> Tensor:
    return z[:, :, : 4 + int(z[0, 0, 0, 0].item() > 9)]


def by_a_mask(z: Tensor) -> Tensor:
    return z[z > 0].mean() + z


def by_counting(z: Tensor) -> Tensor:
    return z * len(z.nonzero())


@pytest.mark.parametrize("step", [on_condition, by_a_number])
def test_one_sentence_and_nothing_else(step: Callable[[Tensor], Tensor], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CutError) as error:
        cuts(Step(step), EXAMPLE)
    said = str(error.value)
    assert "\n" not in said
    assert len(said) < 500
    assert "depends on the values in the image (test_stubborn.py:" in said
    assert capfd.readouterr() == ("", "")


def test_a_loop_as_long_as_the_batch_needs_depends_on_the_batch() -> None:
    with pytest.raises(CutError, match="depends on the other images of the batch"):
        cuts(Step(in_a_loop), EXAMPLE)


def talking(z: Tensor) -> Tensor:
    print("features", z.shape)
    warnings.warn("as a layer would", UserWarning, stacklevel=1)
    return z


def test_what_a_model_prints_stays_inside(capfd: pytest.CaptureFixture[str]) -> None:
    assert "conv" in [c.name for c in cuts(Step(talking), EXAMPLE)]
    assert capfd.readouterr() == ("", "")
