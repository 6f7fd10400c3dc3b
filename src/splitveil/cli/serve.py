"""``splitveil serve``: the cloud half of a bundle, over the Open Inference Protocol."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8001,
) -> None:
    """Serve a bundle's cloud half until SIGTERM or Ctrl-C."""
    from splitveil.bundle import Bundle
    from splitveil.serving.server import is_loopback, serve

    if not is_loopback(host):
        typer.echo(
            f"warning: {host} can be reached from outside and nothing is encrypted or authenticated; "
            "put a TLS proxy in front or use 127.0.0.1.",
            err=True,
        )
    serve(Bundle.load(bundle), host, port, announce=lambda line: print(line, flush=True))
