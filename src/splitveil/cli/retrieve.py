"""``splitveil retrieve``: how well a bundle finds an identity again in the images of other cameras."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitveil.cli.reading import SkipBroken, TrustModel

if TYPE_CHECKING:
    from splitveil.core.records import Manifest
    from splitveil.lab.auditing.gallery import Retrieval
    from splitveil.lab.data import Dataset


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="a bundle's folder")],
    data: Annotated[str, typer.Option(help="vehicles or reid:PATH, with the identities that the bundle trained on")],
    seed: Annotated[int, typer.Option(min=0, help="of the queries, where the set marks none, and of the noise")] = 0,
    trust_model: TrustModel = None,
    skip_broken: SkipBroken = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Search the test part by the answers of the protected split: mAP, rank 1 and 5. Utility: larger is better."""
    from dataclasses import asdict

    from splitveil.cli.console import err, print_json, show_table, showing_progress, tell
    from splitveil.cli.console import out as screen
    from splitveil.cli.reading import trusted
    from splitveil.core.progress import task
    from splitveil.core.records import dumps
    from splitveil.lab.auditing.gallery import Noiseless, retrieval
    from splitveil.lab.data import load_data
    from splitveil.lab.restoring import Shipped, restore, restore_shipped
    from splitveil.wire.bundle import Bundle

    found = Bundle.load(bundle)
    m = found.manifest
    images = load_data(data, skip_broken=skip_broken)
    tell(images.remarks)
    _check(m, images)
    if tuple(m.classes) != images.classes:
        err.print(f"warning: {data} has other identities than {bundle} was trained on", style="yellow")
    # In 8 bits the edge half is its graph; what its noise is about can only be asked of the floats, which is said.
    given = trusted(m.model, trust_model)
    protected = (restore_shipped if m.quantization else restore)(found, model=given)
    noisy = protected.defense.stochastic
    with showing_progress(), task(f"retrieve {m.name}", 1 + noisy) as show:
        deployed = retrieval(protected, images, seed=seed)
        show(1)
        quiet = protected.floats if isinstance(protected, Shipped) else protected
        bare = retrieval(Noiseless.of(quiet), images, seed=seed) if noisy else None
    if as_json:
        record = {
            "bundle": str(bundle), "contract": m.contract, "data": data, "seed": seed, "cut": m.cut.name,
            "defense": m.defense, "codec": m.codec, "skipped": images.skipped,
            "same_identities": tuple(m.classes) == images.classes,
            "protected": asdict(deployed), "without_noise": asdict(bare) if bare else None,
        }  # fmt: skip
        print_json(dumps(record))
        return
    without = "without its noise" + (", in floats" if m.quantization else "")
    rows = [_cells("as deployed", deployed), *([_cells(without, bare)] if bare else [])]
    screen.print(f"{m.name} on {data}: {m.cut.name}, {m.defense}, {m.codec}", highlight=False)
    show_table("", ["", "mAP", "rank 1", "rank 5", "chance of rank 1"], rows)
    screen.print(
        f"{deployed.n_queries:,} queries, {deployed.n_gallery:,} images in the gallery; larger is better; "
        "in brackets 95 % over queries",
        highlight=False,
    )


def _check(manifest: "Manifest", images: "Dataset") -> None:
    """Images and classes of the bundle."""
    from splitveil.core.errors import InputError

    if images.shape != manifest.image_shape:
        raise InputError(
            f"{manifest.name} takes {manifest.image_shape} images, got {images.shape}; add ?size= or ?channels= to "
            "--data."
        )
    if "camera" not in images.test.attributes:
        raise InputError(
            f"expected images with the attribute camera, got {images.name}; use --data vehicles or reid:PATH."
        )
    if len(images.classes) != len(manifest.classes):
        raise InputError(
            f"expected the {len(manifest.classes):,} identities that {manifest.name} answers with, got "
            f"{len(images.classes):,} in {images.name}; give --data the set that it was trained on."
        )


def _cells(name: str, found: "Retrieval") -> list[str]:
    from splitveil.cli.cards import span

    ranks = (
        f"{v:.3f} ({span(i, 3)})" for v, i in ((found.rank1, found.rank1_interval), (found.rank5, found.rank5_interval))
    )
    return [name, f"{found.map:.3f}", *ranks, f"{found.chance:.3f}"]
