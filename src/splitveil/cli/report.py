"""``splitveil report``: a folder that another command wrote, or several audits -> one HTML page."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR... | FILE.json",
            help="What audit, compare, plan or fit wrote; of audits several are compared.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write what audits, a plan, a comparison or a bundle's card found as one self-contained HTML page."""
    from splitveil.report import render_findings

    typer.echo(render_findings(sources, out))
