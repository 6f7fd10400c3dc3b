"""Files that let clients in or prove who a server is, read only where nobody else could have written them."""

import os
import stat
from pathlib import Path

from splitveil.core.errors import InputError

MOST = 1 << 20
"""Bytes of one; anything longer is something else."""


def read_credential(path: Path, option: str) -> bytes:
    """The content of a regular file that only its owner and its group may change, read once.

    Args:
        path: the file, or a link to it as Kubernetes mounts secrets.
        option: of the command line that names it.

    Raises:
        InputError: it cannot be read, is no regular file, is too long, or everybody may write to it.
    """
    try:
        # A pipe would be waited for, with the server standing still.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path"
        raise InputError(f"cannot read {path}: {reason}; check {option}.") from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"expected a regular file, got something else at {path}; check {option}.")
        if os.name == "posix" and found.st_mode & stat.S_IWOTH:
            raise InputError(f"everybody may write to {path}; chmod o-w it, and make another if they did.")
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(MOST + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check {option}.") from None
    finally:
        os.close(handle)
    if len(content) > MOST:
        raise InputError(f"expected at most {MOST} bytes in {path}, got more; check {option}.")
    return content
