import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import CutError
from splitveil.lab.cut import cuts, halves

from .nets import Branching

EXAMPLE = torch.rand(1, 3, 8, 8)
CLOUD = nn.Sequential(nn.Flatten(), nn.Linear(4 * 64, 2))


def edge() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())


def test_costs_are_those_of_the_traced_cut() -> None:
    made = halves(edge(), CLOUD, EXAMPLE)
    same = {c.name: c for c in cuts(nn.Sequential(edge(), CLOUD), EXAMPLE)}["0"]
    assert made.cut == same.model_copy(update={"name": "custom", "index": 0, "also": ()})
    assert made(torch.rand(5, 3, 8, 8)).shape == (5, 2)


def test_given_halves_are_copied() -> None:
    mine = edge()
    made = halves(mine, CLOUD, EXAMPLE)
    assert {p.data_ptr() for p in made.parameters()}.isdisjoint(p.data_ptr() for p in mine.parameters())
    assert mine.training


def test_wrapped_halves_are_unwrapped_and_scripted_ones_refused() -> None:
    mine, ours = edge(), nn.DataParallel(CLOUD)
    made = halves(nn.DataParallel(mine), ours, EXAMPLE)
    assert [name for name, _ in made.named_parameters()][:1] == ["edge.0.weight"]
    assert not any("module" in name for name, _ in made.named_parameters())
    mine._forward_hooks.clear()
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(mine)
    with pytest.raises(CutError, match="give the Python module that it was made from"):
        halves(scripted, CLOUD, EXAMPLE)


def test_edge_that_cannot_be_traced() -> None:
    class Brightened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(x)
            if out.shape[0] == 0 or type(x).__name__ == "Proxy" or torch.compiler.is_exporting():
                raise RuntimeError("not traceable")
            return out

    made = halves(Brightened(), CLOUD, EXAMPLE)
    assert made.cut.edge_macs == 64 * 4 * 27
    assert made.cut.edge_peak_bytes == 4 * (3 + 4) * 64


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (nn.Flatten(), nn.Linear(192, 2), "the edge half multiplies nothing, so the input itself would cross"),
        (edge(), nn.Flatten(), "the cloud half multiplies nothing"),
        (nn.Sequential(edge(), nn.Flatten(0)), CLOUD, r"expected the edge half to return .* first, got \(256,\)"),
        (
            edge(),
            nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (1, -1))),
            r"expected the cloud half to .* got \(1, 768\)",
        ),
        (edge(), nn.Linear(3, 2), "the halves do not run on the example: mat1 and mat2"),
    ],
)
def test_refusals(first: nn.Module, second: nn.Module, says: str) -> None:
    with pytest.raises(CutError, match=says):
        halves(first, second, EXAMPLE)


def test_shared_weights_are_refused() -> None:
    net = Branching(values=False)
    with pytest.raises(CutError, match="both halves hold the same weights"):
        halves(net.stem, nn.Sequential(net.stem, CLOUD), EXAMPLE)
