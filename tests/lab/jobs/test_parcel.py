"""What reaches a worker is what was sent, down to how it lies in memory."""

from pathlib import Path
from threading import Lock

import cloudpickle
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.jobs.parcel import ALIGNED, LARGE, Parcel, packed

BIG = LARGE // 4


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(2 * BIG),
        torch.rand(BIG // 64, 4, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.rand(2 * BIG // 64, 4, 4, 4).contiguous(memory_format=torch.channels_last)[5:],
        torch.rand(BIG, 2)[:, 1],
        torch.rand(BIG).bfloat16(),
        torch.rand(2 * BIG, requires_grad=True),
        torch.rand(3),
        torch.rand(2 * BIG, 1).as_strided((2 * BIG, 1, 1), (1, 7, 3)),
        np.random.default_rng(0).random((2 * BIG, 1, 2, 1)).transpose(0, 3, 1, 2),
        np.zeros((5, 8, 8, 1), np.uint8).transpose(0, 3, 1, 2),
        np.zeros((BIG, 8), np.uint8)[::2, 1:],
        np.zeros((2, 3))[:, ::-1],
        np.array(["words"]),
    ],
    ids=lambda v: f"{type(v).__name__} {v.shape}",
)
def test_values_and_strides_are_the_same(
    value: "Tensor | np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", tmp_path: Path
) -> None:
    Parcel.of({"a": value}).write(tmp_path / "p")
    for found in (Parcel.read(tmp_path / "p").opened()["a"], cloudpickle.loads(packed(value))):
        if isinstance(value, Tensor):
            assert torch.equal(found, value)
            assert (found.stride(), found.dtype) == (value.stride(), value.dtype)
            assert found.requires_grad == value.requires_grad
        else:
            assert np.array_equal(found, value)
            assert found.strides == value.strides or value.dtype.kind == "U" or min(value.strides) < 0


def test_large_tensors_are_mapped_where_torch_would_put_them(tmp_path: Path) -> None:
    net = nn.Conv2d(1, 2, 3)
    Parcel.of((net, torch.arange(BIG), "x", torch.ones(BIG))).write(tmp_path / "p")
    found, first, word, second = Parcel.read(tmp_path / "p").opened()
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), net.parameters(), strict=True))
    assert word == "x"
    assert first.data_ptr() % ALIGNED == second.data_ptr() % ALIGNED == 0
    first += 1  # one's own copy
    assert torch.equal(Parcel.read(tmp_path / "p").opened()[1], torch.arange(BIG))


def test_what_refuses_says_so() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        Parcel.of((torch.ones(1), Lock()))
