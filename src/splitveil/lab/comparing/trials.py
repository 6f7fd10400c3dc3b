"""Trainings on disk by what decides them: a killed comparison goes on, a longer one does only what is new."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.records import Trial
from splitveil.lab.comparing.facts import Defended, Sent, Start, Taught, Trained, Weights
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.training import trained
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.protection import held_out
from splitveil.lab.recipe import Recipe
from splitveil.lab.restoring.weights import assembled
from splitveil.lab.seeds import derive
from splitveil.lab.store import Store
from splitveil.wire.codecs import CODECS

PARTS = ("edge", "cloud", "defense")


class Trials:
    """Trains settings and keeps what came out.

    Args:
        folder: for what came of each training, and for its weights until they are dropped.
        fresh: seed -> halves with the weights that training starts from.
        data: training part only.
        recipe: of every training.
        tuning: images that no training saw, to tune by; None for those of the training part that `protect` sets aside.

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
    ) -> None:
        self.store, self.fresh, self.recipe = Store(folder), fresh, recipe
        self.data, self.tuning = data, tuning
        self._taught = Taught(data.train, len(data.classes), tuning)
        self._starts: dict[int, Start] = {}

    def facts(self, setting: Setting, seed: int) -> Trained:
        """What decides one training."""
        if seed not in self._starts:
            self._starts[seed] = Start.of(self.fresh(seed))
        defense, codec = Defended.of(setting.defense), Sent.of(setting.codec)
        return Trained(self._starts[seed], defense, codec, self._taught, self.recipe, seed)

    @property
    def _validated_on(self) -> int:
        return held_out(self.data) if self.tuning is None else len(self.tuning)

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

    def protected(self, setting: Setting, seed: int) -> Protected:
        """The trained split; trained again where its weights were dropped."""
        if (found := self.store.find(Weights(self.facts(setting, seed)))) is None:
            return self._train(setting, seed)[1]
        tensors = found[1]
        kept = {part: _own(tensors, part) for part in PARTS}
        codec = CODECS.build(setting.codec).restore(_listed(_own(tensors, "codec")))
        return assembled(self.fresh(seed), DEFENSES.build(setting.defense), codec, kept, self.recipe.epochs)

    def drop(self, setting: Setting, seed: int) -> None:
        """Forget the weights."""
        self.store.drop(Weights(self.facts(setting, seed)))

    def _train(self, setting: Setting, seed: int) -> tuple[Trial, Protected]:
        facts = self.facts(setting, seed)
        begun, folder = time.perf_counter(), self.store.workdir(facts)
        whole = folder is None or not any(folder.iterdir())
        protected, accuracy = trained(
            self.fresh(seed), setting, self.data if self.tuning is None else replace(self.data, test=self.tuning),
            recipe=self.recipe, seed=seed, tuned=self.tuning is not None,
            checkpoint=folder and folder / "checkpoint.safetensors",
        )  # fmt: skip
        trial = Trial(
            defense=setting.defense, codec=setting.codec, seed=seed, epochs=self.recipe.epochs,
            seconds=round(time.perf_counter() - begun, 3), validation=accuracy, whole=whole,
            validated_on=self._validated_on,
        )  # fmt: skip
        tensors = {f"{part}.{k}": v for part, m in protected.parts().items() for k, v in m.state_dict().items()}
        tensors |= {f"codec.{k}": torch.tensor(v) for k, v in protected.codec.state().items()}
        self.store.keep(Weights(facts), "{}", {k: v.contiguous().clone() for k, v in tensors.items()})
        self.store.keep(facts, trial.to_json(), {})
        return trial, protected


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


def _own(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}


def _listed(state: dict[str, Tensor]) -> dict[str, object]:
    return {k: v.tolist() for k, v in state.items()}
