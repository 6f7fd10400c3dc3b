"""``splitveil bundle``: show, verify, sign, halve, quantise and export a bundle."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitveil.cli.reading import SkipBroken, TrustModel

if TYPE_CHECKING:
    from splitveil.core.records import Accuracy, Manifest, Quantization
    from splitveil.wire.bundle import Bundle

app = typer.Typer(help="Show, verify, sign, halve, quantise and export bundles.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


class Side(StrEnum):
    """What `split` writes."""

    edge = "edge"
    cloud = "cloud"


class ExportTarget(StrEnum):
    """What `export` writes."""

    triton = "triton"
    kserve = "kserve"
    openvino = "openvino"
    executorch = "executorch"


class Backend(StrEnum):
    """What runs the graph inside Triton."""

    onnxruntime = "onnxruntime"
    python = "python"


class Runtime(StrEnum):
    """What a KServe service runs."""

    splitveil = "splitveil"
    triton = "triton"


@app.command("show")
def show(folder: Folder, json: Json = False) -> None:
    """Show what a bundle holds and what both halves agreed on."""
    from splitveil.cli.console import print_json, printable, show_table
    from splitveil.core.records import dumps
    from splitveil.wire.bundle import SIGNATURE, Bundle

    bundle = Bundle.load(folder)
    m, card = bundle.manifest, bundle.card
    if json:
        print_json(dumps({"manifest": m, "card": card}))
        return
    rows = [
        ("halves", f"the {m.half} half alone" if m.half else "both"),
        ("model", m.model),
        ("cut", f"{m.cut.name} ({m.cut.edge_share:.1%} of the work on the device)"),
        ("defence", m.defense + (", fresh noise for every request" if m.noise else "")),
        ("codec", m.codec),
        ("input", _tensor(m.input.name, m.input.datatype, m.input.shape)),
        ("pictures", _pictures(m)),
        ("features", _tensor(m.features.name, m.features.datatype, m.features.shape)),
        ("output", f"{_tensor(m.output.name, m.output.datatype, m.output.shape)}: {_listed(m.classes)}"),
        ("task accuracy", _accuracy(m.task_accuracy, m.tested)),
        *([("undefended", _accuracy(m.undefended.share, m.undefended))] if m.undefended else []),
        ("training", _training(m)),
        (
            "quantised edge",
            f"{m.quantization.activations}, weights {m.quantization.weights}" if m.quantization else "no",
        ),
        ("contract", m.contract),
        ("signature", "there; check it with `bundle verify --key`" if (folder / SIGNATURE).exists() else "none"),
        ("leakage card", _card(bundle)),
        *(
            (printable(name), f"{(folder / name).stat().st_size:,} bytes, sha256 {digest[:16]}")
            for name, digest in m.files.items()
        ),
    ]
    show_table(_titled(folder, m.name), ("", "this bundle"), rows, left=2)


@app.command("verify")
def verify(
    folder: Folder,
    key: Annotated[Path | None, typer.Option(help="Public key that must have signed it.")] = None,
    json: Json = False,
) -> None:
    """Check every file against its hash, the contract against the halves, and a signature; exit 1 if one is wrong."""
    from splitveil.cli.console import print_json, show_table
    from splitveil.core.errors import BundleError
    from splitveil.core.records import dumps
    from splitveil.wire.bundle import Bundle, check_signature

    bundle = Bundle.peek(folder)
    states, problems = bundle.examine()
    signed: bool | None = None
    if key:
        try:
            signed = check_signature(bundle, key) is bundle
        except BundleError as error:
            signed = False
            problems.append(str(error))
    if json:
        print_json(dumps({"files": states, "signed": signed, "problems": problems}))
    else:
        show_table(_titled(folder, bundle.manifest.name), ("file", "state"), list(states.items()), left=2)
        if signed:
            typer.echo(f"signed by {key}")
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)


@app.command("keygen")
def keygen(prefix: Annotated[Path, typer.Argument(help="Of the two files: PREFIX.key and PREFIX.pub.")]) -> None:
    """Make an Ed25519 key pair: the private key stays with whoever signs, the public one goes to all who verify."""
    from splitveil.wire.bundle import make_keys

    private, public = make_keys(prefix)
    typer.echo(f"private key, for its owner alone: {private}\npublic key: {public}")


@app.command("sign")
def sign_manifest(
    folder: Folder,
    key: Annotated[Path, typer.Option(help="Private key that `bundle keygen` made.")],
) -> None:
    """Check the bundle once more and sign its manifest, which names the hash of every file."""
    from splitveil.wire.bundle import SIGNATURE, Bundle, sign

    made = sign(Bundle.load(folder), key)
    typer.echo(f"{folder / SIGNATURE}: signed by key {made.key[:16]}")


@app.command("split")
def split(
    folder: Folder,
    half: Annotated[Side, typer.Option(help="Which half to write.")],
    out: Annotated[Path, typer.Option(help="Folder of the half.")],
    force: Force = False,
) -> None:
    """Write one half alone: the edge half for the device, the cloud half for the server. The contract stays."""
    from splitveil.wire.bundle import Bundle, refuse_taken, write_half

    refuse_taken(out, force=force)
    made = write_half(Bundle.load(folder), half.value, out)
    size = sum((out / name).stat().st_size for name in made.manifest.files)
    typer.echo(f"{out}: the {half.value} half of {folder}, {size:,} bytes, contract {made.manifest.contract}")


@app.command("quantize")
def quantize(
    folder: Folder,
    data: Annotated[str, typer.Option(help="What it was trained with; see splitveil list data.")],
    out: Annotated[Path, typer.Option(help="Folder of the quantised bundle.")],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Training images that set the scales.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of images and of the noise.")] = 0,
    skip_broken: SkipBroken = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Turn the edge half into 8-bit integers and measure what that costs, on all test images."""
    from splitveil.cli.console import print_json, showing_progress, tell
    from splitveil.lab.data import load_data
    from splitveil.lab.export.quantizing import write_quantized
    from splitveil.wire.bundle import Bundle, refuse_taken

    refuse_taken(out, force=force)
    bundle, images = Bundle.load(folder), load_data(data, skip_broken=skip_broken)
    tell(images.remarks)
    with showing_progress():
        made = write_quantized(bundle, images, out, n=n, seed=seed)
    found = made.manifest.quantization
    assert found is not None  # noqa: S101  # just written
    if json:
        print_json(found.to_json())
        return
    show_quantization(found)
    typer.echo(f"{out}: contract {made.manifest.contract}; serve and query this one together")
    if bundle.card:
        typer.echo("the leakage card was of the float edge and is not in it; run `splitveil audit` on this one")


@app.command("export")
def export(
    folder: Folder,
    target: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="Folder, or manifest to write.")],
    to: Annotated[
        ExportTarget,
        typer.Option(
            help="Cloud half: triton, a model repository; kserve, an InferenceService. Edge half: openvino, executorch."
        ),
    ],
    backend: Annotated[Backend, typer.Option(help="Of Triton.")] = Backend.onnxruntime,
    max_batch: Annotated[int, typer.Option(min=1, help="Rows of one run, in Triton.")] = 64,
    runtime: Annotated[Runtime, typer.Option(help="What KServe runs.")] = Runtime.splitveil,
    storage: Annotated[str, typer.Option(help="URI of the bundle's or repository's copy in the cluster.")] = "",
    image: Annotated[str, typer.Option(help="Container image with SplitVeil inside.")] = "",
    replicas: Annotated[int, typer.Option(min=0, help="Least copies.")] = 1,
    cpu: Annotated[str, typer.Option(help="Processors of one copy.")] = "1",
    memory: Annotated[str, typer.Option(help="Memory of one copy.")] = "1Gi",
    tls_secret: Annotated[str, typer.Option(help="Secret with tls.crt and tls.key.")] = "",
    mutual: Annotated[bool, typer.Option("--mutual-tls", help="Ask clients for a certificate of its ca.crt.")] = False,
    token_secret: Annotated[str, typer.Option(help="Secret whose key `tokens` is a token file.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Neither TLS nor tokens, knowingly.")] = False,
    trust_model: TrustModel = None,
    force: Force = False,
) -> None:
    """Write what another server needs to run the cloud half, or another engine on the device to run the edge half."""
    from splitveil.lab.export.kserve import ClusterSettings, our_service, triton_service, write_service
    from splitveil.lab.export.triton import write_repository
    from splitveil.wire.bundle import Bundle, refuse_there

    bundle = Bundle.load(folder)
    if to is ExportTarget.triton:
        refuse_there(target / bundle.manifest.name, force=force)
        typer.echo(f"{write_repository(bundle, target, backend=backend.value, max_batch=max_batch)}: a Triton model")
        return
    refuse_there(target, force=force)
    if to in (ExportTarget.openvino, ExportTarget.executorch):
        from splitveil.cli.reading import trusted
        from splitveil.lab.export.engines import write_device_graph
        from splitveil.lab.restoring import restore

        given = trusted(bundle.manifest.model, trust_model)
        net = restore(bundle, model=given) if to is ExportTarget.executorch else None
        graph = write_device_graph(bundle, target, to.value, net)
        rows = "any number of pictures" if graph.batch is None else "one picture"
        typer.echo(
            f"{target}: {', '.join(graph.files)} for {rows} a call, largest difference from ONNX Runtime "
            f"{graph.largest_difference:.1e}, contract {graph.contract}"
        )
        return
    wanted = ClusterSettings(storage, image, replicas, cpu, memory, tls_secret, mutual, token_secret, insecure)
    made = (our_service if runtime is Runtime.splitveil else triton_service)(bundle.manifest, wanted)
    write_service(bundle, target, made)
    typer.echo(f"{target}: InferenceService {made['metadata']['name']}")


def show_quantization(found: "Quantization") -> None:
    """A table of before and after."""
    from splitveil.cli.console import show_table

    old, new = found.latency_before, found.latency_after
    rows = [
        (
            "test accuracy (95 %)",
            str(found.tested_before or f"{found.accuracy_before:.2%}"),
            str(found.tested_after or f"{found.accuracy_after:.2%}"),
        ),
        ("same answer", "", f"{found.agreement:.2%} of {found.tested_on:,}"),
        ("edge.onnx, bytes", f"{found.bytes_before:,}", f"{found.bytes_after:,}"),
        ("one picture, median", f"{old.median * 1e3:.3f} ms", f"{new.median * 1e3:.3f} ms"),
        ("one picture, p95", f"{old.p95 * 1e3:.3f} ms", f"{new.p95 * 1e3:.3f} ms"),
    ]
    show_table(f"edge half, {found.calibrated_on} images set the scales", ("", "float32", "int8"), rows)


def _pictures(manifest: "Manifest") -> str:
    from splitveil.wire.pictures import assumed, picture_words

    found = assumed(manifest)
    if found is None:
        return manifest.preprocessing or "none: no picture has that many channels"
    words = picture_words(found)
    return words if manifest.picture else f"not said by this bundle; assumed: {words}"


def _card(bundle: "Bundle") -> str:
    if bundle.card is None:
        return "none; run `splitveil audit`"
    if bundle.own_card is None:
        return "not of this bundle, so it does not count; run `splitveil audit`"
    return f"{len(bundle.card.rows)} rows, suite {bundle.card.suite}"


def _titled(folder: Path, name: str) -> str:
    """The folder's name and, where a bundle keeps that of the one which it was made from, the one that it serves as."""
    return name if (own := folder.resolve().name) == name else f"{own}, served as {name}"


def _accuracy(share: float | None, tested: "Accuracy | None") -> str:
    if tested is not None:
        low, high = tested.interval
        return f"{tested.share:.3f} (95 %: {low:.3f} to {high:.3f}, {tested.n:,} images)"
    return "not measured" if share is None else f"{share:.3f} (of how many images is not recorded)"


def _training(m: "Manifest") -> str:
    if m.untrained:
        return "none: the defence was never trained; do not count on it"
    return "not recorded" if m.epochs is None else f"{m.epochs} epoch{'' if m.epochs == 1 else 's'} with the defence"


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> str:
    return f"{name} {datatype} ({', '.join('N' if size == -1 else str(size) for size in shape)})"


def _listed(words: list[str], most: int = 5) -> str:
    from splitveil.cli.console import printable

    return ", ".join(map(printable, words[:most])) + (f" and {len(words) - most} more" if len(words) > most else "")
