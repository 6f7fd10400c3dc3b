"""Image sets in uint8, each with a training and a test part. Importing this does not import torch."""

from dataclasses import replace

from splitveil.core.arguments import checked
from splitveil.core.errors import DataError, UnknownNameError
from splitveil.core.registry import Registry
from splitveil.lab.data.base import Dataset, Images
from splitveil.lab.data.labels import unlearnable
from splitveil.lab.data.pixels import fitted
from splitveil.lab.data.sampling import stratified
from splitveil.lab.data.spec import DataSpec
from splitveil.wire.pictures import recipe_for, skipped_words

__all__ = ["DATA", "Dataset", "Images", "load_data"]

DATA: "Registry[Dataset]" = Registry(
    "data",
    {
        "digits": "splitveil.lab.data.digits:sklearn_digits",
        "npz": "splitveil.lab.data.npz:archive",
        "folder": "splitveil.lab.data.folder:pictures",
        "mnist": "splitveil.lab.data.torchsets:mnist",
        "fashion-mnist": "splitveil.lab.data.torchsets:fashion_mnist",
        "cifar10": "splitveil.lab.data.torchsets:cifar10",
        "cifar100": "splitveil.lab.data.torchsets:cifar100",
        "vehicles": "splitveil.lab.data.vehicles.scene:vehicle_pictures",
        "reid": "splitveil.lab.data.reid:crops",
    },
    group="splitveil.data",
)
"""Functions that take a `DataSpec`; ``n``, ``size`` and ``channels`` are applied afterwards to what they return."""

SUBSET_SEED = 0
DRAWN = frozenset({"vehicles"})
"""Sets that are rendered, and so have a seed and a number of identities."""


@checked
def load_data(spec: str, *, download: bool = False, skip_broken: bool = False) -> Dataset:
    """Load ``NAME[:PATH][?key=value&key=value]``.

    Keys: ``size=32`` makes every image a square of that many pixels (shorter side, centre crop, antialiased), and
    ``size=64x48`` a rectangle of that width and height; ``n=1000`` keeps that many training images with every class
    in its share, ``channels=1`` or ``3`` converts. ``skip_broken=true``, or the argument, leaves out pictures that
    cannot be read: the data's name then counts them and `Dataset.skipped` names them.
    ``identities=100`` and ``seed=0`` are for the rendered ``vehicles``,
    ``download=true`` and ``root=DIR`` (``~/.cache/splitveil``) are for torchvision's sets.

    Raises:
        UnknownNameError: no such source.
        DataError: missing, unreadable or wrongly shaped data, or an unknown key.
    """
    asked = DataSpec.parse(spec)
    asked = replace(asked, download=asked.download or download, skip_broken=asked.skip_broken or skip_broken)
    try:
        source = DATA.get(asked.name)
    except UnknownNameError as error:
        hint = f" For a file write npz:{asked.name}." if asked.name.endswith(".npz") else ""
        raise UnknownNameError(f"{error}{hint}") from None
    if asked.name not in DRAWN:
        asked.refuse_drawing()
    data = source(asked)
    train = data.train
    if asked.n is not None:
        if asked.n > len(train) + len(data.skipped):
            raise DataError(f"{asked.name} has {len(train):,} training images, got n={asked.n}; lower n.")
        if asked.n < len(train):
            train = train.take(stratified(train.y, asked.n, SUBSET_SEED))
    train, test = _converted(train, asked), _converted(data.test, asked)
    # A source that left the fitting to this function read no files so: the device's pixels would differ.
    ours = data.picture is not None and train.x.shape[1:] == data.train.x.shape[1:]
    picture = data.picture if ours else recipe_for(train.x.shape[1:])
    name = data.name + (f" ({len(data.skipped):,} broken pictures left out)" if data.skipped else "")
    remarks = (*data.remarks, *unlearnable(train, data.test, data.classes))
    if data.skipped:
        whole = len(data.train) + len(data.test)
        remarks = (*remarks, f"{data.name}: {skipped_words(data.skipped, whole + len(data.skipped))}")
    return Dataset(name, train, test, data.classes, remarks, picture, data.skipped)


def _converted(images: Images, asked: DataSpec) -> Images:
    return replace(images, x=fitted(images.x, asked.channels or images.x.shape[1], asked.size))
