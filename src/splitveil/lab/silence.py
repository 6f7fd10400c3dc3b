"""Other people's code at work, without what it says meanwhile: torch's logs and warnings, a model's own prints."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """No warnings and no log below an error; what Python code prints is printed, and errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """As `unwarned`, and nothing on stdout or stderr that Python code writes: for what runs many times over."""
    with unwarned(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
