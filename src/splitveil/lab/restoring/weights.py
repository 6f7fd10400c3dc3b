"""`restore`: a protected split from a bundle's weights, to audit or train it further. The lab's side."""

import torch
from safetensors.torch import load
from torch import Tensor, nn

from splitveil.core.arguments import checked
from splitveil.core.errors import BundleError
from splitveil.lab.cut import split
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.models.loader import load_model
from splitveil.wire.bundle import CLOUD_WEIGHTS, EDGE_WEIGHTS, Bundle, codec

DEFENSE = "defense."
"""Prefix of the defence's own state among the edge weights."""


@checked
def restore(bundle: Bundle) -> Protected:
    """Rebuild the nets that the manifest names and give them the bundle's weights.

    Raises:
        BundleError: the model no longer has these weights, or they are not here (one half alone, a quantised edge,
            for which there is `restore_shipped`).
        InputError: the model that the manifest names cannot be built here.
    """
    return rebuilt(bundle, EDGE_WEIGHTS)


def rebuilt(bundle: Bundle, edge_weights: str) -> Protected:
    """As `restore`, with the edge's weights from the file called `edge_weights`."""
    manifest = bundle.manifest
    edge, cloud = load(bundle.read(edge_weights)), load(bundle.read(CLOUD_WEIGHTS))
    loaded = load_model(manifest.model, shape=manifest.image_shape, classes=len(manifest.classes), weights=None)
    defense = DEFENSES.build(manifest.defense)
    plain = split(loaded.model, manifest.cut.name, torch.zeros(2, *manifest.image_shape))
    own = {k.removeprefix(DEFENSE): v for k, v in edge.items() if k.startswith(DEFENSE)}
    edge = {k: v for k, v in edge.items() if not k.startswith(DEFENSE)}
    halves = defense.restored(plain, edge)
    _load(halves.edge, edge, bundle)
    _load(halves.cloud, cloud, bundle)
    _load(defense, own, bundle)
    protected = Protected(halves, defense, codec(manifest)).eval()
    protected.epochs = 0 if manifest.untrained else manifest.epochs
    return protected


def _load(module: nn.Module, weights: dict[str, Tensor], bundle: Bundle) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(
            f"{bundle.folder} was made from another {bundle.manifest.model} ({str(error).splitlines()[-1].strip()}); "
            "give the model file that made it."
        ) from None
