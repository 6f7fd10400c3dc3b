"""``splitveil audit``: attack the features at each cut and report what leaks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitveil.cli.reading import AcceleratorAsked, JudgeAdapt, SkipBroken, TrustModel
from splitveil.cli.working import ThreadsAsked, WorkersAsked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from splitveil.core.records import Card, Criterion, Finishing
    from splitveil.lab.attacks.view import Knows
    from splitveil.lab.auditing import Subject
    from splitveil.lab.cut import Traced
    from splitveil.lab.data import Dataset
    from splitveil.lab.metrics.judge import Judge

UNTRUSTED = 3


def run(
    target: Annotated[str, typer.Argument(metavar="MODEL|BUNDLE", help="a model as for cuts, or a bundle's folder")],
    data: Annotated[str, typer.Option(help="digits, npz:PATH, folder:PATH, mnist, fashion-mnist, cifar10, cifar100")],
    out: Annotated[Path, typer.Option(help="folder for the card, the report and everything behind them")],
    at: Annotated[str | None, typer.Option(help="CUT,CUT,... or all; default four spread over the depth")] = None,
    weights: Annotated[
        str | None, typer.Option(help=".safetensors, .pth, .ckpt, ...: FILE or FILE#KEY, or pretrained")
    ] = None,
    logits: Annotated[
        str | None, typer.Option(help="where the logits are in the answer: a key, a field or a place")
    ] = None,
    aux: Annotated[str | None, typer.Option(help="the adversary's images; default the rest of the test part")] = None,
    aux_n: Annotated[int | None, typer.Option(min=1, help="most images of the adversary; default the suite's")] = None,
    suite: Annotated[str, typer.Option(help="smoke, standard or strong")] = "standard",
    attack: Annotated[list[str] | None, typer.Option(help="NAME[:k=v,...], repeatable; instead of a suite")] = None,
    knows: Annotated[
        str, typer.Option(help="white-box, black-box, query-free or grants such as aux,queries")
    ] = "white-box",
    n: Annotated[int, typer.Option("-n", min=1, help="private images to attack")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="of every draw")] = 0,
    seeds: Annotated[str | None, typer.Option(help="0,1,2: an audit each in OUT/seed-K, and their summary")] = None,
    samples: Annotated[int, typer.Option(min=0, help="private images shown in the report; 0 keeps no picture")] = 8,
    trust_model: TrustModel = None,
    accelerator: AcceleratorAsked = "auto",
    skip_broken: SkipBroken = False,
    workers: WorkersAsked = "1",
    threads: ThreadsAsked = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where a killed run stopped")] = False,
    cache: Annotated[
        str | None, typer.Option(help="folder, or URL, of finished attacks that several audits share")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="NAME[:k=v,...], repeatable; beside MSE, PSNR and SSIM")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="an independent model that looks at the guesses: PA, PI")] = None,
    judge_weights: Annotated[str | None, typer.Option(help="of the judge, as --weights")] = None,
    judge_adapt: JudgeAdapt = False,
    read_plates: Annotated[
        bool, typer.Option("--read-plates", help="also how many number plates a reader reads in the guesses")
    ] = False,
    plates_from: Annotated[
        str | None, typer.Option(help="what that reader learns from; default the training part of --data")
    ] = None,
    criterion: Annotated[
        bool, typer.Option("--criterion", help="also which cheap number predicts the attack: OUT/criterion.html")
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(help="an attack from outside, FILE.py:CLASS[:k=v,...], repeatable: is it ahead of the suite?"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Run the attacks at each cut, floors first, and write card, pictures and report. Exit code 3: do not trust it."""
    from splitveil.cli.cards import show_card, show_criterion, show_summary
    from splitveil.cli.console import print_json, showing_progress, tell, tell_doubts
    from splitveil.core.records import Finishing, claim
    from splitveil.lab.accelerator import Accelerator
    from splitveil.lab.attacks.outside import outside_attack
    from splitveil.lab.attacks.view import Knows
    from splitveil.lab.auditing import audit, summarise
    from splitveil.lab.auditing.suites import custom_suite, find_suite
    from splitveil.lab.data import load_data
    from splitveil.lab.jobs import Workers
    from splitveil.lab.jobs.choice import Choice
    from splitveil.report import check_extras, render, samples_picture

    computing = Accelerator.chosen(accelerator)
    Choice.of(workers, threads)  # wrong words end it before anything is read
    chosen = custom_suite(attack) if attack else find_suite(suite)
    granted = Knows.parse(knows)
    folders = {k: out / f"seed-{k}" for k in parse_seeds(seeds)} if seeds is not None else {seed: out}
    if attack:
        refuse_ungranted(attack, granted)
    for spec in against or ():
        outside_attack(spec)  # a wrong file or name ends it before anything is read
    check_extras()
    claim(out, resume=resume)
    images = load_data(data, skip_broken=skip_broken)
    others = load_data(aux, skip_broken=skip_broken) if aux else None
    tell([*images.remarks, *(others.remarks if others else ())])
    if criterion:
        from splitveil.lab.auditing.criterion import check_images

        check_images(images)
    referee = read_judge(judge, judge_weights, images, adaptive=judge_adapt)
    legible = load_data(plates_from, skip_broken=skip_broken) if plates_from else images if read_plates else None
    cards, told, subjects = [], [], []
    # A card is on the disk before anything is drawn, and nothing that fails while drawing stops the next seed.
    finishing = Finishing(f"{out}", f"run `splitveil report {out}` for the page, or the same again with --resume")
    with showing_progress(), computing.used(), Workers.of(workers, threads) as working:
        for k, folder in folders.items():
            subject = _subject(target, at, weights, logits, images, k, trust_model)
            subjects.append(subject)
            found = audit(
                subject, images, aux=others, aux_n=aux_n, suite=chosen, knows=granted, n=n, seed=k, samples=samples,
                out=folder, resume=resume, cache=cache, metrics=metric or (), judge=referee,
                plates=legible, against=against or (), workers=working,
            )  # fmt: skip
            cards.append(found.card)
        summary = summarise(cards) if seeds is not None else None
        if summary is not None:
            with finishing.writing(out / "summary.json"):
                summary.save(out / "summary.json")
        if cards[0].bundle:
            from splitveil.wire.bundle import Bundle, with_card

            with finishing.writing(f"the card in {target}"):
                with_card(Bundle.load(Path(target)), cards[0])
        for folder in folders.values() if samples else ():
            with finishing.writing(folder / "samples.png"):
                samples_picture(folder, folder / "samples.png")
        page = out / "report.html"
        with finishing.writing(page):
            render(list(folders.values()), page)
        for subject, card, folder in zip(subjects, cards, folders.values(), strict=True) if criterion else ():
            told.append(_criterion(subject, images, card, folder, finishing))
    if summary is not None:
        print_json(summary.to_json()) if as_json else show_summary(summary)
    else:
        print_json(cards[0].to_json()) if as_json else show_card(cards[0])
    if not as_json:
        for numbers in told:
            show_criterion(numbers)
        if page.exists():
            print(f"report: {page}")
        for folder in folders.values() if criterion else ():
            print(f"criterion: {folder / 'criterion.html'}")
    reasons = [(f"seed {card.seed}: " if seeds is not None else "") + why for card in cards for why in card.unreliable]
    tell_doubts(reasons)
    finishing.tell()
    if reasons:
        raise typer.Exit(UNTRUSTED)


def refuse_ungranted(attacks: "Sequence[str]", granted: "Knows") -> None:
    """Stop before any work where none of the attacks asked for by name is within what the adversary knows.

    Raises:
        UnknownNameError: no such attack.
        InputError: an option that it does not have.
        ThreatModelError: the floors alone would be left.
    """
    from splitveil.core.errors import ThreatModelError
    from splitveil.lab.attacks import ATTACKS

    asked = [ATTACKS.build(spec) for spec in attacks]
    if not any(threat.needs in granted for threat in asked):
        lacking = "; ".join(f"{a.name} needs {', '.join((a.needs & ~granted).words())} as well" for a in asked)
        raise ThreatModelError(
            f"expected an attack within what this adversary knows ({', '.join(granted.words()) or 'nothing'}), got "
            f"none: {lacking}; grant more with --knows or choose another --attack."
        )


def _criterion(
    subject: "Subject", images: "Dataset", card: "Card", folder: Path, finishing: "Finishing"
) -> "Criterion":
    from splitveil.lab.auditing.criterion import criterion
    from splitveil.report import render_criterion

    found = criterion(subject, images, card, seed=card.seed, out=folder)
    with finishing.writing(folder / "criterion.json"):
        found.save(folder / "criterion.json")
    with finishing.writing(folder / "criterion.html"):
        render_criterion(found, folder / "criterion.html")
    return found


def split_names(text: str, flag: str) -> list[str]:
    """``layer1, layer2`` as names; at least one.

    Raises:
        InputError: there is none.
    """
    from splitveil.core.errors import InputError

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"expected names of cuts for {flag}, got {text!r}; see splitveil cuts, or leave it out.")
    return names


def parse_seeds(text: str) -> list[int]:
    """``0,1,2`` as numbers."""
    from splitveil.core.errors import InputError

    words = [w.strip() for w in text.split(",")]
    if not all(w.isdecimal() for w in words) or len(set(map(int, words))) < len(words):
        raise InputError(f"expected different whole numbers such as 0,1,2 for --seeds, got {text!r}; write them anew.")
    return [int(w) for w in words]


def read_judge(spec: str | None, weights: str | None, images: "Dataset", *, adaptive: bool = False) -> "Judge | None":
    """The judge that ``--judge`` and ``--judge-weights`` name."""
    from splitveil.core.errors import InputError
    from splitveil.lab.metrics.judge import Judge
    from splitveil.lab.models.loader import load_model

    if spec is None and weights is None:
        if adaptive:
            raise InputError("expected --judge beside --judge-adapt, got none; name a judge and its weights.")
        return None
    if spec is None or weights is None:
        given, lacking = ("--judge-weights", "--judge") if spec is None else ("--judge", "--judge-weights")
        raise InputError(f"expected {lacking} beside {given}, got none; name a judge and the file of its weights.")
    loaded = load_model(spec, shape=images.shape, classes=len(images.classes), weights=weights)
    return Judge(loaded.model, spec, loaded.weights, adaptive)


def _subject(
    target: str,
    at: str | None,
    weights: str | None,
    logits: str | None,
    images: "Dataset",
    seed: int,
    trust_model: str | None,
) -> "Subject":
    import torch

    from splitveil.cli.console import err, tell
    from splitveil.cli.reading import trusted
    from splitveil.core.errors import InputError, UnknownNameError
    from splitveil.lab.auditing import Subject
    from splitveil.lab.cut import trace
    from splitveil.lab.models.loader import load_model

    if Path(target).is_dir():
        from splitveil.core.records import claim
        from splitveil.lab.restoring import restore, restore_shipped
        from splitveil.wire.bundle import AUDITED, Bundle, refuse_foreign

        bundle = Bundle.load(Path(target))
        # The card goes into it at the end.
        refuse_foreign(bundle.folder)
        claim(bundle.folder.resolve().parent, resume=True)
        manifest = bundle.manifest
        if at not in (None, manifest.cut.name) or weights or logits:
            raise InputError(
                f"{target} is a bundle with its own weights, cut at {manifest.cut.name}; leave --at, --weights and "
                "--logits out."
            )
        if images.shape != manifest.image_shape:
            raise InputError(
                f"{target} takes {manifest.image_shape} images, got {images.shape}; add ?size= or ?channels= to --data."
            )
        weighed, given = f"{AUDITED}{manifest.contract[:12]}", trusted(manifest.model, trust_model)
        if manifest.quantization:
            shipped, x = restore_shipped(bundle, model=given), torch.from_numpy(images.test.x)
            return Subject.of_shipped(shipped, x, model=manifest.model, weights=weighed, bundle=manifest.name)
        return Subject.of_split(
            restore(bundle, model=given), model=manifest.model, weights=weighed, bundle=manifest.name
        )
    if trust_model is not None:
        raise InputError(f"expected a bundle beside --trust-model, got the model {target}; leave it out.")
    try:
        loaded = load_model(
            target, shape=images.shape, classes=len(images.classes), weights=weights, seed=seed, logits=logits
        )
    except UnknownNameError as error:
        raise UnknownNameError(f"{error} A bundle would be a folder, and there is none of that name.") from None
    if weights is None:
        err.print("warning: no --weights: this audits an untrained model", style="yellow")
    tell(loaded.remarks)
    traced = trace(loaded.model, torch.zeros(2, *images.shape))
    if traced.random:
        err.print(f"warning: the model is {traced.random}; fit and bundles refuse it", style="yellow", highlight=False)
    return Subject.of_model(traced, _cuts(traced, at), model=loaded.name, weights=loaded.weights)


def _cuts(traced: "Traced", at: str | None) -> list[str]:
    names = [c.name for c in traced.cuts()]
    if at == "all":
        return names
    if at is not None:
        return split_names(at, "--at")
    last = len(names) - 1
    return list(dict.fromkeys(names[round(last * k / 4)] for k in range(1, 5)))
