"""`audit`: run every attack of a suite at every cut, score it, and write what leaked as a card."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from splitveil.core.arguments import checked
from splitveil.core.records import Accuracy, Card, LabelRow, Outsider, Role, Row, resumable
from splitveil.core.records.card import plain_name
from splitveil.lab.accelerator import Accelerator, computing
from splitveil.lab.attacks.outside import outside_attack
from splitveil.lab.attacks.view import PRESETS, Aux, Knows
from splitveil.lab.auditing.against import beaten, held_against
from splitveil.lab.auditing.checks import check_data, check_labels, check_net, check_rows
from splitveil.lab.auditing.duplicates import copies, near_duplicates
from splitveil.lab.auditing.examiners import Examiner
from splitveil.lab.auditing.features import groups, memory_budget, most_images
from splitveil.lab.auditing.judging import asked_of
from splitveil.lab.auditing.outcome import Audit
from splitveil.lab.auditing.plan import Schedule
from splitveil.lab.auditing.question import PRIVATE, SHOWN, WHITE_BOX, Question
from splitveil.lab.auditing.reading import Lesson, Reading
from splitveil.lab.auditing.scoring import secrets
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.suites import Suite, find_suite
from splitveil.lab.auditing.units import LabelUnit, Unit
from splitveil.lab.auditing.words import words_of
from splitveil.lab.auditing.work import Work
from splitveil.lab.auditing.worst import strongest, worst_cases
from splitveil.lab.data import Dataset, Images
from splitveil.lab.data.parts import Parts, partition
from splitveil.lab.images import as_floats
from splitveil.lab.jobs import Workers
from splitveil.lab.metrics.judge import Judge
from splitveil.lab.seeds import digest, fingerprint, hardware
from splitveil.lab.store import Results

TRIED = 8
"""Private images on which every edge half is run again before anything is attacked."""


@checked
@computing
def audit(
    subject: Subject,
    data: Dataset,
    *,
    aux: Dataset | None = None,
    aux_n: int | None = None,
    suite: str | Suite = "standard",
    knows: Knows = WHITE_BOX,
    n: int = PRIVATE,
    seed: int = 0,
    samples: int = SHOWN,
    out: Path | str | None = None,
    resume: bool = False,
    cache: Path | str | None = None,
    metrics: Sequence[str] = (),
    judge: Judge | None = None,
    plates: Dataset | None = None,
    examiners: Sequence[Callable[[Images], Examiner]] = (),
    against: Sequence[str] = (),
    accelerator: str = "auto",
    workers: int | str | Workers = 1,
    threads: int | None = None,
) -> Audit:
    """What the features at each cut leak to an adversary.

    Args:
        subject: a model at some cuts, or a protected split; see `Subject`.
        data: private images are drawn from its test part.
        aux: the adversary's images; None for the rest of the test part.
        aux_n: the most images that the adversary holds; None for what the suite allows.
        suite: name or `Suite`.
        knows: the adversary's grants; attacks that need more are left out and noted.
        n: private images.
        seed: of every draw.
        samples: private images to keep pictures of, 0 for none.
        out: folder for the card and everything behind it, and for resuming.
        resume: go on with what a killed run left in `out`, or with what another list of attacks or cuts did there.
        cache: folder of finished attacks that several audits share, or a URL that fsspec reads; None for one in `out`.
        metrics: beyond MSE, PSNR and SSIM, as the registry reads them: ``registered_psnr:shift=2``; see `Row.extra`.
        judge: an independent classifier of the same classes, for PA, PI, agreement and deep distance; see `Row.extra`.
        plates: images with number plates, whose training part teaches a reader to read them in guesses: ``plates`` and
            ``plate_characters`` in `Row.extra`, of the private plates that it reads on the image itself; `data` itself
            or more cars of the kind.
        examiners: further ones who look at every guess: each is called with the private images and gives an `Examiner`.
        against: attacks from outside, ``FILE.py:CLASS[:k=v,...]`` or as the registry reads them: each gets the suite's
            view and a row of its own, and the card says by how much it is ahead; the worst case stays the suite's.
        accelerator: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; see `Accelerator.chosen`.
        workers: 1 for this process, a number of others, ``auto``, ``ray`` or ``ray://HOST:PORT``; see `Workers.of`.
        threads: of torch in each.

    Raises:
        OverlapError: an image would be private and the adversary's.
        UnknownNameError: no such metric.
        InputError: `out` holds another audit, or a damaged file; a metric asked for twice; a judge that is the audited
            model, or that cannot read its images; no plate, or none that a reader reads.
        ThreatModelError: no attack of the suite is within what the adversary knows.
        WriteError: something could not be written; what is finished is on the disk.
    """
    question = Question(
        suite=find_suite(suite) if isinstance(suite, str) else suite, knows=knows, n=n, aux=aux, aux_n=aux_n,
        metrics=tuple(metrics), judge=judge, plates=plates,
        examiners=tuple(examiners), samples=samples, against=tuple(map(outside_attack, against)),
    )  # fmt: skip
    results = Results(folder=None if out is None else Path(out), resume=resume, cache=cache)
    with Workers.of(workers, threads) as chosen:
        return conducted(subject, data, question, results, seed, chosen)


def conducted(
    subject: Subject, data: Dataset, question: Question, results: Results, seed: int, workers: Workers | None = None
) -> Audit:
    """`audit` of one question; in this process where no workers are given."""
    begun = time.perf_counter()
    suite, knows, n, aux = question.suite, question.knows, question.n, question.aux
    results.claimed()
    question = replace(question, samples=min(question.samples, n))
    plan = Schedule.of(subject, suite, knows, question.against)
    budget = memory_budget()
    most, asked = most_images(subject, budget) - n, question.most_aux
    parts = partition(data, n=n, aux=aux, max_aux=max(1, min(asked, most)), seed=seed)
    told, subject = subject, _tried(subject, parts)
    plan = plan if subject is told else Schedule.of(subject, suite, knows, question.against)
    further = asked_of(question.metrics, question.judge, parts.private, subject)
    lesson = Lesson.of(question.plates, parts.private) if question.plates is not None else None
    made = tuple(make(parts.private) for make in question.examiners)
    further = replace(further, examiners=(*further.examiners, *made))
    # Labels of other classes would only mislead: without them the class mean falls back on the mean.
    task = parts.aux.y if aux is None or aux.classes == data.classes else np.full(len(parts.aux), -1)
    guard = {
        "subject": [subject.model, subject.weights],
        "data": [data.name, digest(data.test.x, data.test.y, parts.aux.x), parts.aux_words],
        "knows": knows.words(),
        "n": n,
        "seed": seed,
    }
    store = results.store(guard)
    if lesson is not None:
        with resumable(store.where):
            reader = lesson.taught(store, seed)
        further = replace(further, examiners=(*further.examiners, Reading(reader, lesson)))
    work = Work(
        subject,
        data,
        parts,
        Aux(
            torch.from_numpy(parts.aux.x),
            torch.from_numpy(task),
            {name: torch.from_numpy(values) for name, values in parts.aux.attributes.items()},
        ),
        question,
        tuple(secrets(parts, task, len(data.classes))),
        seed,
        store,
        further,
        workers,
    )
    near = near_duplicates(parts.private.x, parts.aux.x)
    held = len(parts.aux) if question.aux_n is None else None
    doubts = check_data(copies(parts.private.x, parts.aux.x), near, n, held)
    units, labels, outsiders = list[Unit](), list[LabelUnit](), list[Outsider]()
    accuracies, best = dict[str, float](), dict[str, dict[str, str]]()
    with resumable(store.where):
        everything = [
            done
            for group in groups(subject, n + len(parts.aux), budget // (1 if work.workers.inline else 2))
            for done in work.finished(group, plan)
        ]
    tested = {
        done.configuration.label: Accuracy.of(round(done.accuracy * len(data.test)), len(data.test))
        for done in everything
    }
    net = _barely(data, tested)
    for done in everything:
        accuracies[done.configuration.label] = done.accuracy
        own = done.configuration.protected
        noisy, idle = done.configuration.stochastic, own.untrained
        every = [*done.images, *done.against]
        reasons = check_rows([u.row for u in every], stochastic=noisy, data=doubts, untrained=idle, net=net)
        every = [u.doubted(why) for u, why in zip(every, reasons, strict=True)]
        images, outside = every[: len(done.images)], every[len(done.images) :]
        against = [held_against(u, images, seed) for u in outside]
        labels += [
            u.doubted(check_labels(u.row, stochastic=noisy, data=doubts, untrained=idle, net=net)) for u in done.labels
        ]
        best[done.configuration.label] = strongest([u.row for u in every])
        worst = [u.doubted([*u.row.unreliable, *beaten(against)]) for u in worst_cases(images, seed, further.measures)]
        units += [*every, *worst]
        outsiders += against
    card = Card(
        model=subject.model,
        weights=subject.weights,
        data=data.name,
        task_accuracy=accuracies[subject.configurations[-1].label],
        threat_model=_words(knows, parts),
        suite=suite.label,
        seed=seed,
        hardware=hardware(),
        seconds=round(time.perf_counter() - begun, 3),
        rows=[u.row for u in units],
        knows=knows.words(),
        aux=parts.aux_words,
        aux_n=len(parts.aux),
        private_n=n,
        cuts=list(subject.cuts),
        accuracies=accuracies,
        tested=tested,
        bundle=subject.bundle,
        versions=fingerprint(),
        notes=[
            *data.remarks,
            *subject.notes,
            *plan.notes,
            *further.notes,
            *_limits(asked, most, parts),
            *_near(near, n, doubts),
            *store.notes,
            *work.notes,
        ],
        inferences=[u.row for u in labels],
        strongest=best,
        against=outsiders,
        stand_in=subject.stand_in,
        words=_described([u.row for u in units], [u.row for u in labels]),
    )
    found = _audit(card, units, labels, parts, question.samples)
    if results.folder is not None:
        with resumable(store.where):
            found.save(results.folder)
    return found


def _tried(subject: Subject, parts: Parts) -> Subject:
    """See `Subject.tried`; on the first few private images, where the net computes."""
    where = Accelerator.chosen()
    with where.used(*(c.protected for c in subject.configurations)):
        return subject.tried(as_floats(torch.from_numpy(parts.private.x[:TRIED])).to(where.device))


def _barely(data: Dataset, tested: Mapping[str, Accuracy]) -> list[str]:
    """Whether the net learned its task, at the configuration where it does best.

    Nothing is said where the test part has other classes than the training part, as for re-identification.
    """
    if not tested or not np.isin(data.test.y, data.train.y).all():
        return []
    chance = float(np.bincount(data.test.y).max() / len(data.test))
    return check_net(max(tested.values(), key=lambda accuracy: accuracy.share), chance)


def _audit(card: Card, units: list[Unit], labels: list[LabelUnit], parts: Parts, samples: int) -> Audit:
    x, place = torch.from_numpy(parts.private.x), torch.from_numpy(parts.private_index.astype(np.int64))
    bare = Audit(card, tuple(u.scores for u in units), tuple(u.samples for u in units), x[:samples], place[:samples])
    exposed = tuple((place[u.worst_index], x[u.worst_index], u.worst) for u in units)
    return replace(bare, exposed=exposed, hits=tuple(u.hits for u in labels))


def _described(rows: Sequence[Row], labels: Sequence[LabelRow]) -> dict[str, str]:
    names = [r.attack for r in rows if r.role is not Role.WORST] + [r.attack for r in labels]
    names += [name for r in rows for name in r.extra]
    return {plain: words for name in names if (plain := plain_name(name)) and (words := words_of(plain))}


def _words(knows: Knows, parts: Parts) -> str:
    """The threat model in one sentence."""
    preset = next((name for name, value in PRESETS.items() if value == knows), "custom")
    return f"{preset} adversary: knows {', '.join(knows.words()) or 'nothing'}; holds {parts.aux_words}"


def _limits(asked: int, most: int, parts: Parts) -> list[str]:
    if most < asked and len(parts.aux) >= most:
        return [f"the adversary holds {len(parts.aux):,} images, not {asked:,}: more do not fit in memory"]
    return []


def _near(near: int, n: int, doubts: list[str]) -> list[str]:
    if near and not doubts:
        return [f"{near} of {n} private images closely resemble one of the adversary's"]
    return []
