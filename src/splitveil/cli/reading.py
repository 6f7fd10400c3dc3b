"""What commands read: data sets with their broken pictures, and what ``query`` asks about."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

if TYPE_CHECKING:
    from splitveil.core.records import Manifest

JudgeAdapt: TypeAlias = Annotated[
    bool, typer.Option("--judge-adapt", help="ask it also after it has learned from each attack's guesses")
]
AcceleratorAsked: TypeAlias = Annotated[
    str, typer.Option("--accelerator", metavar="auto|cpu|cuda|cuda:1|mps", help="what computes; auto: a GPU if any")
]
SkipBroken: TypeAlias = Annotated[
    bool, typer.Option("--skip-broken", help="leave out pictures that cannot be read, and count them")
]


TrustModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--trust-model", metavar="PATH.py[:NAME]",
        help="run this file for a bundle whose model is made by one; nothing that a bundle names is run unasked",
    ),
]  # fmt: skip


def trusted(model: str, given: str | None) -> str | None:
    """What `restore` is given for a bundle that names `model`: a file that the user names, whatever the bundle says.

    Of ``PATH.py`` alone the bundle's name behind the colon is taken.

    Raises:
        InputError: no Python file, or a bundle whose model is none.
    """
    from splitveil.core.errors import InputError
    from splitveil.core.printing import phrase

    if given is None:
        return None
    base, mark, logits = model.partition("?logits=")
    path, _, name = base.rpartition(":")
    if not path.endswith(".py"):
        raise InputError(f"expected a bundle whose model is a file, got {phrase(model)}; leave --trust-model out.")
    if given.endswith(".py"):
        return f"{given}:{name}{mark}{logits}"
    if not given.rpartition(":")[0].endswith(".py"):
        raise InputError(f"expected PATH.py or PATH.py:NAME for --trust-model, got {given!r}; name the model's file.")
    return given


class Inputs(NamedTuple):
    """Name, image (C, H, W) and label, if known, of each input; the broken pictures that were left out."""

    images: Iterable[tuple[str, Any, int | None]]
    skipped: tuple[str, ...] = ()


def read_asked(
    inputs: Sequence[Path], camera: int | None, data: str | None, n: int, manifest: "Manifest", *, skip_broken: bool
) -> Inputs:
    """Files and folders, read before anything is asked; or a camera or a film, frame by frame; or a data set."""
    from splitveil.cli.console import tell
    from splitveil.device.inputs import read_inputs
    from splitveil.wire.pictures import FILMS, Faults, skipped_words

    if data is not None:
        from splitveil.lab.data import load_data

        test = load_data(data, skip_broken=skip_broken)
        tell(test.remarks)
        chosen = [(f"{data}[{i}]", test.test.x[i], int(test.test.y[i])) for i in range(min(n, len(test.test)))]
        return Inputs(chosen, test.skipped)
    films = [path for path in inputs if path.suffix.lower() in FILMS and not path.is_dir()]
    faults = Faults()
    images: list[tuple[str, Any, int | None]] = [
        (name, x, None) for name, x in read_inputs([path for path in inputs if path not in films], manifest, faults)
    ]
    skipped = faults.settle("--input", len(images) + len(faults.found), skip=skip_broken)
    if skipped:
        tell([skipped_words(skipped, len(images) + len(skipped))])
    sources = [*films, *(() if camera is None else (camera,))]
    return Inputs((each for part in (images, *(_frames(s, n, manifest) for s in sources)) for each in part), skipped)


def _frames(source: int | Path, n: int, manifest: "Manifest") -> Iterator[tuple[str, Any, int | None]]:
    from splitveil.device.inputs import picture_of
    from splitveil.wire.pictures import frames, read_picture

    picture = picture_of(manifest)
    for i, frame in enumerate(frames(source, n)):
        yield f"{'camera ' if isinstance(source, int) else ''}{source}[{i}]", read_picture(frame, picture), None
