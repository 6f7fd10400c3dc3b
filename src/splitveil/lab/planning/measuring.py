"""`Bench`: installs, trains and attacks one option at a time, and keeps every result by content."""

import copy
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from splitveil.core.errors import InputError
from splitveil.core.records import LIMITS, Card, Figure, Place
from splitveil.lab.auditing.question import SHOWN, Question
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.suites import Suite
from splitveil.lab.comparing.candidate import PLAIN
from splitveil.lab.comparing.cards import Cards, alone, carded
from splitveil.lab.comparing.facts import Carded, Defended, Sent, Shown, Start, Taught
from splitveil.lab.comparing.sending import Sending
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.trials import Trials
from splitveil.lab.cut import Split, Traced
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.jobs import Job, Workers
from splitveil.lab.planning.coding import attacked_coded, coded
from splitveil.lab.planning.latency import Way
from splitveil.lab.planning.proxies import proxy
from splitveil.lab.planning.space import Option
from splitveil.lab.planning.untrained import Counted, Counts, Proxied, counted, counts, installed, proxied
from splitveil.lab.protection import CALIBRATION, protect
from splitveil.lab.recipe import Recipe
from splitveil.lab.store import Kept, Store
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
Timing = Callable[[str], AbstractContextManager[None]]
"""Notes how long what is inside took, by its kind."""


@dataclass
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
        sending: to those who work.
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
    sending: Sending = field(default_factory=Sending)
    _splits: dict[str, Split] = field(default_factory=dict)
    _last: list[tuple[tuple[str, str], Protected]] = field(default_factory=list)
    _starts: dict[str, Start] = field(default_factory=dict)
    _trials: dict[tuple[str, int], Trials] = field(default_factory=dict)

    @cached_property
    def seen(self) -> Dataset:
        """What the search sees: the training part and the images set aside."""
        return replace(self.data, test=self.held)

    def send_to(self, workers: Workers) -> None:
        """Let these work, if what they need can be sent."""
        first = self._halves(self.traced.cuts()[0].name)
        self.sending = Sending.of(workers, [first, self.seen, self.asked])

    def split(self, cut: str) -> Split:
        """Fresh halves there with the model's weights."""
        return copy.deepcopy(self._halves(cut))

    def _halves(self, cut: str) -> Split:
        """The same, to be left as they are."""
        if cut not in self._splits:
            self._splits[cut] = self.traced.split(cut)
        return self._splits[cut]

    def costs(self, option: Option, codec: str) -> dict[str, Figure]:
        """Of the split with its defence, not trained; see `counted`.

        Raises:
            InputError: this defence cannot be had there.
        """
        found = json.loads(self.store.kept(self._count_facts(option), lambda _: self._counted(option))[0])
        if "refused" in found:
            raise InputError(found["refused"])
        return self._figures(found["counts"], codec)

    def proxies(self, option: Option, codecs: Sequence[str]) -> dict[str, dict[str, float]]:
        """Codec -> cheap numbers; see `splitveil.lab.planning.proxies`."""

        def make(_: Path | None) -> Kept:
            return json.dumps(proxy(self._installed(option), codecs, self._proxied, self.seed)), {}

        found: dict[str, dict[str, float]] = json.loads(self.store.kept(self._proxy_facts(option, codecs), make)[0])
        return found

    def prepare(self, options: Sequence[Option], wanted: Callable[[Option], Sequence[str]]) -> None:
        """Have costs and proxies of these in the store, made beside each other.

        wanted: an option whose costs are known -> codecs.
        """
        send = self.sending
        given = {o: (send(self._halves(o.cut)), o.defense, send(self._studied)) for o in options}
        counting = [Job(facts=self._count_facts(o), call=counted, args=(*args, self.seed)) for o, args in given.items()]
        send.workers.run(counting, self.store, "costs")
        estimating = [
            Job(
                facts=self._proxy_facts(o, codecs), call=proxied,
                args=(*args, list(codecs), send(self._proxied), self.seed),
            )
            for o, args in given.items() if (codecs := wanted(o))
        ]  # fmt: skip
        send.workers.run(estimating, self.store, "proxies")

    def counted(self, protected: Protected, codec: str) -> dict[str, Figure]:
        """MACs, weights and activations on the device, bytes that cross, and an estimate of the latency."""
        return self._figures(counts(protected, self.data.shape), codec)

    def _figures(self, own: Counts, codec: str) -> dict[str, Figure]:
        payload = CODECS.build(codec).payload_bytes(own["elements"])
        told = {**{name: own[name] for name in ("edge_macs", "edge_bytes", "edge_memory")}, "payload": payload}
        found = {name: Figure(value=float(count), measured=True, source=COUNTED) for name, count in told.items()}
        if (seconds := self.way.estimate(own["edge_macs"], own["cloud_macs"], payload)) is not None:
            found["latency"] = seconds
        return found

    def _installed(self, option: Option) -> Protected:
        """Not trained; the last one is at hand."""
        if [(option.cut, option.defense)] != [key for key, _ in self._last]:
            made = installed(self._halves(option.cut), option.defense, self._studied, self.seed)
            self._last[:] = [((option.cut, option.defense), made)]
        return self._last[0][1]

    def _counted(self, option: Option) -> Kept:
        try:
            return json.dumps({"counts": counts(self._installed(option), self.data.shape)}), {}
        except InputError as why:
            return json.dumps({"refused": str(why)}), {}

    def _count_facts(self, option: Option) -> Counted:
        taught = Taught(self._studied.train, len(self.data.classes))
        return Counted(self._start(option.cut), Defended.of(option.defense), taught, self.seed)

    def _proxy_facts(self, option: Option, codecs: Sequence[str]) -> Proxied:
        taught = Taught(self._studied.train, len(self.data.classes), self._proxied)
        sent = tuple(map(Sent.of, codecs))
        return Proxied(self._start(option.cut), Defended.of(option.defense), sent, taught, self.seed)

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
        return coded(found, option.codec, self._calibrating, self.seed)

    def audited(self, option: Option, protected: Protected, suite: Suite, *, fresh: bool) -> tuple[Card, Path]:
        """The card of one trained split, and where it lies. fresh: other images and another seed than the search's."""
        facts, data, weights = self._card_facts(option, suite, fresh=fresh)
        workers = self.sending.workers
        return carded(facts, data, lambda: alone(protected, self.model, weights), self.out, workers)

    def searching(self, option: Option, enough: Callable[[float], bool], timing: Timing) -> Callable[[], None]:
        """Training and the search's audit of a choice as jobs whose results the store holds then.

        Args:
            option: which.
            enough: whether this accuracy makes an attack needless.
            timing: of trainings and audits.
        """
        shop, setting, cards = self._shop(option), Setting(option.defense, "raw"), Cards(self.out)
        facts, data, weights = self._card_facts(option, self.asked.suite, fresh=False)
        send = self.sending
        halves, epochs = send(shop.start(self.seed)), shop.recipe.epochs
        named, images, seen = (self.model, weights), send(self._calibrating), send(data)

        def work() -> None:
            with timing("training"):
                trial = shop.trial(setting, self.seed)
            if enough(trial.validation) or facts in cards:
                return
            trained = shop.weights(setting, self.seed)
            args = (
                halves, setting, trained, epochs, option.codec, images, self.seed, named, seen, facts.question,
                facts.seed, cards.units,
            )  # fmt: skip
            with timing("audit"):
                send.workers.run([Job(facts=facts, call=attacked_coded, args=args)], cards, facts.label)

        return work

    def _card_facts(self, option: Option, suite: Suite, *, fresh: bool) -> tuple[Carded, Dataset, str]:
        """What decides a card, its images, and the weights in words."""
        data = self.data if fresh else self.seen
        asked = self._asked(suite, min(self.asked.n, len(data.test) // 2), samples=SHOWN if fresh else 0)
        trained = self._shop(option).facts(Setting(option.defense, "raw"), self.seed)
        weights = f"{self.weights}, {option.defense}"
        facts = Carded.of(
            option.label, (self.model, weights), (trained, Sent.of(option.codec)), Shown.of(data), asked,
            self.seed + fresh,
        )  # fmt: skip
        return facts, data, weights

    def undefended(self, cuts: Sequence[str], suite: Suite) -> tuple[Card, Path]:
        """The model as it is at several cuts: one forward pass serves all of them."""
        asked = self._asked(suite, min(self.asked.n, len(self.held) // 2), samples=0)
        starts = tuple(self._start(cut) for cut in cuts)
        facts = Carded.of(
            "undefended", (self.model, self.weights), starts, Shown.of(self.seen), asked, self.seed
        )  # fmt: skip

        def subject() -> Subject:
            return Subject.of_model(self.traced, cuts, model=self.model, weights=self.weights)

        return carded(facts, self.seen, subject, self.out, self.sending.workers)

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
                Recipe(epochs=epochs, lr=self.lr), self.held, self.sending,
            )  # fmt: skip
            self._trials[key].learns_from = self.seen  # one and the same goes to the workers
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
    def _calibrating(self) -> Images:
        """Training images that codecs are fixed on."""
        return self.data.train.take(np.arange(min(CALIBRATION, len(self.data.train))))

    @cached_property
    def _proxied(self) -> Images:
        return self.held.take(np.arange(min(PROXIED, len(self.held))))


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
