"""``splitveil report``: audit folders -> one HTML page."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Audit folders; several are compared.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write what audits found as one self-contained HTML page."""
    from splitveil.report import render

    typer.echo(render(folders, out))
