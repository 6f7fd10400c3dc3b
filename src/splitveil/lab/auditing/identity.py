"""Hashes of all that decides a result (weights, images, attacks, metrics): equal ones need no new computation."""

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType

import numpy as np
from torch import nn

from splitveil.lab.attacks.base import Threat
from splitveil.lab.auditing.subject import Configuration, Subject
from splitveil.lab.data import Images
from splitveil.lab.metrics.base import Metric
from splitveil.lab.metrics.judge import Judge
from splitveil.lab.restoring import Shipped
from splitveil.lab.seeds import digest

HASHED = ("torch.", "splitveil.")
"""Packages whose version or sources the fingerprint of every result holds already."""


def of_configuration(c: Configuration) -> dict[str, str]:
    """Halves, defence and codec: their words, structure and every weight, buffer and constant."""
    modules = (c.split.edge, c.split.cloud, c.protected.defense)
    codec = json.dumps(c.protected.codec.state(), sort_keys=True)
    found = {"label": c.label, "codec": codec, "modules": " ".join(_of_module(m) for m in modules)}
    return found | ({"graph": c.protected.graph.sha256} if isinstance(c.protected, Shipped) else {})


def of_threat(threat: Threat) -> str:
    """Name and options; for a third party's also its source file."""
    return f"{threat!r} {_sources([type(threat)])}"


def of_images(images: Images) -> str:
    """Pixels, labels and attributes, in order."""
    names = sorted(images.attributes)
    words = np.frombuffer(repr(names).encode(), np.uint8)
    return digest(images.x, images.y, words, *(images.attributes[name] for name in names))


def of_metric(spec: str, metric: Metric) -> str:
    """Name and options as asked for, and weights; for a third party's also its source file."""
    source = getattr(metric.fn, "func", metric.fn)
    kind = source if inspect.isfunction(source) else type(source)
    return f"{spec} {metric.state} {_sources([kind])}"


def of_judge(judge: Judge) -> str:
    """Name, structure and every weight; the name stands in the rows."""
    return f"{judge.name} {judge.weights} {_of_module(judge.net)}{' adaptive' if judge.adaptive else ''}"


def same_weights(net: nn.Module, subject: Subject) -> bool:
    """Whether `net` has the parameters of an audited model, whatever these are called; buffers do not matter."""
    own = _parameters(net)
    return any(own == _parameters(c.split.edge, c.split.cloud) for c in subject.configurations)


def _parameters(*modules: nn.Module) -> Counter[str]:
    tensors = {id(p): p for module in modules for p in module.parameters()}
    return Counter(digest(p.detach().cpu().numpy()) for p in tensors.values())


def _of_module(module: nn.Module) -> str:
    total = hashlib.blake2b(f"{module}{_sources({type(m) for m in module.modules()})}".encode(), digest_size=8)
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()], key=lambda pair: pair[0]):
        total.update(name.encode() + digest(tensor.detach().cpu().numpy()).encode())
    return total.hexdigest()


def _sources(kinds: Iterable[type | FunctionType]) -> str:
    found = set()
    for kind in kinds:
        if not f"{kind.__module__}.".startswith(HASHED):
            try:
                found.add(Path(inspect.getfile(kind)).read_bytes())
            except (OSError, TypeError):
                found.add(kind.__qualname__.encode())
    return hashlib.blake2b(b"\0".join(sorted(found)), digest_size=8).hexdigest()
