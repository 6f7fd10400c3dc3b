"""What decides a result, as a hash: equal identity means that nothing has to be computed again."""

import hashlib
import inspect
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import nn

from splitveil.attacks.base import Threat
from splitveil.auditing.subject import Configuration
from splitveil.data import Images
from splitveil.seeds import digest

HASHED = ("torch.", "splitveil.")
"""Packages whose version or sources the fingerprint of every result holds already."""


def of_configuration(c: Configuration) -> dict[str, str]:
    """Halves, defence and codec: their words, structure and every weight, buffer and constant."""
    modules = (c.split.edge, c.split.cloud, c.protected.defense)
    codec = json.dumps(c.protected.codec.state(), sort_keys=True)
    return {"label": c.label, "codec": codec, "modules": " ".join(_of_module(m) for m in modules)}


def of_threat(threat: Threat) -> str:
    """Name and options; for a third party's also its source file."""
    return f"{threat!r} {_sources([type(threat)])}"


def of_images(images: Images) -> str:
    """Pixels, labels and attributes, in order."""
    names = sorted(images.attributes)
    words = np.frombuffer(repr(names).encode(), np.uint8)
    return digest(images.x, images.y, words, *(images.attributes[name] for name in names))


def _of_module(module: nn.Module) -> str:
    total = hashlib.blake2b(f"{module}{_sources({type(m) for m in module.modules()})}".encode(), digest_size=8)
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()], key=lambda pair: pair[0]):
        total.update(name.encode() + digest(tensor.detach().cpu().numpy()).encode())
    return total.hexdigest()


def _sources(kinds: Iterable[type]) -> str:
    found = set()
    for kind in kinds:
        if not f"{kind.__module__}.".startswith(HASHED):
            try:
                found.add(Path(inspect.getfile(kind)).read_bytes())
            except (OSError, TypeError):
                found.add(kind.__qualname__.encode())
    return hashlib.blake2b(b"\0".join(sorted(found)), digest_size=8).hexdigest()
