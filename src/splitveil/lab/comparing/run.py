"""`compare`: tune every defence to the same accuracy, train it with every seed, and audit what it leaks."""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, count
from pathlib import Path

from splitveil.core.arguments import checked
from splitveil.core.errors import InputError
from splitveil.core.progress import task, unreported
from splitveil.core.records import Comparison, Contender, Doubt, Measured, Trial, claim
from splitveil.core.records.comparison import TUNED
from splitveil.lab.accelerator import computing
from splitveil.lab.attacks.view import Knows
from splitveil.lab.auditing.checks import check_lost
from splitveil.lab.auditing.question import PRIVATE, WHITE_BOX, Question
from splitveil.lab.auditing.suites import Suite, find_suite
from splitveil.lab.comparing.candidate import PLAIN, Candidate, parse_all
from splitveil.lab.comparing.measuring import Auditor, Outcome, Plain, floors
from splitveil.lab.comparing.sending import Sending
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.training import check_tunable
from splitveil.lab.comparing.trials import Trials
from splitveil.lab.comparing.tuned import Tuned
from splitveil.lab.comparing.tuning import silenced
from splitveil.lab.comparing.verdict import findings
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import EPOCHS, Protected
from splitveil.lab.jobs import Workers
from splitveil.lab.metrics.judge import Judge
from splitveil.lab.protection import scheduled
from splitveil.lab.recipe import USUAL, Recipe, read_recipe
from splitveil.lab.seeds import fingerprint, hardware
from splitveil.wire.codecs import CODECS

DROPS = (1.0, 3.0)


@checked
@computing
def compare(
    fresh: Callable[[int], Split],
    data: Dataset,
    *,
    model: str,
    weights: str,
    defenses: Sequence[str],
    out: Path | str,
    drops: Sequence[float] = DROPS,
    codec: str = "raw",
    suite: str | Suite = "standard",
    knows: Knows = WHITE_BOX,
    n: int = PRIVATE,
    aux: Dataset | None = None,
    aux_n: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    trials: int = 6,
    epochs: int | None = None,
    lr: float | None = None,
    recipe: str = USUAL,
    tuning: Images | None = None,
    metrics: Sequence[str] = (),
    judge: Judge | None = None,
    resume: bool = False,
    accelerator: str = "auto",
    workers: int | str | Workers = 1,
    threads: int | None = None,
) -> Comparison:
    """Defences at the same accuracy and the same cut.

    Each defence's knob is turned, with the first seed, to the strongest setting whose validation accuracy lies within
    the budget below that of the undefended split, which is trained just as long. No image of ``data.test`` has a part
    in that.

    Args:
        fresh: seed -> halves with the weights that training starts from; the same ones every time.
        data: trained on its training part, attacked on its test part.
        model: name for the record.
        weights: description for the record.
        defenses: specs; a codec's spec is quantisation alone. Options given stay fixed.
        out: folder for trainings, audits and ``comparison.json``.
        drops: budgets in points of accuracy.
        codec: what crosses, for all.
        suite: of attacks.
        knows: the adversary's grants.
        n: private images.
        aux: the adversary's images; None for the rest of the test part.
        aux_n: most of them.
        seeds: each trains and audits anew; the first one tunes.
        trials: trainings that tuning may spend on a defence and a budget.
        epochs: of every training; None for 4, or more where one of the defences needs more. 0 trains nothing: a defence
            that works by training is then doubted.
        lr: peak learning rate; None for 0.0005, or what the recipe says.
        recipe: of every training, ``NAME[:k=v,...]``; `epochs` and `lr` go before it. One that keeps the last epoch
            sets no training images aside, so that `tuning` must be given.
        tuning: images to tune by, needed where the weights that training starts from have seen the training part; None
            for a tenth of the training part that is set aside.
        metrics: further metrics of the audits.
        judge: see `splitveil.lab.auditing.audit`.
        resume: go on with what is in `out`.
        accelerator: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; see `Accelerator.chosen`.
        workers: who trains and attacks: 1 for this process, a number of processes, ``auto``, ``ray`` or
            ``ray://HOST:PORT``; candidates are tuned beside each other. Records are the same for all of them at the
            same number of threads, but for the time that things took.
        threads: of each worker; None shares the cores out.

    Raises:
        UnknownNameError: no such defence, suite, attack or metric.
        InputError: `out` is not empty, a budget is not above 0, a defence is there twice or cannot be installed at this
            cut or trained for so few epochs, more private images than there are: all before the first training.
    """
    begun, out = time.perf_counter(), Path(out)
    suite = find_suite(suite) if isinstance(suite, str) else suite
    _check(drops, seeds, trials, out, resume=resume)
    candidates = parse_all(list(defenses), codec)
    usual = Recipe(epochs=epochs_for(list(defenses), codec))
    way = read_recipe(recipe, epochs=epochs, lr=lr, usual=usual)
    check_tunable(way, tuned=tuning is not None)
    shop = Trials(out / "trials", fresh, data, way, tuning)
    question = Question(
        suite=suite, knows=knows, n=n, aux=aux, aux_n=aux_n, metrics=tuple(metrics), judge=judge, samples=0
    )
    auditor = Auditor(shop, model, weights, out, question, codec)
    start = fresh(seeds[0])
    cut = start.cut
    auditor.check(seeds[0])
    for candidate in candidates:
        for strength in (0.0, 1.0) if candidate.knob else (0.0,):
            defense = DEFENSES.build(candidate.at(strength, cut.shape[0]).defense)
            scheduled(Protected(defense.install(copy.deepcopy(start)), defense, CODECS.build(codec)), way.epochs)
    with Workers.of(workers, threads) as crew:
        values = [*(shop.start(seed) for seed in seeds), *shop.sent, question]
        shop.sending = Sending.of(crew, values)
        found = _found(auditor, candidates, list(seeds), list(drops), trials, start.cut.shape[0])
        plain = Plain.of(found[0][1])
        contenders = [_with_leakage(c, outcomes, auditor, plain, found[0][0].tried[0]) for c, outcomes in found]
        cards = [o.card for o in found[0][1]]
        comparison = Comparison(
            model=model, weights=weights, data=data.name, cut=cut.name, codec=codec, suite=suite.label,
            threat_model=cards[0].threat_model, private_n=n, seeds=list(seeds), epochs=way.epochs, lr=way.lr,
            recipe=recipe, trials=trials, drops=list(drops), floors=floors(cards), contenders=contenders,
            findings=findings(contenders, drops),
            notes=[
                *cards[0].notes, f"{TUNED}{_tuned_by(tuning)}", *shop.sending.notes, *shop.store.notes,
            ],
            tuned_by=_tuned_by(tuning), words=cards[0].words, hardware=hardware(),
            seconds=round(time.perf_counter() - begun, 3), versions=fingerprint(),
        )  # fmt: skip
    comparison.save(out / "comparison.json")
    return comparison


def _found(
    auditor: Auditor, candidates: Sequence[Candidate], seeds: list[int], drops: list[float], trials: int, channels: int
) -> list[tuple[Contender, list[Outcome]]]:
    """Every contender, the undefended split first, and what came of it; of none that missed its budget."""
    shop, workers = auditor.trials, auditor.trials.sending.workers
    with ExitStack() as stack:
        show = stack.enter_context(task("compare", 1 + 2 * len(candidates) * len(drops)))
        stack.enter_context(silenced())
        if not workers.inline:
            stack.enter_context(unreported())  # one line for all that goes on at once
        done = count(1)
        setting = Setting(PLAIN, auditor.codec)
        reference = workers.each([partial(shop.trial, setting, seed) for seed in seeds])
        undefended = Contender(
            label=PLAIN, drop=None, defense=PLAIN, codec=auditor.codec, defends=False,
            validation=reference[0].validation, tried=reference[:1],
        )  # fmt: skip
        chosen = [undefended]

        def audited(found: Contender) -> list[tuple[Contender, list[Outcome]]]:
            outcomes = auditor.outcomes(Setting(found.defense, found.codec), seeds) if found.reached else []
            show(next(done), f"{found.label} audited" if found.reached else "")
            return [(found, outcomes)]

        def budgets(tuned: Tuned, at: int) -> list[tuple[Contender, list[Outcome]]]:
            if at == len(drops):
                return []
            found = tuned.within(drops[at], undefended.validation, trials)
            chosen.append(found)
            show(next(done), f"{found.label} tuned to {drops[at]:g}")
            # What is found is attacked while the next budget is tuned for.
            return list(chain(*workers.each([partial(audited, found), partial(budgets, tuned, at + 1)])))

        def one(candidate: Candidate) -> list[tuple[Contender, list[Outcome]]]:
            tuned = Tuned(candidate, shop, seeds[0], channels)
            found = budgets(tuned, 0)
            tuned.drop_weights(list(chosen))
            return found

        return list(chain(*workers.each([partial(audited, undefended), *(partial(one, c) for c in candidates)])))


def _with_leakage(
    contender: Contender, found: Sequence[Outcome], auditor: Auditor, plain: Plain, reference: Trial
) -> Contender:
    if not found:
        return contender
    if contender.drop is None:
        return contender.model_copy(update={"measured": auditor.measured(found, None)})
    own = auditor.measured(found, plain)
    doubts = [*own.unreliable, *_too_few(own, reference, contender.drop)]
    return contender.model_copy(update={"measured": own.model_copy(update={"unreliable": doubts})})


def epochs_for(defenses: Sequence[str], codec: str) -> int:
    """Epochs that serve all of these defences, which are trained equally long.

    Raises:
        UnknownNameError: no such defence.
        InputError: an option that it does not have.
    """
    ends = [c.at(end, 1) for c in parse_all(list(defenses), codec) for end in ((0.0, 1.0) if c.knob else (0.0,))]
    return max([EPOCHS, *(DEFENSES.build(setting.defense).least_epochs for setting in ends)])


def _too_few(measured: Measured, reference: Trial, drop: float) -> list[str]:
    """Why the images do not bear out a budget: those that are reported on, and those that knobs are tuned by."""
    found = check_lost(measured.paired, drop) if measured.paired else []
    if 0 < reference.validated_on < 100 / drop:
        found.append(
            Doubt.of(
                "few test images",
                f"knobs are tuned by {reference.validated_on:,} images, of which one is "
                f"{100 / reference.validated_on:.1f} points, more than the budget of {drop:g}",
            )
        )
    return found


def _tuned_by(tuning: Images | None) -> str:
    what = "a tenth of the training part" if tuning is None else f"{len(tuning):,} further test images"
    return f"the accuracy on {what}, which is neither attacked nor reported on"


def _check(drops: Sequence[float], seeds: Sequence[int], trials: int, out: Path, *, resume: bool) -> None:
    if not drops or min(drops) <= 0 or max(drops) >= 100 or len(set(drops)) < len(drops):
        raise InputError(f"expected different budgets between 0 and 100 points, got {list(drops)}; use --drop 1.")
    if not seeds or trials < 1:
        raise InputError(f"expected at least one seed and one trial, got {list(seeds)} and {trials}; use --trials 6.")
    claim(out, resume=resume)
