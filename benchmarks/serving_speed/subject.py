"""The two bundles that are served: a ResNet-18's half, and next to nothing for the cost of the protocols alone."""

from collections.abc import Callable
from pathlib import Path

from splitveil.core.errors import SplitVeilError
from splitveil.wire.bundle import Bundle

CLASSES = [str(i) for i in range(10)]
FEATURES = (128, 8, 8)


def bundle(folder: Path, model: str) -> Bundle:
    """The bundle of ``resnet18`` or ``no-op`` in ``FOLDER/MODEL``, made there unless it is there and whole.

    Weights are random from a fixed seed: speed does not depend on them.
    """
    make = {"resnet18": _resnet18, "no-op": _no_op}[model]
    try:
        return Bundle.load(folder / model)
    except SplitVeilError:
        return make(folder / model)


def _resnet18(folder: Path) -> Bundle:
    """ResNet-18 on 16x16 images, cut after stage 2: the shapes of a 32x32 net whose stem halves the image."""
    from splitveil.lab.models.resnet import resnet18

    return _saved(folder, lambda: resnet18((3, 16, 16)), (3, 16, 16), "layer2")


def _no_op(folder: Path) -> Bundle:
    """The same features in, their mean and a linear layer behind."""
    from torch import nn

    def net() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, FEATURES[0], 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(FEATURES[0], 10)
        )

    return _saved(folder, net, (3, *FEATURES[1:]), "0")


def _saved(folder: Path, net: "Callable[[], object]", image: tuple[int, int, int], at: str) -> Bundle:
    import torch
    from torch import nn

    from splitveil.lab.cut import split
    from splitveil.lab.defenses.base import Protected
    from splitveil.lab.defenses.none import Undefended
    from splitveil.lab.export import save
    from splitveil.wire.codecs.raw import Raw

    torch.manual_seed(0)
    made = net()
    assert isinstance(made, nn.Module)
    halves = split(made.eval(), at, torch.rand(2, *image))
    protected = Protected(halves, Undefended(), Raw()).eval()
    name = "noop" if folder.name == "no-op" else folder.name
    return save(protected, folder, name=name, model_spec=folder.name, image_shape=image, classes=CLASSES)
