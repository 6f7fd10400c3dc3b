"""`Bench`: installs, trains and attacks one option at a time, and keeps every result by content."""

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from splitveil.core.records import LIMITS, Card, Figure, Place
from splitveil.lab.auditing.question import SHOWN, Question
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.suites import Suite
from splitveil.lab.comparing.candidate import PLAIN
from splitveil.lab.comparing.cards import alone, carded
from splitveil.lab.comparing.costs import edge_cost
from splitveil.lab.comparing.facts import Carded, Defended, Sent, Shown, Start, Taught
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.trials import Trials
from splitveil.lab.cut import Split, Traced
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.planning.latency import Way
from splitveil.lab.planning.proxies import proxy
from splitveil.lab.planning.space import Option
from splitveil.lab.protection import CALIBRATION, protect
from splitveil.lab.recipe import Recipe
from splitveil.lab.seeds import derive
from splitveil.lab.store import Facts, Kept, Store
from splitveil.wire.codecs import CODECS

SHORT = 2
"""Epochs of what works without training."""
QUICK = Suite(
    "search", "1", ("linear", "decoder:size=tiny,epochs=2,steps=100"), 2000, "orders choices; not to be reported"
)
STUDIED = 300
"""Training images that a defence studies before its proxy is taken."""
PROXIED = 600
"""Images that proxies are taken on."""
TIMED = 128
"""Training images for an estimate of how long a training takes."""
COUNTED = "counted"


@dataclass(frozen=True)
class Bench:
    """One model, its data, and the folder where everything is kept.

    Attributes:
        traced: the model.
        data: trained on its training part; fresh audits attack its test part, which the search never sees.
        held: test images set aside for the search.
        model: name for the cards.
        weights: description for the cards.
        store: of the plan's folder.
        out: that folder.
        epochs: of a defence's training, None for what each needs and at least `SHORT`; undefended splits stay as
            they are.
        lr: peak learning rate.
        asked: of every audit of the search; fresh ones have another suite.
        seed: of training and the search's attacks; fresh ones have the next.
        way: device, link and server, for the latency.
    """

    traced: Traced
    data: Dataset
    held: Images
    model: str
    weights: str
    store: Store
    out: Path
    epochs: int | None
    lr: float
    asked: Question
    seed: int
    way: Way
    _splits: dict[str, Split] = field(default_factory=dict)
    _starts: dict[str, Start] = field(default_factory=dict)
    _trials: dict[tuple[str, int], Trials] = field(default_factory=dict)

    @cached_property
    def seen(self) -> Dataset:
        """What the search sees: the training part and the images set aside."""
        return replace(self.data, test=self.held)

    def split(self, cut: str) -> Split:
        """Fresh halves there with the model's weights."""
        if cut not in self._splits:
            self._splits[cut] = self.traced.split(cut)
        return copy.deepcopy(self._splits[cut])

    def installed(self, option: Option) -> Protected:
        """The split with its defence, not trained.

        Raises:
            InputError: this defence cannot be had there.
        """
        return protect(self.split(option.cut), option.defense, "raw", self._studied, epochs=0, seed=self.seed)[0]

    def proxies(self, installed: Protected, option: Option, codecs: Sequence[str]) -> dict[str, dict[str, float]]:
        """Codec -> cheap numbers; see `splitveil.lab.planning.proxies`."""
        start, studied = self._start(option.cut), Taught(self._studied.train, len(self.data.classes), self._proxied)
        facts = Proxied(start, Defended.of(option.defense), tuple(map(Sent.of, codecs)), studied, self.seed)

        def make(_: Path | None) -> Kept:
            return json.dumps(proxy(installed, codecs, self._proxied, self.seed)), {}

        found: dict[str, dict[str, float]] = json.loads(self.store.kept(facts, make)[0])
        return found

    def counted(self, protected: Protected, codec: str) -> dict[str, Figure]:
        """MACs, weights and activations on the device, bytes that cross, and an estimate of the latency."""
        own, wire = edge_cost(protected, self.data.shape), CODECS.build(codec)
        cut, noise = protected.split.cut, 0
        if protected.defense.stochastic:
            noise = 4 * int(np.prod(protected.defense.noise_shape(cut.shape)))
        tensors = [*protected.split.edge.state_dict().values(), *protected.defense.state_dict().values()]
        stored = {t.untyped_storage().data_ptr(): t.numel() * t.element_size() for t in tensors if t.numel()}
        counts = {
            "edge_macs": own.macs,
            "edge_bytes": sum(stored.values()),
            "edge_memory": max(cut.edge_peak_bytes, 2 * cut.bytes_fp32 + noise),
            "payload": wire.payload_bytes(int(np.prod(cut.shape))),
        }
        found = {name: Figure(value=float(count), measured=True, source=COUNTED) for name, count in counts.items()}
        self._with_latency(found, protected)
        return found

    def _with_latency(self, found: dict[str, Figure], protected: Protected) -> None:
        macs, sent = found["edge_macs"].value, found["payload"].value
        if (seconds := self.way.estimate(macs, protected.split.cut.cloud_macs, sent)) is not None:
            found["latency"] = seconds

    def accuracy(self, option: Option) -> float:
        """Of the trained split on the images set aside, unquantised; trained if it was not before.

        Raises:
            TrainingError: training diverged.
        """
        return self._shop(option).trial(Setting(option.defense, "raw"), self.seed).validation

    def training_seconds(self, option: Option) -> float:
        """How long a training of this option takes, estimated from one on a few images.

        Raises:
            InputError: this defence cannot be had there.
            TrainingError: training diverged.
        """
        few = min(TIMED, len(self.data.train))
        part = replace(self.data, train=self.data.train.take(np.arange(few)))

        def seconds(epochs: int) -> float:
            begun = time.perf_counter()
            protect(self.split(option.cut), option.defense, "raw", part, epochs=epochs, lr=self.lr, seed=self.seed)
            return time.perf_counter() - begun

        still = seconds(0)
        return still + max(0.0, seconds(self.epochs_of(option)) - still) * len(self.data.train) / few

    def protected(self, option: Option) -> Protected:
        """The trained split with its codec. A training serves all codecs, whose scales are fixed after it."""
        found = self._shop(option).protected(Setting(option.defense, "raw"), self.seed)
        if option.codec == "raw":
            return found
        x = as_floats(torch.from_numpy(self.data.train.x[:CALIBRATION]))
        torch.manual_seed(derive(self.seed, "codec"))
        with torch.no_grad():
            z = torch.cat([found.defense(found.split.edge(part)) for part in x.split(250)])
        found.codec = CODECS.build(option.codec).calibrate(z)
        return found.eval()

    def audited(self, option: Option, protected: Protected, suite: Suite, *, fresh: bool) -> tuple[Card, Path]:
        """The card of one trained split, and where it lies. fresh: other images and another seed than the search's."""
        data = self.data if fresh else self.seen
        asked = self._asked(suite, min(self.asked.n, len(data.test) // 2), samples=SHOWN if fresh else 0)
        trained = self._shop(option).facts(Setting(option.defense, "raw"), self.seed)
        weights = f"{self.weights}, {option.defense}"
        facts = Carded.of(
            option.label, (self.model, weights), (trained, Sent.of(option.codec)), Shown.of(data), asked,
            self.seed + fresh,
        )  # fmt: skip
        return carded(facts, data, lambda: alone(protected, self.model, weights), self.out)

    def undefended(self, cuts: Sequence[str], suite: Suite) -> tuple[Card, Path]:
        """The model as it is at several cuts: one forward pass serves all of them."""
        asked = self._asked(suite, min(self.asked.n, len(self.held) // 2), samples=0)
        starts = tuple(self._start(cut) for cut in cuts)
        facts = Carded.of(
            "undefended", (self.model, self.weights), starts, Shown.of(self.seen), asked, self.seed
        )  # fmt: skip

        def subject() -> Subject:
            return Subject.of_model(self.traced, cuts, model=self.model, weights=self.weights)

        return carded(facts, self.seen, subject, self.out)

    def epochs_of(self, option: Option) -> int:
        """Of this option's training."""
        if option.defense == PLAIN:
            return 0
        return max(SHORT, DEFENSES.build(option.defense).least_epochs) if self.epochs is None else self.epochs

    def _shop(self, option: Option) -> Trials:
        epochs = self.epochs_of(option)
        key = option.cut, epochs
        if key not in self._trials:
            self._trials[key] = Trials(
                self.out / "trials", lambda _: self.split(option.cut), self.data,
                Recipe(epochs=epochs, lr=self.lr), self.held,
            )  # fmt: skip
        return self._trials[key]

    def _asked(self, suite: Suite, n: int, *, samples: int) -> Question:
        return replace(self.asked, suite=suite, n=n, samples=samples)

    def _start(self, cut: str) -> Start:
        if cut not in self._starts:
            self._starts[cut] = Start.of(self.split(cut))
        return self._starts[cut]

    @cached_property
    def _studied(self) -> Dataset:
        few = np.arange(min(STUDIED, len(self.data.train)))
        return replace(self.data, train=self.data.train.take(few))

    @cached_property
    def _proxied(self) -> Images:
        return self.held.take(np.arange(min(PROXIED, len(self.held))))


@dataclass(frozen=True)
class Proxied(Facts):
    """The cheap numbers of a defence at a cut, for some codecs."""

    made_by: ClassVar = (
        "splitveil.lab.planning.proxies", "splitveil.lab.protection", "splitveil.lab.metrics.reconstruction"
    )  # fmt: skip
    start: Start
    defense: Defended
    codecs: tuple[Sent, ...]
    data: Taught
    seed: int

    @property
    def label(self) -> str:
        return f"proxy {self.start.cut} {self.defense.words}"


def figures(card: Card, place: Place, reference: float, source: str, *, intervals: bool) -> dict[str, Figure]:
    """Accuracy and worst-case leakage of one configuration of a card.

    Args:
        card: with worst cases.
        place: of that configuration.
        reference: accuracy of the undefended model on the same images, 0 to 1.
        source: of every figure.
        intervals: with those of the means over images.
    """
    own = {r.chosen_by: r for r in card.at(place)}
    accuracy, told = card.accuracies[place.label], card.tested.get(place.label)

    figure = partial(Figure, measured=True, source=source)
    found = {
        "accuracy": figure(value=accuracy, interval=told.interval if told else None),
        "accuracy_drop": figure(value=100 * (reference - accuracy)),
    }
    for name, (metric, tail) in LIMITS.items():
        score = own[metric].scores[metric]
        interval = score.interval if intervals and not tail else None
        found[name] = figure(value=score.number(tail=tail), interval=interval)
    return found
