"""Sets that torchvision downloads, as whole arrays."""

from typing import Any

import numpy as np

from splitveil.core.errors import DataError
from splitveil.lab.data.base import Array, Dataset, Images
from splitveil.lab.data.spec import DataSpec


def mnist(spec: DataSpec) -> Dataset:
    """MNIST, 28x28 grey, 60,000 train and 10,000 test; from torchvision."""
    return _load("MNIST", spec)


def fashion_mnist(spec: DataSpec) -> Dataset:
    """Fashion-MNIST, 28x28 grey, 60,000 train and 10,000 test; from torchvision."""
    return _load("FashionMNIST", spec)


def cifar10(spec: DataSpec) -> Dataset:
    """CIFAR-10, 32x32 colour, 50,000 train and 10,000 test; from torchvision."""
    return _load("CIFAR10", spec)


def cifar100(spec: DataSpec) -> Dataset:
    """CIFAR-100, 32x32 colour, 50,000 train and 10,000 test; from torchvision."""
    return _load("CIFAR100", spec)


def _load(kind: str, spec: DataSpec) -> Dataset:
    spec.refuse_path()
    from splitveil.lab.vision import torchvision

    datasets = torchvision().datasets
    root = spec.root.expanduser()
    try:
        train, test = (getattr(datasets, kind)(str(root), train=t, download=spec.download) for t in (True, False))
    except (RuntimeError, OSError) as error:
        if spec.download:
            raise DataError(f"cannot download {spec.name} to {root} ({error}); check the network or ?root=.") from None
        raise DataError(
            f"{spec.name} is not in {root}; add ?download=true to fetch it, or ?root=DIR if it lies elsewhere."
        ) from None
    return Dataset(str(spec), _images(train), _images(test), tuple(str(name) for name in train.classes))


def _images(part: Any) -> Images:
    x: Array = np.asarray(part.data)
    x = x[:, None] if x.ndim == 3 else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return Images(x, np.asarray(part.targets, dtype=np.int64))
