"""``splitveil query``: ask a served bundle about images, as a device does."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from splitveil.records import Manifest

MOST_ROWS = 20


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    to: Annotated[str, typer.Option("--to", metavar="HOST:PORT", help="Where it is served.")],
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", metavar="FILE", help="A picture or .npy array; may be repeated.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="A data set: its first test images.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many images of --data.")] = 16,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Run the edge half here, send the features, print the answers."""
    import numpy as np

    from splitveil.bundle import Bundle
    from splitveil.errors import InputError
    from splitveil.records import dumps
    from splitveil.serving.edge import Edge

    if bool(inputs) == bool(data):
        raise InputError("expected either --input FILE or --data DATA; give one of them.")
    found = Bundle.load(bundle)
    m = found.manifest
    asked = list(_files(inputs, m) if inputs else _test_images(data or "", n))
    answers, times, right = [], [], []
    with Edge(found, to) as edge:
        for name, x, y in asked:
            start = time.perf_counter()
            logits = edge.ask(x[None])[0].astype(float)
            times.append(1e3 * (time.perf_counter() - start))
            odds = np.exp(logits - logits.max())
            best = int(logits.argmax())
            if y is not None:
                right.append(best == y)
            answers.append(
                {
                    "input": name,
                    "class": m.classes[best],
                    "confidence": float(odds[best] / odds.sum()),
                    "logits": logits.tolist(),
                }
            )
        sent = edge.bytes_per_image
    result = {
        "contract": m.contract,
        "model": m.name,
        "cut": m.cut.name,
        "defense": m.defense,
        "codec": m.codec,
        "n": len(answers),
        "accuracy": sum(right) / len(right) if right else None,
        "bytes_per_image": sent,
        "milliseconds_p50": float(np.median(times)),
        "answers": answers,
    }
    if json:
        typer.echo(dumps(result))
    else:
        _show(result, times)


def _files(paths: list[Path], manifest: "Manifest") -> Iterator[tuple[str, Any, int | None]]:
    from splitveil.serving.pictures import read_images

    for path in paths:
        images = read_images(path, manifest.image_shape)
        for i, x in enumerate(images):
            yield str(path) if len(images) == 1 else f"{path}[{i}]", x, None


def _test_images(spec: str, n: int) -> Iterator[tuple[str, Any, int | None]]:
    from splitveil.data import load_data

    test = load_data(spec).test
    for i in range(min(n, len(test))):
        yield f"{spec}[{i}]", test.x[i], int(test.y[i])


def _show(result: dict[str, Any], times: list[float]) -> None:
    from splitveil.cli.console import out, show_table

    rows = [
        (a["input"], a["class"], f"{a['confidence']:.3f}", f"{ms:.1f}", f"{result['bytes_per_image']:,}")
        for a, ms in zip(result["answers"][:MOST_ROWS], times, strict=False)
    ]
    show_table("", ("input", "class", "confidence", "ms", "bytes sent"), rows, left=2)
    if result["n"] > MOST_ROWS:
        out.print(f"and {result['n'] - MOST_ROWS} more")
    accuracy = "" if result["accuracy"] is None else f"accuracy {result['accuracy']:.3f}, "
    out.print(f"{result['n']} images, {accuracy}p50 {result['milliseconds_p50']:.1f} ms")
