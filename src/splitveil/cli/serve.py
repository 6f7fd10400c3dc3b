"""``splitveil serve``: the cloud half of a bundle, over the Open Inference Protocol."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from splitveil.server.security import Tls


ON_RAY = ("bundle", "ray", "replicas", "host", "http_port", "max_batch", "token_file", "insecure")
"""What `--ray` knows; of the rest Ray has its own, or nothing, as of TLS."""


def run(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="a bundle's folder")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--grpc-port", "--port", help="of gRPC; 0 takes a free one")] = 8001,
    http_port: Annotated[int | None, typer.Option(help="of HTTP; 0 takes a free one; without it gRPC only")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="of Prometheus' metrics, on loopback")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="the server's certificate, PEM")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="its private key, PEM, unencrypted")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="authority whose certificates clients must show: mutual TLS")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="bearer tokens, one a line; read anew on SIGHUP")] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="rows of one request and of one run of the model")] = 64,
    max_payload: Annotated[
        int | None, typer.Option(min=1, help="bytes of one message; default what a full batch takes in binary")
    ] = None,
    max_queue: Annotated[int, typer.Option(min=1, help="rows that may wait for the model")] = 1024,
    max_connections: Annotated[int, typer.Option(min=1, help="of each protocol")] = 512,
    threads: Annotated[int, typer.Option(min=1, help="of one run of the model")] = 1,
    privacy_policy: Annotated[
        Path | None, typer.Option(help="TOML or JSON: what the leakage card must say; exit code 3 if it does not")
    ] = None,
    signed_by: Annotated[
        Path | None, typer.Option(help="public key whose owner must have signed the bundle, and later ones")
    ] = None,
    watch: Annotated[
        float | None, typer.Option(min=0.01, help="seconds between looks at the folder; a new bundle is taken over")
    ] = None,
    allow_missing_contract: Annotated[
        bool, typer.Option("--allow-missing-contract", help="take plain v2 requests even where a defence is on")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="listen beyond this machine without TLS or without tokens")
    ] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="as a Ray Serve application, on HTTP without TLS; default port 8000")
    ] = False,
    replicas: Annotated[int, typer.Option(min=1, help="copies, with --ray")] = 1,
    log_json: Annotated[bool, typer.Option("--log-json", help="logs as JSON lines on stderr")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="say what is served and where as one JSON object")] = False,
) -> None:
    """Serve a bundle's cloud half until SIGTERM or Ctrl-C; SIGHUP takes over a new bundle."""
    given = {p.name: p.opts[0] for p in context.command.params if p.name and _is_given(context, p.name)}
    if ray:
        _serve_on_ray(bundle, host, http_port, replicas, max_batch, token_file, insecure, given)
        return
    if "replicas" in given:
        _refuse("--replicas without --ray", "start several servers and give `query` all of their addresses")
    from splitveil.cli import interruption
    from splitveil.cli.console import print_json
    from splitveil.core.printing import escaped
    from splitveil.server.deployment import KEPT
    from splitveil.server.journal import log_as_json, log_as_text
    from splitveil.server.lifecycle import run_until_told
    from splitveil.server.limits import Limits
    from splitveil.server.policy import PrivacyPolicy
    from splitveil.server.security import Tokens
    from splitveil.server.server import Server
    from splitveil.wire.bundle import Bundle

    (log_as_json if log_json else log_as_text)()
    tls = _tls(tls_cert, tls_key, client_ca)
    tokens = Tokens(token_file) if token_file is not None else None
    server = Server(
        Bundle.load(bundle, keep=KEPT),
        host,
        port,
        max_batch,
        http_port=http_port,
        metrics_port=metrics_port,
        tls=tls,
        tokens=tokens,
        limits=Limits(payload=max_payload, queue=max_queue, connections=max_connections),
        policy=PrivacyPolicy.read(privacy_policy) if privacy_policy is not None else None,
        signed_by=signed_by,
        threads=threads,
        allow_missing_contract=allow_missing_contract,
        insecure=insecure,
    )

    def ready(server: Server) -> None:
        interruption.again()
        if as_json:
            print_json(server.describe_as_json())
        else:
            print(f"serving {escaped(server.describe())}", flush=True)

    run_until_told(server, ready, watch)


def _serve_on_ray(
    bundle: Path, host: str, port: int | None, replicas: int, max_batch: int, token_file: Path | None, insecure: bool,
    given: dict[str, str],
) -> None:  # fmt: skip
    from splitveil.server.ray_app import PORT, serve_on_ray
    from splitveil.server.security import Tokens, refuse_exposure

    unknown = [option for name, option in given.items() if name not in ON_RAY]
    if unknown:
        _refuse(f"{', '.join(unknown)} beside --ray", "leave it out, or serve without --ray, which keeps all of them")
    refuse_exposure(host, None, Tokens(token_file) if token_file else None, insecure)
    serve_on_ray(
        bundle, host=host, port=PORT if port is None else port, replicas=replicas, max_batch=max_batch,
        token_file=token_file,
    )  # fmt: skip


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse(got: str, remedy: str) -> NoReturn:
    from splitveil.core.errors import InputError

    raise InputError(f"expected options that go together, got {got}; {remedy}.")


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> "Tls | None":
    from splitveil.core.errors import InputError
    from splitveil.server.security import Tls

    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise InputError("expected --tls-cert and --tls-key together, got one of them or only --client-ca; give both.")
    return Tls(certificate, key, client_ca)
