"""Trainings on disk by what decides them: a killed comparison goes on, a longer one does only what is new."""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.records import Trial
from splitveil.lab.comparing.facts import Defended, Sent, Start, Taught, Trained, Weights
from splitveil.lab.comparing.sending import Sending
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.training import trained
from splitveil.lab.comparing.weights import restored, weights_of
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses.base import Protected
from splitveil.lab.jobs import Job
from splitveil.lab.protection import held_out
from splitveil.lab.recipe import Recipe
from splitveil.lab.seeds import derive
from splitveil.lab.store import Kept, Store


class Trials:
    """Trains settings and keeps what came out.

    Args:
        folder: for what came of each training, and for its weights until they are dropped.
        fresh: seed -> halves with the weights that training starts from.
        data: training part only.
        recipe: of every training.
        tuning: images that no training saw, to tune by; None for those of the training part that `protect` sets aside.
        sending: to those who train; None for this process.

    Raises:
        InputError: a file is damaged.
    """

    def __init__(
        self,
        folder: Path,
        fresh: Callable[[int], Split],
        data: Dataset,
        recipe: Recipe,
        tuning: Images | None = None,
        sending: Sending | None = None,
    ) -> None:
        self.store, self.fresh, self.recipe = Store(folder), fresh, recipe
        self.data, self.tuning, self.sending = data, tuning, sending or Sending()
        self._taught = Taught(data.train, len(data.classes), tuning)
        self.learns_from = data if tuning is None else replace(data, test=tuning)
        self._starts: dict[int, tuple[Split, Start]] = {}
        self._facts: dict[tuple[Setting, int], Trained] = {}

    def start(self, seed: int) -> Split:
        """The halves that training starts from, to be left as they are; made in the calling thread at first."""
        if seed not in self._starts:
            split = self.fresh(seed)
            self._starts[seed] = split, Start.of(split)
        return self._starts[seed][0]

    @property
    def sent(self) -> list[object]:
        """What goes to all who train, beside the halves."""
        return [self.data, self.learns_from]

    def facts(self, setting: Setting, seed: int) -> Trained:
        """What decides one training."""
        if (setting, seed) not in self._facts:
            self.start(seed)
            defense, codec = Defended.of(setting.defense), Sent.of(setting.codec)
            made = Trained(self._starts[seed][1], defense, codec, self._taught, self.recipe, seed)
            self._facts[setting, seed] = made
        return self._facts[setting, seed]

    def trial(self, setting: Setting, seed: int) -> Trial:
        """What training this setting came to; trained if it was not before."""
        if (kept := self.store.find(self.facts(setting, seed))) is not None:
            return Trial.from_json(kept[0], "a kept training")
        return self._train(setting, seed)[0]

    def missed(self, setting: Setting, seed: int) -> Trial:
        """Keep that this setting has no answers, because its training came to nothing: no image is right."""
        trial = Trial(
            defense=setting.defense, codec=setting.codec, seed=seed, epochs=self.recipe.epochs, seconds=0.0,
            validation=0.0, whole=False, validated_on=self._validated_on,
        )  # fmt: skip
        self.store.keep(self.facts(setting, seed), trial.to_json(), {})
        return trial

    def weights(self, setting: Setting, seed: int) -> dict[str, Tensor]:
        """Of the trained split; trained again where they were dropped."""
        if (found := self.store.find(Weights(self.facts(setting, seed)))) is not None:
            return found[1]
        return self._train(setting, seed)[1]

    def protected(self, setting: Setting, seed: int) -> Protected:
        """The trained split."""
        weights = self.weights(setting, seed)
        return restored(self.start(seed), setting, weights, self.recipe.epochs)

    def drop(self, setting: Setting, seed: int) -> None:
        """Forget the weights."""
        self.store.drop(Weights(self.facts(setting, seed)))

    @property
    def _validated_on(self) -> int:
        return held_out(self.data) if self.tuning is None else len(self.tuning)

    def _train(self, setting: Setting, seed: int) -> tuple[Trial, dict[str, Tensor]]:
        facts, send = self.facts(setting, seed), self.sending
        job = Job(
            facts=Weights(facts), call=learned,
            args=(send(self.start(seed)), setting, send(self.learns_from), self.recipe, seed, self.tuning is not None,
                  self._validated_on),
        )  # fmt: skip
        ((text, weights),) = send.workers.run([job], self.store, facts.label)
        # Apart from the weights, which may be dropped.
        self.store.keep(facts, text, {})
        return Trial.from_json(text, "a kept training"), weights


def learned(
    start: Split, setting: Setting, data: Dataset, recipe: Recipe, seed: int, tuned: bool, validated_on: int,
    folder: Path | None,
) -> Kept:  # fmt: skip
    """A `Trial` and the weights: one training, from the checkpoints in `folder`. Arguments as of `trained`."""
    begun, whole = time.perf_counter(), folder is None or not any(folder.iterdir())
    protected, accuracy = trained(
        copy.deepcopy(start), setting, data, recipe=recipe, seed=seed, tuned=tuned,
        checkpoint=folder and folder / "checkpoint.safetensors",
    )  # fmt: skip
    trial = Trial(
        defense=setting.defense, codec=setting.codec, seed=seed, epochs=recipe.epochs,
        seconds=round(time.perf_counter() - begun, 3), validation=accuracy, whole=whole, validated_on=validated_on,
    )  # fmt: skip
    return trial.to_json(), weights_of(protected)


def without_tuning(data: Dataset, n: int) -> tuple[Dataset, Images | None]:
    """Set `n` test images aside to tune by, the same ones every time; 0 sets none aside.

    Raises:
        InputError: not fewer than there are.
    """
    if not 0 <= n < len(data.test):
        raise InputError(f"expected 0 to {len(data.test) - 1} test images to tune by, got {n}; use --tune-n 0.")
    if not n:
        return data, None
    order = np.random.default_rng(derive(0, "tuning")).permutation(len(data.test))
    return replace(data, test=data.test.take(np.sort(order[n:]))), data.test.take(np.sort(order[:n]))
