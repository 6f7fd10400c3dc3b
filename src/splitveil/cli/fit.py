"""``splitveil fit``: train a protected split and write it as a bundle."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitveil.cli.reading import AcceleratorAsked, SkipBroken

if TYPE_CHECKING:
    from splitveil.core.records import Accuracy, Lost

UNTRAINED_MODEL = 10
"""Epochs from random weights."""
NEVER = "its defence was never trained: do not count on it"


def run(
    model: Annotated[str, typer.Argument(help="name of the zoo, timm:NAME, torchvision:NAME or PATH.py:FACTORY")],
    data: Annotated[
        str, typer.Option(help="digits, vehicles, npz:PATH, folder:PATH, cifar10 and others; see splitveil list data")
    ],
    at: Annotated[str, typer.Option(help="where to cut; see splitveil cuts MODEL")],
    out: Annotated[Path, typer.Option(help="folder of the bundle")],
    weights: Annotated[
        str | None, typer.Option(help="to start from: .safetensors, .pth, .ckpt, ...: FILE or FILE#KEY, or pretrained")
    ] = None,
    logits: Annotated[
        str | None, typer.Option(help="where the logits are in the answer: a key, a field or a place")
    ] = None,
    defense: Annotated[
        list[str] | None, typer.Option(help="NAME[:k=v,...]; see splitveil list defenses; several work in turn")
    ] = None,
    codec: Annotated[str, typer.Option(help="NAME[:k=v,...]; see splitveil list codecs")] = "uniform:bits=8",
    epochs: Annotated[
        int | None,
        typer.Option(min=0, help="default 10 without --weights, else what the defense needs; 0 keeps the weights"),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate; default 0.002, with --weights 0.0005")] = None,
    recipe: Annotated[
        str,
        typer.Option(help="NAME[:k=v,...] of how to train; see splitveil list recipes; --epochs and --lr go before"),
    ] = "usual",
    seed: Annotated[int, typer.Option(min=0, help="of initialisation, shuffling and noise")] = 0,
    quantize: Annotated[
        str | None, typer.Option(help="int8: also OUT-int8, a bundle whose edge half computes in 8-bit integers")
    ] = None,
    accelerator: AcceleratorAsked = "auto",
    skip_broken: SkipBroken = False,
    force: Annotated[bool, typer.Option("--force", help="replace the bundle that is there")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on where a killed run stopped")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Train a split with its defence on the training part, measure it on the test part, and write the bundle."""
    import shutil

    import torch

    from splitveil.cli.console import err, print_json, showing_progress, tell
    from splitveil.cli.console import out as screen
    from splitveil.core.errors import InputError
    from splitveil.core.records import dumps
    from splitveil.core.registry import Spec
    from splitveil.lab.accelerator import Accelerator
    from splitveil.lab.cut import split
    from splitveil.lab.data import load_data
    from splitveil.lab.defenses import DEFENSES
    from splitveil.lab.defenses.noise import privacy_words
    from splitveil.lab.export import save
    from splitveil.lab.models.loader import load_model
    from splitveil.lab.protection import lost, protect, right_of, tested
    from splitveil.lab.recipe import USUAL, Recipe, read_recipe, usual_rate
    from splitveil.wire.bundle import refuse_foreign, refuse_taken
    from splitveil.wire.codecs import CODECS

    computing = Accelerator.chosen(accelerator)
    if quantize not in (None, "int8"):
        raise InputError(f"expected --quantize int8, got {quantize!r}; use int8 or leave it out.")
    refuse_foreign(out)
    integer, partial = out.with_name(f"{out.name}-int8"), out.with_name(f".{out.name}.partial")
    # Whoever left a checkpoint there was allowed to write the bundle.
    for folder in [out, integer] if quantize else [out]:
        refuse_taken(folder, force=force or (resume and partial.exists()))
    specs = defense or ["none"]
    chosen = DEFENSES.build(specs[0] if len(specs) == 1 else f"chain:of=[{' + '.join(specs)}]")
    wire = CODECS.build(codec)
    images = load_data(data, skip_broken=skip_broken)
    loaded = load_model(
        model, shape=images.shape, classes=len(images.classes), weights=weights, seed=seed, logits=logits
    )
    model = loaded.name
    tell([*images.remarks, *loaded.remarks])
    halves = split(loaded.model, at, torch.zeros(2, *images.shape))
    if partial.exists() and not resume:
        raise InputError(f"a killed run left {partial}; go on with --resume or delete it.")
    name = " + ".join(Spec.parse(spec).name for spec in specs)
    needed = chosen.least_epochs if weights else max(UNTRAINED_MODEL, chosen.least_epochs)
    usual = Recipe(epochs=needed, lr=usual_rate(trained=bool(weights)))
    trained = read_recipe(recipe, epochs=epochs, lr=lr, usual=usual)
    if weights and needed and trained == usual and epochs is None and recipe == USUAL:
        (err if as_json else screen).print(f"{needed} epochs: what {name} needs; --epochs changes it")
    epochs = trained.epochs
    if weights is None and not epochs:
        err.print("warning: neither --weights nor training: the bundle answers at random", style="yellow")
    if chosen.needs_training and not epochs:
        err.print(f"warning: {name} works by training and gets none: {NEVER}", style="yellow", soft_wrap=True)
    with showing_progress(), computing.used():
        whole = right_of(halves, images.test, seed) if weights else None
        protected, history = protect(
            halves, chosen, wire, images, recipe=trained, seed=seed,
            checkpoint=partial / "checkpoint.safetensors" if epochs else None, resume=resume,
        )  # fmt: skip
        right = right_of(protected, images.test, seed)
        now, before = tested(right), None if whole is None else tested(whole)
        cost = None if whole is None else lost(whole, right)
        bundle = save(
            protected, out, name=out.name, model_spec=model, image_shape=images.shape, classes=images.classes,
            task_accuracy=right.float().mean().item(), tested=now, undefended=before, picture=images.picture,
        )  # fmt: skip
        found = None
        if quantize:
            from splitveil.lab.export.quantizing import write_quantized

            found = write_quantized(bundle, images, integer, seed=seed).manifest.quantization
    shutil.rmtree(partial, ignore_errors=True)
    manifest = bundle.manifest
    privacy = privacy_words(protected.defense, manifest.cut.shape) if protected.defense.stochastic else None
    if as_json:
        record = {
            "bundle": str(out), "model": model, "weights": loaded.weights, "data": data, "cut": manifest.cut,
            "defense": manifest.defense, "codec": manifest.codec, "epochs": epochs, "recipe": repr(trained),
            "seed": seed,
            "task_accuracy": manifest.task_accuracy, "tested": now, "undefended": before, "lost": cost,
            "untrained": manifest.untrained, "losses": history.losses, "contract": manifest.contract,
            "differential_privacy": privacy, "quantization": found, "remarks": [*images.remarks, *loaded.remarks],
            "picture": manifest.picture, "skipped": images.skipped,
        }  # fmt: skip
        print_json(dumps(record))
    else:
        screen.print(
            f"{out}: {model} cut at {manifest.cut.name}, {manifest.defense}, {manifest.codec}; "
            f"{now} of {now.n:,} test images right",
            soft_wrap=True,
        )
        screen.print(_beside(before, cost), soft_wrap=True)
        if manifest.untrained:
            screen.print(NEVER)
        if found:
            from splitveil.cli.bundle import show_quantization

            show_quantization(found)
            screen.print(f"{integer}: the same with an edge half of 8-bit integers, under a contract of its own")
        if privacy:
            screen.print(privacy, highlight=False, soft_wrap=True)
        given = f"{shlex.quote(data)}{' --skip-broken' if skip_broken else ''}"
        # Nothing that a bundle names is run unasked.
        own = f" --trust-model {shlex.quote(model.partition('.py')[0] + '.py')}" if ".py:" in model else ""
        told = f"next: splitveil audit {out} --data {given}{own} --out DIR, then splitveil serve {out}"
        screen.print(told, highlight=False, soft_wrap=True)


def _beside(before: "Accuracy | None", cost: "Lost | None") -> str:
    """What the defended accuracy is to be held against."""
    if before is None or cost is None:
        told = "undefended: none, for without --weights there is no trained model to hold it against"
    else:
        same = "" if cost.told else f", which {cost.n:,} images do not tell from none"
        told = f"undefended {before}; lost {cost}{same}"
    return f"{told}\nin brackets: 95 % intervals over the test images, of the loss paired"
