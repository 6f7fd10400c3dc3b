"""Trainings on disk by what decides them: a killed comparison goes on, a longer one does only what is new."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.records import Trial, write_atomically
from splitveil.lab.comparing.candidate import Setting
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.protection import accuracy_of, held_out, protect, validation_accuracy
from splitveil.lab.restoring.weights import assembled
from splitveil.lab.seeds import derive, digest, fingerprint, named
from splitveil.wire.codecs import CODECS

PARTS = ("edge", "cloud", "defense")


class Trials:
    """Trains settings and keeps what came out, each under a hash of everything that decides it.

    Args:
        folder: for one JSON file a training, and weights beside it until they are dropped.
        fresh: seed -> halves with the weights that training starts from.
        data: training part only.
        epochs: of every training.
        lr: peak learning rate.
        tuning: images that no training saw, to tune by; None for those of the training part that `protect` sets aside.

    Raises:
        InputError: a file is damaged.
    """

    def __init__(
        self,
        folder: Path,
        fresh: Callable[[int], Split],
        data: Dataset,
        *,
        epochs: int,
        lr: float,
        tuning: Images | None = None,
    ) -> None:
        self.folder, self.fresh, self.data, self.epochs, self.lr = folder, fresh, data, epochs, lr
        self.tuning = None if tuning is None else replace(data, test=tuning)
        self._digest = digest(data.train.x, data.train.y, *(() if tuning is None else (tuning.x, tuning.y)))
        self._starts: dict[int, str] = {}

    def name(self, setting: Setting, seed: int) -> str:
        """File name of one training."""
        split = self.fresh(seed) if seed not in self._starts else None
        if split is not None:
            state = {**split.edge.state_dict(), **split.cloud.state_dict()}
            self._starts[seed] = f"{split.cut.name} {digest(*(state[k].numpy() for k in sorted(state)))}"
        facts = [setting.codec, self._starts[seed], self._digest, self.epochs, self.lr, seed, fingerprint()["code"]]
        return named(f"{setting.defense} {setting.codec} seed {seed}", facts)

    def trial(self, setting: Setting, seed: int) -> Trial:
        """What training this setting came to; trained if it was not before."""
        path = self.folder / f"{self.name(setting, seed)}.json"
        if path.exists():
            return Trial.from_json(path.read_bytes(), str(path))
        return self._train(setting, seed)[0]

    def missed(self, setting: Setting, seed: int) -> Trial:
        """Keep that this setting has no answers, because its training came to nothing: no image is right."""
        path = self.folder / f"{self.name(setting, seed)}.json"
        trial = Trial(
            defense=setting.defense, codec=setting.codec, seed=seed, epochs=self.epochs, seconds=0.0, validation=0.0,
            whole=False, validated_on=held_out(self.data) if self.tuning is None else len(self.tuning.test),
        )  # fmt: skip
        write_atomically(path, trial.to_json().encode())
        for left in self.folder.glob(f"{path.stem}.checkpoint*"):
            left.unlink()
        return trial

    def protected(self, setting: Setting, seed: int) -> Protected:
        """The trained split; trained again where its weights were dropped."""
        path = self.folder / f"{self.name(setting, seed)}.safetensors"
        if not path.exists():
            return self._train(setting, seed)[1]
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError):
            raise InputError(f"{path} is damaged; delete it and run again with --resume.") from None
        kept = {part: _own(tensors, part) for part in PARTS}
        codec = CODECS.build(setting.codec).restore(_listed(_own(tensors, "codec")))
        return assembled(self.fresh(seed), DEFENSES.build(setting.defense), codec, kept, self.epochs)

    def drop(self, setting: Setting, seed: int) -> None:
        """Forget the weights."""
        (self.folder / f"{self.name(setting, seed)}.safetensors").unlink(missing_ok=True)

    def _train(self, setting: Setting, seed: int) -> tuple[Trial, Protected]:
        path = self.folder / f"{self.name(setting, seed)}.json"
        checkpoint = path.with_suffix(".checkpoint.safetensors")
        self.folder.mkdir(parents=True, exist_ok=True)
        begun, whole = time.perf_counter(), not any(self.folder.glob(f"{path.stem}.checkpoint*"))
        torch.manual_seed(derive(seed, "training"))  # what a defence installs draws its weights from here
        protected, _ = protect(
            self.fresh(seed), setting.defense, setting.codec, self.data, epochs=self.epochs, lr=self.lr, seed=seed,
            checkpoint=checkpoint, resume=True,
        )  # fmt: skip
        accuracy = (
            validation_accuracy(protected, self.data, seed)
            if self.tuning is None
            else accuracy_of(protected, self.tuning, seed)
        )
        trial = Trial(
            defense=setting.defense, codec=setting.codec, seed=seed, epochs=self.epochs,
            seconds=round(time.perf_counter() - begun, 3), validation=accuracy, whole=whole,
            validated_on=held_out(self.data) if self.tuning is None else len(self.tuning.test),
        )  # fmt: skip
        tensors = {f"{part}.{k}": v for part, m in protected.parts().items() for k, v in m.state_dict().items()}
        tensors |= {f"codec.{k}": torch.tensor(v) for k, v in protected.codec.state().items()}
        write_atomically(
            path.with_suffix(".safetensors"), save({k: v.contiguous().clone() for k, v in tensors.items()})
        )
        write_atomically(path, trial.to_json().encode())
        for left in self.folder.glob(f"{path.stem}.checkpoint*"):
            left.unlink()
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
