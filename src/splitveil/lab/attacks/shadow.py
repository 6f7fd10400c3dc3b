"""The shadow model: a stand-in for an edge that the adversary does not have, then an attack on the stand-in.

He et al. 2019, section 6. With queries the stand-in learns to give the features that the edge gives; without any it
learns to make the cloud half answer as it should. The second is strengthened (our addition): whoever runs the cloud
sees the private features anyway, so the stand-in's must also have their mean and spread, channel by channel and
position by position.
"""

import copy
import math
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks.base import Attack, frozen, seed_view
from splitveil.lab.attacks.decoder import InverseNetwork
from splitveil.lab.attacks.mle import MaximumLikelihood
from splitveil.lab.attacks.parts.features import ChannelScale
from splitveil.lab.attacks.parts.stand_in import Likeness, OwnEdge, StandInEdge, revivable
from splitveil.lab.attacks.parts.trust import Trust
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.training import IndexBatches, fit, infer

RATES = (3e-2, 6e-3, 1e-3)
"""Peak learning rates tried in short runs, the best one on the images set aside is taken."""
TRIAL = 0.15
"""Share of the steps that each of these runs gets."""
BATCH = 64
DOUBT = 1.0
"""Noise on a stand-in's features, in units of their spread, where no query tells how far they can be trusted."""
JUDGED = 32
"""Images set aside on which the guess is compared with the truth."""
CACHED = 2**27
"""Features of the stand-in that are kept; of more, each is computed again when it is read."""


class Shadow(Attack):
    """A stand-in for the unknown edge half, learned from the cloud half or from queries, then inverted.

    Train a stand-in for the edge, then run another attack against it.
    Training rate and epoch are chosen by `Likeness` on images that the adversary set aside. The stand-in learns the
    edge and its defence as one, and the mean of what a random defence gives. Without queries labels matter: where none
    are known only means and spreads speak.

    What the inner attack invents is faded (`Trust`) by what it makes of images whose truth is known: by their true
    features where there are queries, else by those of a second stand-in, trained like the first from other weights.
    Without queries this was within 0.1 dB of what the private images themselves would have told (He et al.'s nets).

    Args:
        learn: ``cloud``, from the cloud half, labels and the private features alone, or ``queries``, from features of
            the adversary's images.
        arch: ``same``, the edge's architecture with fresh weights, or ``other``, a net of the adversary's own.
        via: ``mle``, as in the paper, or ``decoder``; about as strong, and the decoder takes several times as long.
        steps: optimiser steps of the stand-in, at least one pass over the adversary's images.

    Raises:
        InputError: an unknown choice, or no steps.
    """

    name: ClassVar[str] = "shadow"
    scale_free: ClassVar[bool] = True

    def __init__(self, *, learn: str = "cloud", arch: str = "same", via: str = "mle", steps: int = 800) -> None:
        for what, value, known in (
            ("learn", learn, ("cloud", "queries")), ("arch", arch, ("same", "other")),
            ("via", via, ("mle", "decoder")),
        ):  # fmt: skip
            if value not in known:
                raise InputError(f"unknown {what} {value!r} of shadow; choose from {', '.join(known)}.")
        if steps < 1:
            raise InputError(f"expected steps of at least 1, got {steps}; use shadow:steps=800.")
        self.learn, self.arch, self.via, self.steps = learn, arch, via, steps
        self.needs = Knows.AUX | (Knows.CLOUD if learn == "cloud" else Knows.QUERIES)
        if arch == "same":
            self.needs |= Knows.CLOUD

    def run(self, view: View) -> Tensor:
        seed_view(view, self.name)
        stand_in = self._stand_in(view, "stand-in")
        with_queries = self.learn == "queries"
        aux, kept = view.aux, Tensor()
        judged = aux.held_out[:JUDGED]
        told = view.observe(judged) if with_queries else infer(self._stand_in(view, "second"), [aux.images(judged)])
        units = ChannelScale(infer(stand_in, [aux.images(slice(0, 256))])).scale
        spread = torch.where(units > 0, 1 / units, 0.0)
        if len(aux) * view.z[0].numel() <= CACHED:
            kept = infer(stand_in, (aux.images(part) for part in torch.arange(len(aux)).split(256)))

        def imitate(index: Tensor) -> Tensor:
            z = kept[index] if len(kept) else infer(stand_in, (aux.images(part) for part in index.split(256)))
            return z + DOUBT * spread * torch.randn_like(z)

        world = view.within(
            self.name,
            Knows.AUX | Knows.QUERIES | Knows.WEIGHTS | Knows.DEFENSE,
            z=torch.cat([view.z, told]),
            # The true features, where there are any, let the attack tune itself to the stand-in's faults.
            observe=view.observe if with_queries else imitate,
            query=stand_in,
            edge=stand_in,
            defense=nn.Identity(),
            stochastic=False,
        )
        guess = (MaximumLikelihood() if self.via == "mle" else InverseNetwork()).run(world)
        own, known = guess.split([len(view.z), len(judged)])
        mean = torch.stack([aux.images(part).sum(0) for part in torch.arange(len(aux)).split(256)]).sum(0) / len(aux)
        return Trust.learned(known, aux.images(judged), mean)(own)

    def shares(self, *, stochastic: bool) -> tuple[str, ...]:
        return tuple(self._key(which) for which in ("stand-in", "second"))

    def _key(self, which: str) -> str:
        return f"{which}:learn={self.learn},arch={self.arch},steps={self.steps}"

    def _stand_in(self, view: View, which: str) -> nn.Module:
        return view.once(self._key(which), lambda seed, workdir: self._trained(view, seed, workdir))

    def _trained(self, view: View, seed: int, workdir: Path | None) -> nn.Module:
        if self.arch == "same" and not list((known := view.blank_edge()).parameters()):
            return frozen(known)  # Without weights there is nothing to learn.
        aux, valid = view.aux, view.aux.held_out
        train = len(aux) - len(valid)
        by_cloud = self.learn == "cloud"
        seen = view.z if by_cloud else view.observe(torch.arange(min(train, 2048)))
        cloud = frozen(copy.deepcopy(view.cloud)) if by_cloud else None
        mirror = by_cloud and view.image_shape[0] == 3
        kept = aux.y[valid] if by_cloud else view.observe(valid)

        def read(index: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
            x = aux.images(index)
            if mirror:
                flipped = (torch.rand(len(x), 1, 1, 1, generator=draws) < 0.5).to(x.device)
                x = torch.where(flipped, x.flip(3), x)
            return x.contiguous(memory_format=torch.channels_last), aux.y[index] if by_cloud else view.observe(index)

        def build() -> Likeness:
            torch.manual_seed(seed)
            net = revivable(view.blank_edge()) if self.arch == "same" else OwnEdge(
                view.image_shape, tuple(view.z.shape[1:]), rectified=bool((seen >= 0).all())
            )  # fmt: skip
            net.to(view.z.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            return Likeness(StandInEdge(net, seen, aux.images(slice(0, 256))), seen, cloud)

        def train_one(epochs: int, rate: float, name: str) -> tuple[float, Likeness]:
            model = build()

            def score() -> float:
                with torch.inference_mode():
                    parts = zip(valid.split(256), kept.split(256), strict=True)
                    return -sum(float(model(aux.images(i), target)) * len(i) for i, target in parts) / len(valid)

            history = fit(
                model, IndexBatches(train, BATCH, read), epochs=epochs, lr=rate, weight_decay=1e-4, seed=seed,
                checkpoint=workdir / f"{name}.safetensors" if workdir else None, resume=True, validate=score,
                what=f"{self.name} {view.label} {name}".strip(), tally=view.reads,
            )  # fmt: skip
            return max(history.scores), model

        epochs = max(1, math.ceil(self.steps * BATCH / train))
        brief = max(1, round(TRIAL * epochs))
        found = {rate: train_one(brief, rate, f"trial-{rate:g}")[0] for rate in RATES}
        return frozen(train_one(epochs, max(found, key=lambda r: found[r]), "stand-in")[1].stand_in)
