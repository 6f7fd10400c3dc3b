"""A constant that blocks on both sides read is copied; what training would move apart is refused."""

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import CutError
from splitveil.lab.cut import cuts, split, trace

from .nets import TABLES, Tables, lively

SHAPE = (3, 8, 8)
EXAMPLE = torch.rand(1, *SHAPE)
NAMES = {"buffer": ["table"], "frozen": ["table"], "embedding": ["table.weight"]}


@pytest.mark.parametrize("how", TABLES)
def test_constants_are_copied_into_both_halves(how: str) -> None:
    model = lively(Tables(how), SHAPE)
    traced = trace(model, EXAMPLE)
    assert {"stem", "blocks.0", "blocks.1", "blocks.2"} <= {c.name for c in traced.cuts()}
    for cut in traced.cuts():
        halves = traced.split(cut.name)
        for n in (1, 3, 5):
            x = torch.rand(n, *SHAPE)
            with torch.no_grad():
                assert torch.equal(halves(x), model(x))
        edge, cloud = halves.edge.state_dict(), halves.cloud.state_dict()
        assert sorted(edge.keys() & cloud.keys()) == traced.copied(cut.name)
        assert edge.keys() | cloud.keys() == model.state_dict().keys()
        assert not dict(halves.edge.named_parameters()).keys() & dict(halves.cloud.named_parameters()).keys()
    assert traced.copied("blocks.0") == NAMES[how]
    assert traced.copied("stem") == []
    assert len({c.edge_params + c.cloud_params for c in traced.cuts()}) == 1


@pytest.mark.parametrize("how", ["frozen", "embedding"])
def test_the_same_table_that_trains_is_refused(how: str) -> None:
    model = Tables(how, trained=True)
    assert not {"blocks.0", "blocks.1"} & {c.name for c in cuts(model, EXAMPLE)}
    why = r"'blocks.0': both halves would need the weights 'table(\.weight)?', and two copies would be trained apart"
    with pytest.raises(CutError, match=why):
        split(model, "blocks.0", EXAMPLE)


def test_copied_constants_do_not_train() -> None:
    halves = split(Tables("frozen"), "blocks.0", EXAMPLE).train().requires_grad_(True)
    halves(EXAMPLE).sum().backward()
    assert "table" not in dict(halves.named_parameters())
    assert torch.equal(halves.edge.get_buffer("table"), halves.cloud.get_buffer("table"))


def test_shared_statistics_are_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)
            self.norm = nn.BatchNorm2d(4, affine=False)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.norm(self.second(self.norm(self.first(x)))).mean((2, 3)))
            return logits

    with pytest.raises(CutError, match=r"both halves would need the weights 'norm\.\w+', .* and two copies"):
        split(Twice(), "second", EXAMPLE)
