"""The pretended device refuses what a GPU refuses, or placement would not be tested by it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.lab.pretending import DEVICE, MixedError, Pretended, pretending

WRONG: dict[str, Callable[[Tensor], object]] = {
    "a sum": lambda x: x + torch.ones(4),
    "a product": lambda x: x @ torch.eye(4),
    "a stack of numbers": lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
    "a choice": lambda x: torch.where(torch.ones(3, 4) > 0, x, x),
    "positions of the other": lambda x: torch.arange(9)[x[0].long()],
    "values put in": lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1, 4)),
    "a net of the other": lambda x: nn.Linear(4, 2)(x),
    "a foreign generator": lambda x: torch.randn(2, generator=torch.Generator(), device=DEVICE),
    "a draw in place": lambda x: x.normal_(generator=torch.Generator()),
}


@pytest.mark.parametrize("what", WRONG)
def test_devices_do_not_mix(what: str) -> None:
    with pretending() as there, pytest.raises(MixedError):
        WRONG[what](torch.zeros(3, 4, device=there))


def test_what_a_gpu_allows() -> None:
    with pretending() as there:
        x = torch.arange(12.0).reshape(3, 4).to(there)
        assert isinstance(x, Pretended)
        assert x.device == there
        y = (x * 2 + torch.tensor(1.0))[torch.tensor([2, 0])]
        y[torch.tensor([True, False])] = 0.0
        assert y.cpu().tolist() == [[0.0] * 4, [1.0, 3.0, 5.0, 7.0]]
        assert x.sum().item() == 66.0
        first = nn.Linear(4, 3)
        net = nn.Sequential(first, nn.ReLU(), nn.Linear(3, 1)).to(there)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        before = first.weight.detach().clone()
        net(x).square().mean().backward()
        optimizer.step()
        assert not torch.equal(first.weight, before)
        net.cpu()
        assert first.weight.device.type == "cpu"
    assert torch.zeros(1).device.type == "cpu"


def test_values_are_not_numpy_without_a_copy() -> None:
    with pretending() as there:
        x = torch.zeros(2, device=there)
        with pytest.raises(RuntimeError):
            x.numpy()
        assert x.cpu().numpy().sum() == 0


def test_apple_has_no_float64() -> None:
    with pretending(apple=True) as there:
        x = torch.zeros(2, device=there)
        with pytest.raises(MixedError, match="float64"):
            x.double()
        assert x.cpu().double().dtype == torch.float64
