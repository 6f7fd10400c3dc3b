"""``splitveil bundle``: what a bundle holds and whether it is whole."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Show and verify bundles.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]


@app.command("show")
def show(folder: Folder, json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show what a bundle holds and what both halves agreed on."""
    from splitveil.bundle import Bundle
    from splitveil.cli.console import show_table
    from splitveil.records import dumps

    bundle = Bundle.load(folder)
    m, card = bundle.manifest, bundle.card
    if json:
        typer.echo(dumps({"manifest": m, "card": card}))
        return
    accuracy = "not measured" if m.task_accuracy is None else f"{m.task_accuracy:.3f}"
    rows = [
        ("model", m.model),
        ("cut", f"{m.cut.name} ({m.cut.edge_share:.1%} of the work on the device)"),
        ("defence", m.defense + (", fresh noise for every request" if m.noise else "")),
        ("codec", m.codec),
        ("input", _tensor(m.input.name, m.input.datatype, m.input.shape)),
        ("features", _tensor(m.features.name, m.features.datatype, m.features.shape)),
        ("output", f"{_tensor(m.output.name, m.output.datatype, m.output.shape)}: {_listed(m.classes)}"),
        ("task accuracy", accuracy),
        ("contract", m.contract),
        ("leakage card", f"{len(card.rows)} rows, suite {card.suite}" if card else "none; run `splitveil audit`"),
        *(
            (name, f"{(folder / name).stat().st_size:,} bytes, sha256 {digest[:16]}")
            for name, digest in m.files.items()
        ),
    ]
    show_table(m.name, ("", "this bundle"), rows, left=2)


@app.command("verify")
def verify(folder: Folder) -> None:
    """Check every file against its hash, and the contract against the halves; exit 1 where something is wrong."""
    from splitveil.bundle import Bundle
    from splitveil.cli.console import show_table

    bundle = Bundle.peek(folder)
    problems = bundle.verify()
    show_table(bundle.manifest.name, ("file", "state"), list(bundle.states().items()), left=2)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> str:
    return f"{name} {datatype} ({', '.join('N' if size == -1 else str(size) for size in shape)})"


def _listed(words: list[str], most: int = 5) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
