"""``splitveil query``: ask a served bundle about images, as a device does."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitveil.cli.reading import SkipBroken

if TYPE_CHECKING:
    from splitveil.core.records import Manifest
    from splitveil.device.answer import Answer

MOST_ROWS = 20
WIDEST_INPUT = 80


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    to: Annotated[str, typer.Option("--to", metavar="HOST:PORT[,HOST:PORT]", help="Where it is served; in turn.")],
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input", metavar="PATH", help="A picture, a folder of pictures, a film or a .npy array; may be repeated."
        ),
    ] = None,
    camera: Annotated[int | None, typer.Option(min=0, help="A camera's number, 0 for the first; needs OpenCV.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="A data set: its first test images.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many images of --data, or frames of a camera or film.")] = 16,
    skip_broken: SkipBroken = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes shown for an image, most probable first.")] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds for one image, retries included.")] = 30.0,
    attempts: Annotated[int, typer.Option(min=1, help="For one image, the first included.")] = 5,
    compress: Annotated[
        str | None, typer.Option(help="zstd; the length of messages then depends on the picture.")
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Answer here with the bundle's cloud half if no server does.")
    ] = False,
    token_file: Annotated[Path | None, typer.Option(help="Its first line is sent as bearer token.")] = None,
    ca: Annotated[Path | None, typer.Option(help="TLS: certificates (PEM) that the server's must go back to.")] = None,
    cert: Annotated[Path | None, typer.Option(help="Mutual TLS: this device's certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="Mutual TLS: its private key (PEM).")] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="TLS with well-known authorities; --ca and --cert imply it.")
    ] = False,
    server_name: Annotated[
        str | None, typer.Option(help="TLS: name on the server's certificate, if not the host.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Send the token in plain text to another machine.")
    ] = False,
    signed_by: Annotated[Path | None, typer.Option(help="Public key whose owner must have signed the bundle.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of the edge half.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Run the edge half here, send the features, print the answers."""
    import numpy as np

    from splitveil.cli.console import print_json
    from splitveil.cli.reading import read_asked
    from splitveil.core.errors import InputError
    from splitveil.core.records import Accuracy, dumps
    from splitveil.device.client_tls import ClientTls
    from splitveil.device.edge import Edge
    from splitveil.device.retry import Retry
    from splitveil.wire.bundle import CLOUD, Bundle, load_signed
    from splitveil.wire.pictures import assumed

    if (bool(inputs) or camera is not None) == bool(data):
        raise InputError("expected either --input PATH or --camera N, or --data DATA; give one of them.")
    secured = ClientTls(ca, cert, key, server_name) if tls or ca or cert or key or server_name else None
    token = None if token_file is None else _first_line(token_file)
    found = Bundle.load(bundle) if signed_by is None else load_signed(bundle, signed_by)
    m = found.manifest
    asked = read_asked(inputs or [], camera, data, n, m, skip_broken=skip_broken)
    if m.picture is None and not data:
        _warn_assumed(m)
    given: list[tuple[str, Any, int | None, Answer, float]] = []
    with Edge(
        found, [t for t in to.split(",") if t], timeout=timeout, retries=Retry(attempts), token=token, tls=secured,
        threads=threads, compress=compress, fallback=CLOUD if fallback else None, insecure=insecure,
    ) as edge:  # fmt: skip
        for name, x, y in asked.images:
            start = time.perf_counter()
            answer = edge.answer(x[None])
            given.append((name, x, y, answer, 1e3 * (time.perf_counter() - start)))
    answers, right = [], []
    for name, _, y, answer, milliseconds in given:
        logits = answer.logits[0].astype(float)
        odds = np.exp(logits - logits.max())
        odds /= odds.sum()
        order = np.argsort(-logits, kind="stable")
        best = int(order[0])
        if y is not None:
            right.append(best == y)
        answers.append(
            {
                "input": name,
                "class": m.classes[best],
                "confidence": float(odds[best]),
                "top": [{"class": m.classes[k], "probability": float(odds[k])} for k in order[:top]],
                "logits": logits.tolist(),
                "probabilities": odds.tolist(),
                "milliseconds": milliseconds,
                "bytes": answer.sent,
                "attempts": answer.attempts,
                "local": answer.local,
            }
        )
    result = {
        "contract": m.contract,
        "model": m.name,
        "cut": m.cut.name,
        "defense": m.defense,
        "codec": m.codec,
        "compress": compress,
        "n": len(answers),
        "local": sum(answer.local for *_, answer, _ in given),
        "accuracy": sum(right) / len(right) if right else None,
        "tested": Accuracy.of(sum(right), len(right)) if right else None,
        "classes": m.classes,
        "bytes_per_image": edge.bytes_per_image,
        "bytes": _bytes([answer for *_, answer, _ in given], [x for _, x, *_ in given]),
        "milliseconds_p50": float(np.median([milliseconds for *_, milliseconds in given])),
        "picture": assumed(m),
        "picture_assumed": m.picture is None,
        "skipped": list(asked.skipped),
        "answers": answers,
    }
    if json:
        print_json(dumps(result))
    else:
        _show(result)


def _bytes(answers: Sequence["Answer"], images: Sequence[Any]) -> dict[str, float | None]:
    """Medians over images: what was sent, and what the same images would be as picture files."""
    import numpy as np

    from splitveil.device.inputs import JPEG_QUALITY, file_sizes

    sent = [a.sent for a in answers if not a.local]
    files = [sizes for x in images if (sizes := file_sizes(x)) is not None]
    png, jpeg = np.median(files, axis=0).tolist() if files else (None, None)
    return {"sent": float(np.median(sent)) if sent else None, "png": png, "jpeg": jpeg, "jpeg_quality": JPEG_QUALITY}


def _first_line(path: Path) -> str:
    from splitveil.core.errors import InputError
    from splitveil.wire.credentials import read_credential

    token = read_credential(path, "--token-file").decode("latin-1").partition("\n")[0].strip()
    if not token or not token.isascii() or not token.isprintable():
        raise InputError(f"{path} holds no token of printable ASCII; give a file whose first line is the token.")
    return token


def _warn_assumed(manifest: "Manifest") -> None:
    from splitveil.cli.console import err
    from splitveil.wire.pictures import assumed, picture_words

    if picture := assumed(manifest):
        words = f"this bundle does not say how its pictures were made; assumed: {picture_words(picture)}"
        err.print(f"warning: {words}", style="yellow", highlight=False, soft_wrap=True, markup=False)


def _show(result: dict[str, Any]) -> None:
    from splitveil.cli.console import out, printable, show_table

    rows = [
        (
            printable(a["input"], WIDEST_INPUT),
            ", ".join(f"{printable(k['class'])} {k['probability']:.3f}" for k in a["top"]),
            f"{a['milliseconds']:.1f}",
            "answered here" if a["local"] else f"{a['bytes']:,}",
        )
        for a in result["answers"][:MOST_ROWS]
    ]  # fmt: skip
    show_table("", ("input", "class and probability", "ms", "bytes sent"), rows, left=2)
    if result["n"] > MOST_ROWS:
        out.print(f"and {result['n'] - MOST_ROWS} more")
    accuracy = "" if result["tested"] is None else f"accuracy {result['tested']} (95 %), "
    out.print(f"{result['n']} image{'s' * (result['n'] != 1)}, {accuracy}p50 {result['milliseconds_p50']:.1f} ms")
    told = result["bytes"]
    if told["sent"] and told["png"]:
        out.print(
            f"{told['sent']:,.0f} bytes an image (median): {told['sent'] / told['png']:.1f} times its PNG "
            f"({told['png']:,.0f}), {told['sent'] / told['jpeg']:.1f} times its JPEG of quality {told['jpeg_quality']} "
            f"({told['jpeg']:,.0f})"
        )
    if result["local"]:
        out.print(f"{result['local']} of them answered here: no server did", style="yellow")
