"""``splitveil report``: audit folders, or one record -> one HTML page."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR... | FILE.json",
            help="Audit folders, several are compared; or a plan, comparison or criterion.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write what audits, a plan or a comparison found as one self-contained HTML page."""
    from splitveil.errors import InputError
    from splitveil.report import render, render_document

    records = [path for path in sources if path.suffix == ".json"]
    if not records:
        typer.echo(render(sources, out))
    elif len(sources) == 1:
        typer.echo(render_document(records[0], out))
    else:
        raise InputError(f"expected audit folders or one record, got {records[0]} among others; give it alone.")
