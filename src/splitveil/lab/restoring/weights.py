"""`restore`: a protected split from a bundle's weights, to audit or train it further. The lab's side."""

from collections.abc import Mapping

import torch
from safetensors.torch import load
from torch import Tensor

from splitveil.core.arguments import checked
from splitveil.core.errors import BundleError
from splitveil.lab.cut import Split, split
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense, Protected
from splitveil.lab.models.loader import load_model
from splitveil.wire.bundle import CLOUD_WEIGHTS, EDGE_WEIGHTS, Bundle, codec
from splitveil.wire.codecs import Codec

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
    weights = {"edge": edge, "cloud": cloud, "defense": own}
    try:
        return assembled(plain, defense, codec(manifest), weights, 0 if manifest.untrained else manifest.epochs)
    except RuntimeError as error:
        raise BundleError(
            f"{bundle.folder} was made from another {manifest.model} ({str(error).splitlines()[-1].strip()}); "
            "give the model file that made it."
        ) from None


def assembled(
    plain: Split, defense: Defense, codec: Codec, weights: Mapping[str, dict[str, Tensor]], epochs: int | None
) -> Protected:
    """A trained split put together again, in eval mode.

    Args:
        plain: as the model was cut before the defence; changed in place.
        defense: as it was built.
        codec: with its state.
        weights: of each of `Protected.parts`, by name.
        epochs: of training with the defence.

    Raises:
        RuntimeError: these are weights of something else.
    """
    protected = Protected(defense.restored(plain, weights["edge"]), defense, codec)
    for name, part in protected.parts().items():
        part.load_state_dict(weights[name])
    protected.epochs = epochs
    return protected.eval()
