"""The Jinja environment of the pages' templates."""

from pathlib import Path
from typing import TYPE_CHECKING

from splitveil.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> "Environment":
    """Templates that escape what they are given and stop at an unknown name.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ModuleNotFoundError:
        raise MissingExtraError("the report needs jinja2, which is not here; pip install 'splitveil[lab]'.") from None
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
