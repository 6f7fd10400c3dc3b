import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from splitveil.core.errors import DataError
from splitveil.lab.data import load_data
from splitveil.lab.vision import torchvision

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8), np.arange(30, dtype=np.uint8) % 10


@pytest.fixture(autouse=True)
def _importable() -> None:
    torchvision()


def idx(path: Path, values: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_sets_in_the_root_are_read(tmp_path: Path, name: str, folder: str) -> None:
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    for part, rows in (("train", slice(None)), ("t10k", slice(10))):
        idx(raw / f"{part}-images-idx3-ubyte", X[rows])
        idx(raw / f"{part}-labels-idx1-ubyte", Y[rows])
    data = load_data(f"{name}?root={tmp_path}")
    assert (data.shape, len(data.train), len(data.test), len(data.classes)) == ((1, 28, 28), 30, 10, 10)
    assert (data.train.x[:, 0] == X).all()
    assert data.test.y.tolist() == list(range(10))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_nothing_is_downloaded_unasked(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(f"{name}?root={tmp_path}")
    assert str(caught.value) == (
        f"{name} is not in {tmp_path}; add ?download=true to fetch it, or ?root=DIR if it lies elsewhere."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("by_key", [True, False])
def test_failed_downloads_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_key: bool) -> None:
    asked = []

    def cifar(root: str, *, train: bool, download: bool) -> object:
        asked.append(download)
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision().datasets, "CIFAR10", cifar)
    with pytest.raises(DataError, match=r"cannot download cifar10 to .* \(no route to host\); check the network"):
        load_data(f"cifar10?root={tmp_path}" + ("&download=true" if by_key else ""), download=not by_key)
    assert asked == [True]


def test_colour_sets_are_turned_to_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cifar:
        def __init__(self, root: str, *, train: bool, download: bool) -> None:
            self.data = np.zeros((4, 32, 32, 3), np.uint8)
            self.data[..., 1] = 7
            self.targets, self.classes = [0, 1, 1, 0], ["a", "b"]

    monkeypatch.setattr(torchvision().datasets, "CIFAR100", Cifar)
    data = load_data("cifar100")
    assert (data.shape, data.classes, data.train.y.tolist()) == ((3, 32, 32), ("a", "b"), [0, 1, 1, 0])
    assert (data.train.x[:, 1] == 7).all()
