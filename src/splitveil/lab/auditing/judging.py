"""Further metrics, and a judge's verdict, on an audit's guesses: what comes beside the numbers of every row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.core.records import Accuracy
from splitveil.core.registry import Spec
from splitveil.lab.auditing.examiners import Asked, Examiner, Measure
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.data import Images
from splitveil.lab.images import as_floats
from splitveil.lab.metrics import ALWAYS, METRICS
from splitveil.lab.metrics.base import Metric
from splitveil.lab.metrics.judge import Judge, adapt, agreement, confidence, correct
from splitveil.lab.metrics.perceptual import deep_distance, deep_embedding
from splitveil.lab.metrics.pripro import (
    normalised,
    pa_by_matching,
    privacy_index,
    squared_distance,
)
from splitveil.lab.seeds import digest

AT_ONCE = 256
ABOUT = {
    "pa": "Privacy accuracy: the share of guesses that an independent classifier, the judge, puts into the "
    "true class. More leaks more. Our reading of PriPro, whose formula was not accessible.",
    "pa_normalised": "The same between chance (0) and the judge's accuracy on the inputs themselves (1).",
    "pa_matching": "The share of guesses that are nearer to their own input than to any other private image, in the "
    "judge's features. More leaks more.",
    "pi": "Privacy index: how much of the judge's confidence in the truth is lost from input to guess, 0 to 1 "
    "for each input. Less leaks more. Our reading of PriPro.",
    "pi_q5": "The 5 % quantile of the privacy index: one input in twenty is protected less than that.",
    "agreement": "The share of guesses that the judge puts into the same class as the input, right or wrong.",
    "deep": "Distance in the judge's features, 0 for equal. Less leaks more.",
}
"""What a judge's numbers say, as reports print it."""


def asked_of(metrics: Sequence[str], judge: Judge | None, private: Images, subject: Subject) -> Asked:
    """Look at everything before anything runs.

    Raises:
        UnknownNameError: no such metric.
        InputError: a metric asked for twice or in every row anyway, an option that it does not have, one that
            cannot look at such images, or a judge that is the audited model or cannot read these images.
    """
    built = tuple(METRICS.build(Spec.parse(text)) for text in metrics)
    for name, count in Counter(m.name for m in built).items():
        if name in ALWAYS:
            raise InputError(f"expected a further metric, got {name}, which stands in every row; leave it out.")
        if count > 1:
            raise InputError(f"expected each metric once, got {name} {count} times; leave one out.")
    one = as_floats(torch.from_numpy(private.x[:1]))
    for metric in built:
        _try(metric, one)
    examiners: tuple[Examiner, ...] = ()
    adaptive: AdaptiveJudge | None = None
    if judge is not None:
        if _same_weights(judge.net, subject):
            raise InputError(
                f"expected an independent judge, got {judge.name} with the weights of the audited model; give "
                "another network, or the same one trained anew."
            )
        examiner = JudgeExaminer(judge, torch.from_numpy(private.x), torch.from_numpy(private.y))
        examiners, adaptive = (examiner,), AdaptiveJudge(examiner) if judge.adaptive else None
    return Asked(built, examiners, adaptive)


class JudgeExaminer:
    """A judge before the private images: what it says of a guess, and of the images themselves.

    Args:
        judge: independent of the audited model.
        x: (N, C, H, W) uint8, the private images.
        y: (N,) int64, their labels.

    Raises:
        InputError: it cannot take such images, has other classes, or is no better than chance on them.
    """

    def __init__(self, judge: Judge, x: Tensor, y: Tensor) -> None:
        self.judge, self.y = judge, y
        self.x = as_floats(x)
        try:
            self.clean = judge.probabilities(self.x)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the judge {judge.name} cannot take images of {tuple(x.shape[1:])} ({' '.join(str(error).split())}); "
                "take one for such images."
            ) from None
        self.accuracy = correct(self.clean, y).mean().item()
        self.chance = (y.bincount().max() / len(y)).item()
        if self.accuracy <= self.chance:
            raise InputError(
                f"expected a judge that reads the private images, got {judge.name} with an accuracy of "
                f"{self.accuracy:.1%} where the commonest class has {self.chance:.1%}; train it, or take another."
            )
        self.gallery = deep_embedding(judge.net, self.x)
        self.deep = deep_distance(judge.net, judge.name)

    @property
    def facts(self) -> Judge:
        """What decides the values beside the private images."""
        return self.judge

    @property
    def measures(self) -> tuple[Measure, ...]:
        """PA raw, normalised and by matching, PI with its quantile, agreement and deep distance."""
        one = partial(Measure, unit="1")
        pa, pi = self._key("pa"), self._key("pi")
        return (
            one(pa, higher_leaks=True, of=pa, tail=False),
            one(self._key("pa_normalised"), higher_leaks=True, of=self._key("pa_normalised"), tail=False),
            one(self._key("pa_matching"), higher_leaks=True, of=self._key("pa_matching"), tail=False),
            one(pi, higher_leaks=False, of=pi),
            one(self._key("pi_q5"), higher_leaks=False, of=pi, tail=False, quantile=True),
            one(self._key("agreement"), higher_leaks=True, of=self._key("agreement"), tail=False),
            one(self.deep.name, higher_leaks=False, of=self.deep.name),
        )

    @property
    def note(self) -> str:
        """Who judges, and how well it does on the images themselves."""
        weights, n = f" ({self.judge.weights})" if self.judge.weights else "", f"{len(self.y):,}"
        told = Accuracy.known(self.accuracy, len(self.y))
        return (
            f"judge {self.judge.name}{weights}: accuracy {told} (95 %) on the {n} private images as they are, "
            f"{self.chance:.2%} is the share of the commonest class; by matching, chance is 1 in {n}"
        )

    def scores(self, guess: Tensor) -> dict[str, Tensor]:
        """Key -> (N,) float32. guess: (N, C, H, W) in [0, 1]."""
        said = self.judge.probabilities(guess)
        hits = correct(said, self.y)
        values = {
            "pa": hits,
            "pa_normalised": normalised(hits, chance=self.chance, clean=self.accuracy),
            "pa_matching": pa_by_matching(
                deep_embedding(self.judge.net, guess), self.gallery, distance=squared_distance
            ),
            "pi": privacy_index(confidence(said, self.y), confidence(self.clean, self.y), chance=1 / said.shape[1]),
            "agreement": agreement(self.clean, said),
        }
        pairs = zip(self.x.split(AT_ONCE), guess.split(AT_ONCE), strict=True)
        found = {self._key(name): v.float() for name, v in values.items()}
        return found | {self.deep.name: torch.cat([self.deep(a, b) for a, b in pairs])}

    def _key(self, name: str) -> str:
        return f"{name}@{self.judge.name}"


class AdaptiveJudge:
    """A judge that has first learned to read what an attack makes of the adversary's own images, for each attack anew.

    A judge of clean images is thrown by blur that a person sees through. What it reads on the private images themselves
    stays that of the judge before it learned, which knows them better.
    """

    def __init__(self, before: JudgeExaminer) -> None:
        self.before = before

    @property
    def facts(self) -> Judge:
        """What decides the values beside the private images."""
        return self.before.judge

    @property
    def measures(self) -> tuple[Measure, ...]:
        """PA raw and normalised, PI with its quantile."""
        names = {m.name: f"{m.name.partition('@')[0]}@{self._name}" for m in self.before.measures}
        kept = [m for m in self.before.measures if m.name.partition("@")[0] in ("pa", "pa_normalised", "pi", "pi_q5")]
        return tuple(replace(m, name=names[m.name], of=names[m.of]) for m in kept)

    @property
    def note(self) -> str:
        """What it has learned from."""
        return (
            f"judge {self._name}: the same, fine-tuned for each attack to its guesses of images that the adversary set "
            "aside; of its PA and that of the judge before it learned take the larger"
        )

    def scores(self, guess: Tensor, own: Tensor, labels: Tensor, seed: int) -> dict[str, Tensor]:
        """Key -> (N,) float32; NaN where no label of its own images is known.

        Args:
            guess: (N, C, H, W) in [0, 1], of the private images.
            own: (M, C, H, W), of the adversary's.
            labels: (M,) of these, -1 where unknown.
            seed: of its training.
        """
        if not (known := labels >= 0).any():
            return {m.of: torch.full((len(guess),), torch.nan) for m in self.measures}
        said = adapt(self.before.judge, own[known], labels[known], seed=seed).probabilities(guess)
        clean, y = self.before.clean, self.before.y
        hits = correct(said, y)
        values = {
            "pa": hits,
            "pa_normalised": normalised(hits, chance=self.before.chance, clean=self.before.accuracy),
            "pi": privacy_index(confidence(said, y), confidence(clean, y), chance=1 / said.shape[1]),
        }
        return {f"{name}@{self._name}": v.float() for name, v in values.items()}

    @property
    def _name(self) -> str:
        return f"adapted {self.before.judge.name}"


def _same_weights(net: nn.Module, subject: Subject) -> bool:
    """Whether `net` has the parameters of an audited model, whatever these are called; buffers do not matter."""
    own = _parameters(net)
    return any(own == _parameters(c.split.edge, c.split.cloud) for c in subject.configurations)


def _parameters(*modules: nn.Module) -> Counter[str]:
    tensors = {id(p): p for module in modules for p in module.parameters()}
    return Counter(digest(p.detach().cpu().numpy()) for p in tensors.values())


def _try(metric: Metric, x: Tensor) -> None:
    """Ask about x: (1, C, H, W): what cannot look at such images must not say so after all attacks have run."""
    try:
        found = metric(x, x)
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"the metric {metric.name} cannot take images of {tuple(x.shape[1:])} ({' '.join(str(error).split())}); "
            "take another one, or larger images."
        ) from None
    if found.shape != (1,):
        raise InputError(
            f"expected one number an image from the metric {metric.name}, got {tuple(found.shape)} for one; mend it."
        )
