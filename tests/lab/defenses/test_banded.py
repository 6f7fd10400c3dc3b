import pytest
import torch
from torch import nn

from splitveil.lab.defenses.parts.attention import BlockAttention, TripletAttention
from splitveil.lab.defenses.parts.banded import BandedConv2d


@pytest.mark.parametrize(("rows", "columns", "kernel"), [(16, 9, 7), (5, 12, 7), (3, 2, 7), (6, 6, 3)])
def test_it_is_the_convolution_with_its_gradients(rows: int, columns: int, kernel: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 2, rows, columns, requires_grad=True)
    banded = BandedConv2d(2, 3, kernel).train()
    plain = nn.Conv2d(2, 3, kernel, padding=kernel // 2, bias=False)
    plain.load_state_dict(banded.state_dict())
    wanted = plain(x)
    found = banded(x)
    assert torch.allclose(found, wanted, atol=1e-6)
    slope = torch.randn_like(wanted)
    by_x, by_weight = torch.autograd.grad(found, (x, banded.weight), slope)
    real_x, real_weight = torch.autograd.grad(wanted, (x, plain.weight), slope)
    assert torch.allclose(by_x, real_x, atol=1e-5)
    assert torch.allclose(by_weight, real_weight, atol=1e-4)


def test_a_device_runs_the_plain_convolution() -> None:
    banded = BandedConv2d(2, 1, 7).eval()
    x = torch.rand(2, 2, 8, 8)
    assert torch.equal(banded(x), nn.functional.conv2d(x, banded.weight, padding=3))


@pytest.mark.parametrize("gated", [TripletAttention(), BlockAttention(8, 2)])
def test_gates_train_without_a_convolution_of_two_channels(gated: nn.Module) -> None:
    narrow = [m for m in gated.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (7, 7)]
    assert narrow
    assert all(isinstance(m, BandedConv2d) for m in narrow)
