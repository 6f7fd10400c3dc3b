"""`restore`: a protected split from a bundle's weights, to audit or train it further. The lab's side."""

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from splitveil.core.arguments import checked
from splitveil.core.errors import BundleError
from splitveil.core.printing import phrase
from splitveil.lab.cut import Split, split
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense, Protected
from splitveil.lab.models.loader import load_model
from splitveil.wire.bundle import CLOUD_WEIGHTS, EDGE_WEIGHTS, Bundle, codec
from splitveil.wire.codecs import Codec

DEFENSE = "defense."
"""Prefix of the defence's own state among the edge weights."""


@checked
def restore(bundle: Bundle, *, model: str | None = None) -> Protected:
    """Rebuild the nets that the manifest names and give them the bundle's weights.

    Args:
        bundle: whole, with a float edge.
        model: as for `load_model`, instead of what the manifest names. Whoever wrote the bundle wrote that too: a file
            that it names is Python and is not run, unless it is given here.

    Raises:
        BundleError: the model no longer has these weights, or they are not here (one half alone, a quantised edge,
            for which there is `restore_shipped`).
        InputError: the model that the manifest names cannot be built here, or is a file and was not given again.
    """
    return rebuilt(bundle, EDGE_WEIGHTS, model)


def rebuilt(bundle: Bundle, edge_weights: str, model: str | None = None) -> Protected:
    """As `restore`, with the edge's weights from the file called `edge_weights`."""
    manifest = bundle.manifest
    spec = manifest.model if model is None else model
    edge, cloud = _tensors(bundle, edge_weights), _tensors(bundle, CLOUD_WEIGHTS)
    shape, classes = manifest.image_shape, len(manifest.classes)
    loaded = load_model(spec, shape=shape, classes=classes, weights=None, files=model is not None)
    defense = DEFENSES.build(manifest.defense)
    plain = split(loaded.model, manifest.cut.name, torch.zeros(2, *manifest.image_shape))
    own = {k.removeprefix(DEFENSE): v for k, v in edge.items() if k.startswith(DEFENSE)}
    edge = {k: v for k, v in edge.items() if not k.startswith(DEFENSE)}
    weights = {"edge": edge, "cloud": cloud, "defense": own}
    try:
        return assembled(plain, defense, codec(manifest), weights, 0 if manifest.untrained else manifest.epochs)
    except (RuntimeError, KeyError) as error:
        why = phrase(str(error).splitlines()[-1].strip()) if str(error) else type(error).__name__
        raise BundleError(
            f"{bundle.folder} was made from another {spec} ({why}); give the model file that made it."
        ) from None


def _tensors(bundle: Bundle, name: str) -> dict[str, Tensor]:
    try:
        return load(bundle.read(name))
    except SafetensorError as error:
        raise BundleError(
            f"{bundle.folder / name} holds no weights ({phrase(str(error))}); write the bundle anew."
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
