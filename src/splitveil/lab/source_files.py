"""Python files that a user names on the command line: their models, their attacks."""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import cloudpickle

from splitveil.core.errors import InputError


def imported(path: Path) -> ModuleType:
    """The module in a file; the user's own word alone may name it, for it runs.

    Raises:
        InputError: no such file, or one that cannot be imported.
    """
    if not path.is_file():
        raise InputError(f"cannot read {path}: no such file; check the path.")
    name = f"_splitveil_{path.stem}_{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"cannot import {path}; give a Python source file.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"cannot import {path} ({type(error).__name__}: {error}); mend the file.") from error
    # A worker cannot import it by name; its classes go there with what is made of them.
    cloudpickle.register_pickle_by_value(module)
    return module


@contextmanager
def searching(folder: Path) -> Iterator[None]:
    """Let a user's file import its neighbours, and nothing afterwards."""
    before, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
        _send_whole(folder.resolve(), known)
    finally:
        sys.path[:] = before


def _send_whole(folder: Path, known: set[str]) -> None:
    """What was imported from `folder` beside the modules `known` goes to other processes with its text."""
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None)
        own = name.partition(".")[0] == "splitveil" or file is None or "site-packages" in file
        if not own and Path(f"{file}").resolve().is_relative_to(folder):
            cloudpickle.register_pickle_by_value(sys.modules[name])
