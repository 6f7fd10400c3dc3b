"""Attacks from outside: a class in a file of the user's own, run under the same view as those of a suite."""

import inspect
from pathlib import Path

from splitveil.core.errors import InputError
from splitveil.core.registry import Registry, Spec, nearest
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack, Threat
from splitveil.lab.source_files import imported, searching

FILE = ".py"


def outside_attack(spec: str) -> Attack:
    """The attack on images that `spec` means: ``FILE.py:CLASS[:k=v,...]``, or one that the registry knows.

    The file is run: it must be the user who named it.

    Raises:
        UnknownNameError: the registry knows no such attack.
        InputError: no such file or class, one that is no attack on images, or an option that it does not have.
    """
    file, mark, rest = spec.partition(f"{FILE}:")
    if not mark:
        if spec.endswith(FILE):
            raise InputError(f"expected FILE.py:ATTACK, got {spec!r}; name the class of the attack behind the file.")
        return _images_only(ATTACKS.build(spec), spec)
    path, (name, _, options) = Path(file + FILE), rest.partition(":")
    with searching(path.parent):
        module = imported(path)
    own = {n: c for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, Threat)}
    own = {n: c for n, c in own.items() if not inspect.isabstract(c)}
    if name not in own:
        raise InputError(
            f"{path} has no attack {name!r}.{nearest(name, own)} It defines: {', '.join(own) or 'none'}; an attack is "
            "a subclass of splitveil.lab.attacks.base.Attack with a name, what it needs and run."
        )
    for what in ("name", "needs"):
        if not hasattr(own[name], what):
            raise InputError(f"expected {name} of {path} to have {what!r}, got none; give the class one.")
    table: Registry[Attack] = Registry("attack", {name: f"{module.__name__}:{name}"})
    return _images_only(table.build(f"{name}:{options}" if options else Spec(name)), spec)


def _images_only(found: object, spec: str) -> Attack:
    if not isinstance(found, Attack):
        raise InputError(f"expected an attack that gives images back, got {spec!r}; label attacks go into --attack.")
    return found
