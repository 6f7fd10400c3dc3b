"""Halves that are sent to another process are the same there."""

import copy

import cloudpickle
import pytest
import torch
from torch import nn

from splitveil.lab.comparing.facts import Start
from splitveil.lab.cut import Split, split, trace
from splitveil.lab.cut.pieces import Piece
from splitveil.lab.models.resnet import resnet20

from .nets import Folded, lively


class Sized(nn.Module):
    """Looks at a size, so that fx gives up and `torch.export` traces it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.relu(self.first(x))
        if z.shape[1] != 4:
            raise ValueError(z.shape)
        out: torch.Tensor = self.last(z.flatten(1))
        return out


@pytest.mark.parametrize(
    ("model", "at", "side"), [(resnet20((3, 16, 16)), "layer1", 16), (Sized(), "first+relu", 8), (Folded(), "", 8)]
)
def test_sent_halves_are_the_same(model: nn.Module, at: str, side: int) -> None:
    x = torch.rand(3, 3, side, side)
    model = lively(model, (3, side, side))
    at = at or trace(model, x).cuts()[0].name
    halves = split(model, at, x)
    sent: Split = cloudpickle.loads(cloudpickle.dumps(halves))
    for there in (sent, copy.deepcopy(sent), cloudpickle.loads(cloudpickle.dumps(sent))):
        assert isinstance(there.edge, Piece)
        assert Start.of(there).digest == Start.of(halves).digest, "finished work is found by either"
        assert there.state_dict().keys() == halves.state_dict().keys(), "constants stay unsaved"
        assert [m.training for m in there.modules()] == [m.training for m in halves.modules()]
        assert torch.equal(there(x), halves(x))
