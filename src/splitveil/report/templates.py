"""The Jinja environment of the pages' templates."""

from base64 import b64encode
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from splitveil.core.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Environment


def check_extras(*, plotly: bool = False) -> None:
    """Make sure, before the work whose result a page is to show, that the page can be made.

    Raises:
        MissingExtraError: jinja2 is not installed, or plotly where it is needed.
    """
    wanted = {"the report": "jinja2"} | ({"the plan's page": "plotly"} if plotly else {})
    for what, name in wanted.items():
        if find_spec(name) is None:
            raise MissingExtraError(f"{what} needs {name}, which is not here; pip install 'splitveil[lab]'.")


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
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals["policy"] = content_policy
    return made


def content_policy(*scripts: str) -> str:
    """What a browser may do with a page: draw it and run exactly these scripts; nothing is fetched or sent.

    A second lock behind the escaping of names: one that got into a page as markup could run and reach nothing.
    """
    allowed = " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)
    may_run = f"script-src {allowed}; " if scripts else ""
    return (
        f"default-src 'none'; {may_run}style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
