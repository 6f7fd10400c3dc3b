"""`compare`: tune every defence to the same accuracy, train it with every seed, and audit what it leaks."""

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from splitveil.core.arguments import checked
from splitveil.core.errors import AnswerError, InputError, TrainingError
from splitveil.core.progress import task
from splitveil.core.records import Comparison, Contender, Doubt, Measured, Trial, claim
from splitveil.core.records.comparison import TUNED
from splitveil.lab.attacks.view import Knows
from splitveil.lab.auditing.checks import check_lost
from splitveil.lab.auditing.question import PRIVATE, WHITE_BOX, Question
from splitveil.lab.auditing.suites import Suite, find_suite
from splitveil.lab.comparing.candidate import PLAIN, Candidate, parse_all
from splitveil.lab.comparing.measuring import Auditor, Plain, floors
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.trials import Trials
from splitveil.lab.comparing.tuning import strongest
from splitveil.lab.comparing.verdict import findings
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import EPOCHS, Protected
from splitveil.lab.metrics.judge import Judge
from splitveil.lab.protection import scheduled
from splitveil.lab.recipe import SLOW, Recipe
from splitveil.lab.seeds import fingerprint, hardware
from splitveil.wire.codecs import CODECS

DROPS = (1.0, 3.0)


@checked
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
    lr: float = SLOW,
    tuning: Images | None = None,
    metrics: Sequence[str] = (),
    judge: Judge | None = None,
    resume: bool = False,
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
        lr: peak learning rate.
        tuning: images to tune by, needed where the weights that training starts from have seen the training part; None
            for a tenth of the training part that is set aside.
        metrics: further metrics of the audits.
        judge: see `splitveil.lab.auditing.audit`.
        resume: go on with what is in `out`.

    Raises:
        UnknownNameError: no such defence, suite, attack or metric.
        InputError: `out` is not empty, a budget is not above 0, a defence is there twice or cannot be installed at this
            cut or trained for so few epochs, more private images than there are: all before the first training.
    """
    begun, out = time.perf_counter(), Path(out)
    suite = find_suite(suite) if isinstance(suite, str) else suite
    _check(drops, seeds, trials, out, resume=resume)
    candidates = parse_all(list(defenses), codec)
    epochs = epochs_for(list(defenses), codec) if epochs is None else epochs
    shop = Trials(out / "trials", fresh, data, Recipe(epochs=epochs, lr=lr), tuning)
    question = Question(
        suite=suite, knows=knows, n=n, aux=aux, aux_n=aux_n, metrics=tuple(metrics), judge=judge, samples=0
    )
    auditor = Auditor(shop, model, weights, out, question)
    start = fresh(seeds[0])
    cut = start.cut
    auditor.check(seeds[0])
    for candidate in candidates:
        for strength in (0.0, 1.0) if candidate.knob else (0.0,):
            defense = DEFENSES.build(candidate.at(strength, cut.shape[0]).defense)
            scheduled(Protected(defense.install(copy.deepcopy(start)), defense, CODECS.build(codec)), epochs)
    with task("compare", 1 + 2 * len(candidates) * len(drops)) as show:
        setting = Setting(PLAIN, codec)
        reference = [shop.trial(setting, seed) for seed in seeds]
        measured, cards = auditor.measured(setting, seeds, None)
        plain = Plain.of(measured, reference, [auditor.right(setting, seed) for seed in seeds])
        contenders = [
            Contender(
                label=PLAIN, drop=None, defense=PLAIN, codec=codec, defends=False, validation=reference[0].validation,
                measured=measured, tried=reference[:1],
            )
        ]  # fmt: skip
        done = 1
        show(done)
        for candidate in candidates:
            tuned = _Tuned(candidate, shop, seeds[0], cut.shape[0])
            for drop in drops:
                show(done, f"tuning {candidate.label}")
                found = tuned.within(drop, reference[0].validation, trials)
                done += 1
                show(done, f"auditing {candidate.label}")
                if found.reached:
                    own = auditor.measured(Setting(found.defense, found.codec), seeds, plain)[0]
                    doubts = [*own.unreliable, *_too_few(own, reference[0], drop)]
                    found = found.model_copy(update={"measured": own.model_copy(update={"unreliable": doubts})})
                contenders.append(found)
                done += 1
                show(done)
            tuned.drop_weights(contenders)
    card = cards[0]
    comparison = Comparison(
        model=model, weights=weights, data=data.name, cut=cut.name, codec=codec, suite=suite.label,
        threat_model=card.threat_model, private_n=n, seeds=list(seeds), epochs=epochs, lr=lr, trials=trials,
        drops=list(drops), floors=floors(cards), contenders=contenders, findings=findings(contenders, drops),
        notes=[*card.notes, f"{TUNED}{_tuned_by(tuning)}", *shop.store.notes], tuned_by=_tuned_by(tuning),
        words=card.words, hardware=hardware(), seconds=round(time.perf_counter() - begun, 3), versions=fingerprint(),
    )  # fmt: skip
    comparison.save(out / "comparison.json")
    return comparison


def epochs_for(defenses: Sequence[str], codec: str) -> int:
    """Epochs that serve all of these defences, which are trained equally long.

    Raises:
        UnknownNameError: no such defence.
        InputError: an option that it does not have.
    """
    ends = [c.at(end, 1) for c in parse_all(list(defenses), codec) for end in ((0.0, 1.0) if c.knob else (0.0,))]
    return max([EPOCHS, *(DEFENSES.build(setting.defense).least_epochs for setting in ends)])


class _Tuned:
    """The settings of one candidate that were tried, by strength."""

    def __init__(self, candidate: Candidate, shop: Trials, seed: int, channels: int) -> None:
        self.candidate, self.shop, self.seed, self.channels = candidate, shop, seed, channels
        self.tried: dict[float, Trial] = {}

    def within(self, drop: float, reference: float, trials: int) -> Contender:
        """The strongest setting within a budget, without what it leaks. reference: the undefended split's accuracy."""
        knob, target = self.candidate.knob, reference - drop / 100
        if knob is None:
            self._accuracy(0.0)
            best = 0.0
        else:
            known = {s: t.validation for s, t in self.tried.items()}
            best, _ = strongest(self._accuracy, target, trials, reference=reference, known=known)
        trial = self.tried[best]
        value = knob.at(best, self.channels) if knob else None
        return Contender(
            label=self.candidate.label, drop=drop, defense=trial.defense, codec=trial.codec,
            knob=knob.option if knob else "", value=float(value) if value is not None else None,
            defends=self.candidate.defends, validation=trial.validation,
            ended=knob is not None and best == 1.0 and trial.validation >= target,
            missing=max(0.0, round(100 * (target - trial.validation), 6)),
            tried=[t.model_copy(update={"strength": s}) for s, t in sorted(self.tried.items())],
        )  # fmt: skip

    def drop_weights(self, chosen: Sequence[Contender]) -> None:
        """Forget the weights of all settings but the chosen ones."""
        kept = {(c.defense, c.codec) for c in chosen if c.reached}
        for trial in self.tried.values():
            if (trial.defense, trial.codec) not in kept:
                self.shop.drop(Setting(trial.defense, trial.codec), self.seed)

    def _accuracy(self, strength: float) -> tuple[str, float]:
        setting = self.candidate.at(strength, self.channels)
        try:
            self.tried[strength] = self.shop.trial(setting, self.seed)
        except (AnswerError, TrainingError):  # NaN is no class, and no reason to lose the other settings
            self.tried[strength] = self.shop.missed(setting, self.seed)
        return f"{setting.defense} {setting.codec}", self.tried[strength].validation


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
