"""The options of every command whose work is a list of jobs: where they run, and with how many threads."""

from typing import Annotated, TypeAlias

import typer

WorkersAsked: TypeAlias = Annotated[
    str, typer.Option("--workers", metavar="1|N|auto|ray|ray://HOST:PORT", help="where the work is done at one time")
]
ThreadsAsked: TypeAlias = Annotated[
    int | None, typer.Option("--threads", min=1, help="of each worker; default the cores shared out among them")
]
