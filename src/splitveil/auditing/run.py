"""`audit`: run every attack of a suite at every cut, score it, and write what leaked as a card."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from splitveil.attacks import ATTACKS
from splitveil.attacks.base import Attack
from splitveil.attacks.view import PRESETS, Aux, Knows, View
from splitveil.auditing.checks import check_row
from splitveil.auditing.features import Collected, collect, groups, memory_budget, most_images
from splitveil.auditing.subject import Configuration, Subject
from splitveil.auditing.suites import FLOORS, Suite, find_suite
from splitveil.auditing.units import Ledger, Unit, to_bytes
from splitveil.auditing.worst import worst_cases
from splitveil.data import Dataset
from splitveil.data.parts import Parts, partition
from splitveil.errors import ThreatModelError
from splitveil.metrics import METRICS
from splitveil.records import Card, Row, write_atomically
from splitveil.seeds import derive, digest, fingerprint, hardware


@dataclass(frozen=True, slots=True)
class Audit:
    """A card with what lies behind it.

    Attributes:
        card: the flat record.
        scores: metric -> (N,) for each row of the card.
        samples: guesses (k, C, H, W) uint8 for each row of the card; k may be 0.
        inputs: the k sample images (k, C, H, W) uint8.
        index: their positions in the test part, (k,).
    """

    card: Card
    scores: tuple[Mapping[str, Tensor], ...]
    samples: tuple[Tensor, ...]
    inputs: Tensor
    index: Tensor

    def save(self, folder: Path) -> None:
        """Write ``card.json``, ``scores.safetensors`` and, where there are sample images, ``samples.safetensors``."""
        scores = {f"row{i:03d}.{k}": v.contiguous() for i, s in enumerate(self.scores) for k, v in s.items()}
        write_atomically(folder / "scores.safetensors", save(scores))
        if len(self.inputs):
            guesses = {f"row{i:03d}": v.contiguous() for i, v in enumerate(self.samples)}
            write_atomically(
                folder / "samples.safetensors", save({"input": self.inputs, "index": self.index, **guesses})
            )
        self.card.save(folder / "card.json")


def audit(
    subject: Subject,
    data: Dataset,
    *,
    aux: Dataset | None = None,
    suite: str | Suite = "standard",
    knows: Knows = PRESETS["white-box"],
    n: int = 500,
    seed: int = 0,
    samples: int = 8,
    out: Path | None = None,
    resume: bool = False,
) -> Audit:
    """What the features at each cut leak to an adversary.

    Args:
        subject: a model at some cuts, or a protected split; see `Subject`.
        data: private images are drawn from its test part.
        aux: the adversary's images; None for the rest of the test part.
        suite: name or `Suite`.
        knows: the adversary's grants; attacks that need more are left out and noted.
        n: private images.
        seed: of every draw.
        samples: private images to keep pictures of, 0 for none.
        out: folder for the card and everything behind it, and for resuming.
        resume: go on with what a killed run left in `out`.

    Raises:
        OverlapError: an image would be private and the adversary's.
        InputError: `out` holds another audit.
        ThreatModelError: no attack of the suite is within what the adversary knows.
    """
    begun = time.perf_counter()
    suite = find_suite(suite) if isinstance(suite, str) else suite
    specs = [*FLOORS, *(a for a in suite.attacks if a not in FLOORS)]
    attacks = [a for a in (ATTACKS.build(spec) for spec in specs) if isinstance(a, Attack)]
    granted = [a for a in attacks if a.needs in knows]
    if not granted:
        raise ThreatModelError(
            f"no attack can be run by an adversary who knows {knows.words()}; grant more with --knows."
        )
    budget = memory_budget()
    most = most_images(subject, budget) - n
    parts = partition(data, n=n, aux=aux, max_aux=max(1, min(suite.max_aux, most)), seed=seed)
    # Labels of other classes would only mislead: without them the class mean falls back on the mean.
    labels = parts.aux.y if aux is None or aux.classes == data.classes else np.full(len(parts.aux), -1)
    known = Aux(torch.from_numpy(parts.aux.x), torch.from_numpy(labels))
    run = {
        "subject": [subject.model, subject.weights, *(c.label for c in subject.configurations)],
        "data": [data.name, digest(data.test.x, data.test.y, parts.aux.x), parts.aux_words],
        "attacks": [repr(a) for a in granted],
        "knows": knows.words(),
        "n": n,
        "seed": seed,
        "samples": samples,
        "versions": fingerprint(),
    }
    ledger = Ledger(out, run, resume=resume)
    x = torch.from_numpy(parts.private.x)
    shown = torch.arange(min(samples, n))
    units, accuracies = list[Unit](), dict[str, float]()
    for group in groups(subject, n + len(parts.aux), budget):
        features = collect(subject, group, data, parts, seed)
        accuracies |= features.accuracies
        for configuration in group:
            done: list[Unit] = []
            for attack in granted:
                label = f"{configuration.label} | {attack!r}"
                unit = ledger.find(label)
                if unit is None:
                    view = _view(configuration, features, known, knows, derive(seed, label), ledger.workdir(label))
                    unit = _attack(attack, view, configuration, x, shown, done)
                    ledger.keep(label, unit)
                done.append(unit)
            units += [*done, *worst_cases(done)]
    left_out = [a for a in attacks if a not in granted]
    notes = [f"{a!r} was not run: it needs {', '.join((a.needs & ~knows).words())} as well" for a in left_out]
    if most < suite.max_aux and len(parts.aux) >= most:
        notes.append(f"the adversary holds {len(parts.aux):,} images, not {suite.max_aux:,}: more do not fit in memory")
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
        bundle=subject.bundle,
        versions=fingerprint(),
        notes=notes,
    )
    positions = torch.from_numpy(parts.private_index.astype(np.int64))[shown]
    result = Audit(card, tuple(u.scores for u in units), tuple(u.samples for u in units), x[shown], positions)
    if out is not None:
        result.save(out)
    return result


def _view(c: Configuration, features: Collected, aux: Aux, knows: Knows, seed: int, workdir: Path | None) -> View:
    """What the adversary holds at one configuration; nothing in it leads to a private image."""
    torch.manual_seed(derive(seed, "crossing"))
    stochastic = c.protected.defense.stochastic
    with torch.no_grad():
        crossed = c.protected.observe(features.private[c.cut.name]).clone()
        clean = features.aux[c.cut.name]
        if not (stochastic or c.plain):
            clean = torch.cat([c.protected.observe(part) for part in clean.split(1024)])

    def observe(index: Tensor) -> Tensor:
        with torch.no_grad():
            return c.protected.observe(clean[index]) if stochastic else clean[index]

    def query(x: Tensor) -> Tensor:
        with torch.no_grad():
            return c.protected.observe(c.split.edge(x))

    return View(
        crossed,
        (aux.x.shape[1], aux.x.shape[2], aux.x.shape[3]),
        knows=knows,
        aux=aux,
        observe=observe,
        query=query,
        edge=c.split.edge,
        defense=c.protected.defense,
        cloud=c.split.cloud,
        stochastic=stochastic,
        seed=seed,
        workdir=workdir,
        label=c.label,
    )


def _attack(attack: Attack, view: View, c: Configuration, x: Tensor, shown: Tensor, done: Sequence[Unit]) -> Unit:
    """Run, score and check one attack. x: (N, C, H, W) uint8, the private images, which the attack never sees."""
    found = attack(view)
    truth, guess = x.float() / 255, found.x_hat.nan_to_num()
    metrics = {name: METRICS.build(name) for name in METRICS.names()}
    scores = {
        name: torch.cat([m(a, b) for a, b in zip(truth.split(256), guess.split(256), strict=True)])
        for name, m in metrics.items()
    }
    floor = next((u.row.psnr for u in done if u.row.attack == "mean"), None)
    row = Row(
        cut=c.cut.name,
        defense=c.defense,
        codec=c.codec,
        attack=attack.name,
        options=repr(attack).partition(":")[2],
        needs=attack.needs.words(),
        n=len(x),
        mse=scores["mse"].mean().item(),
        psnr=scores["psnr"].mean().item(),
        ssim=scores["ssim"].mean().item(),
        psnr_worst5=metrics["psnr"].worst(scores["psnr"]),
        ssim_worst5=metrics["ssim"].worst(scores["ssim"]),
        seconds=round(found.seconds, 3),
        unreliable=check_row(attack.name, scores, floor, finite=bool(found.x_hat.isfinite().all())),
    )
    return Unit(row, scores, to_bytes(guess[shown]))


def _words(knows: Knows, parts: Parts) -> str:
    """The threat model in one sentence."""
    preset = next((name for name, value in PRESETS.items() if value == knows), "custom")
    return f"{preset} adversary: knows {', '.join(knows.words()) or 'nothing'}; holds {parts.aux_words}"
