"""``splitveil cuts``: every legal cut of a model with its cost."""

import math
from dataclasses import asdict
from typing import Annotated

import typer


def run(
    model: Annotated[str, typer.Argument(help="name of the zoo, timm:NAME, torchvision:NAME or PATH.py:FACTORY")],
    weights: Annotated[str | None, typer.Option(help="checked against the model; cuts do not depend on them")] = None,
    logits: Annotated[
        str | None, typer.Option(help="where the logits are in the answer: a key, a field or a place")
    ] = None,
    shape: Annotated[str | None, typer.Option("--input", help="image as CxHxW, such as 3x32x32")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """List every legal cut: what would cross, and what each half costs."""
    import torch

    from splitveil.cli.console import out, print_json, show_table, tell
    from splitveil.core.records import dumps
    from splitveil.lab.cut import trace
    from splitveil.lab.models.loader import load_model

    loaded = load_model(model, shape=parse_shape(shape), classes=None, weights=weights, logits=logits)
    model = loaded.name
    tell(loaded.remarks)
    traced = trace(loaded.model, torch.zeros(2, *loaded.shape))
    if traced.random:
        tell([f"the model is {traced.random}: an audit takes it as it is, fit and bundles refuse it"])
    found, gaps = traced.cuts(), traced.gaps()
    copied = {c.name: names for c in found if (names := traced.copied(c.name))}
    if as_json:
        page = {"model": model, "input": list(loaded.shape), "cuts": [c.model_dump() for c in found]}
        print_json(dumps({**page, "gaps": [asdict(gap) for gap in gaps], "copied": copied}))
        return
    rows = [
        [
            c.name,
            "x".join(map(str, c.shape)),
            f"{size(c.bytes_fp32)} / {size(c.bytes_u8)}",
            f"{count(c.edge_macs)} / {count(c.cloud_macs)}",
            f"{c.edge_share:.1%}",
            f"{count(c.edge_params)} / {count(c.cloud_params)}",
            size(c.edge_peak_bytes),
        ]
        for c in found
    ]
    image = "x".join(map(str, loaded.shape))
    show_table(
        f"{model}: {len(found)} legal cuts for {image} images ({size(math.prod(loaded.shape))} each as bytes)",
        ["cut", "z", "fp32 / 8 bit", "MACs edge / cloud", "share", "params edge / cloud", "edge peak"],
        rows,
        left=2,
    )
    for gap in gaps:
        where = f"between {gap.after or 'the input'} and {gap.before or 'the output'}"
        out.print(f"No cut {where} ({gap.share:.0%} of the MACs): {gap.why}.", highlight=False, soft_wrap=True)
    if copied:
        constants = sorted({name for names in copied.values() for name in names})
        words = f"Both halves get a copy of constants that blocks on both sides read: {', '.join(constants)}."
        out.print(words, highlight=False, soft_wrap=True)


def parse_shape(text: str | None) -> tuple[int, int, int] | None:
    """``3x32x32`` -> (3, 32, 32).

    Raises:
        InputError: not three positive numbers.
    """
    from splitveil.core.errors import InputError

    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise InputError(f"expected --input as CxHxW, got {text!r}; write for example --input 3x32x32.")
    return int(parts[0]), int(parts[1]), int(parts[2])


def size(number: float) -> str:
    """Bytes for people: 65536 -> ``64.0 KiB``."""
    for unit in ("B", "K", "M"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}iB"
        number /= 1024
    return f"{number:.1f} GiB"


def count(number: float) -> str:
    """Counts for people: 40550000 -> ``40.5 M``."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.0f}" if not unit else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f} G"
