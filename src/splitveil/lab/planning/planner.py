"""The steps of one plan, in order: depth, costs and proxies, measurements, fresh audits, the bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from splitveil.core.errors import InputError, TrainingError
from splitveil.core.progress import task
from splitveil.core.records import CHOSEN_BY, LEAKAGE, Card, CutCurve, Figure, Lost, Need, Plan, Role, Zone
from splitveil.lab.auditing.checks import check_budget_told, check_lost
from splitveil.lab.auditing.subject import undefended
from splitveil.lab.auditing.suites import Suite
from splitveil.lab.comparing.candidate import PLAIN
from splitveil.lab.defenses.base import Protected
from splitveil.lab.export import export_halves, save
from splitveil.lab.planning.ahead import Ahead
from splitveil.lab.planning.budgets import broken
from splitveil.lab.planning.clock import Clock
from splitveil.lab.planning.depth import curves
from splitveil.lab.planning.measuring import Bench, figures
from splitveil.lab.planning.need import needed
from splitveil.lab.planning.proposals import proposed, taken
from splitveil.lab.planning.search import COSTS, Known, Search
from splitveil.lab.planning.space import LEVELS, Option, Space
from splitveil.lab.planning.transition import find_zones
from splitveil.lab.planning.verification import DECODER, verify_zone
from splitveil.lab.protection import lost, right_of, tested

MANY, CALIBRATED, WIDTHS = 150, 6, 3
AT_ONCE = 4
"""Options for each worker whose proxies are made before the clock is looked at again."""
EARLY = 3.0
"""Points of accuracy beyond its limit from which a trained choice is not attacked any more."""
ENOUGH_FOR_WIDTHS = 6
ZONE = "rc2"
"""The method whose zone a plan verifies, the published one."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Curves over depth and the zones in them."""

    curves: list[CutCurve]
    zones: list[Zone]


class Planner:
    """One plan in the making.

    Args:
        bench: measures.
        space: what there is to choose from.
        limits: by name.
        leak: the number that stands for leakage in the front.
        suite: of the fresh audits.
        clock: of the whole plan.
    """

    def __init__(
        self, bench: Bench, space: Space, limits: dict[str, float], leak: str, suite: Suite, clock: Clock
    ) -> None:
        self.bench, self.space, self.limits, self.leak = bench, space, limits, leak
        self.suite, self.clock = suite, clock
        self.notes: list[str] = []
        self.pruned: list[Known] = []
        self._known: dict[Option, Known] = {}
        self._tried: set[tuple[str, str]] = set()
        self._near: set[tuple[str, str]] = set()
        """Options whose costs and proxies were made beside those of others."""
        self._refused: set[tuple[str, str]] = set()
        self._cards: dict[Option, Card] = {}
        self.waiting = 0
        """Proxies that were not taken for want of time."""
        self._defended: list[Option] = []
        self.floors: dict[str, tuple[str, float]] = {}
        """Leakage -> the guess without features that gets most of it, and how much."""
        whole = undefended(bench.split(space.cuts[0].name))
        self.right = right_of(whole, bench.data.test, bench.seed)
        """Which test images that the search does not see the undefended model answers correctly: (N,) bool."""
        self.tested = tested(self.right)
        self.reference = self.right.float().mean().item()
        """The same as accuracy."""
        self._held = right_of(whole, bench.held, bench.seed).float().mean().item()
        self.ahead = Ahead(bench.sending.workers, self._work)
        self.left = 0
        """Choices that are still to be measured."""
        self.lost: dict[Option, Lost] = {}
        """What choices that were attacked afresh lose on these images."""

    def depth(self, n: int, detector: str) -> Depth:
        """Cheap numbers at every cut of the model, by one forward pass, and where they fall; nothing without images."""
        n = min(n, len(self.bench.held))
        if not n:
            return Depth([], [])
        try:
            found = curves(self.bench.traced, self.bench.seen, n=n, seed=self.bench.seed)
        except InputError as why:
            self.notes.append(f"no curves over depth: {why}")
            return Depth([], [])
        return Depth(found, find_zones(found, detector=detector))

    @property
    def decoder(self) -> str:
        """The decoder of the search's quick suite."""
        return next((a for a in self.bench.asked.suite.attacks if a.startswith("decoder")), DECODER)

    def zones_verified(self, zones: Sequence[Zone]) -> list[Zone]:
        """The zone by R_c^2, with decoders trained on both sides of its edge where two quick audits still fit."""
        done = list[Zone]()
        for zone in zones:
            known = zone
            if zone.method == ZONE and zone.first and self.clock.fits(2 * self.clock.expected("audit")):
                try:
                    known = verify_zone(
                        zone, self.bench.traced, self.bench.seen, attack=self.decoder, seed=self.bench.seed,
                        n=min(self.bench.asked.n, len(self.bench.held) // 2), out=self.bench.out / "zone",
                        workers=self.bench.sending.workers,
                    )  # fmt: skip
                except InputError as why:
                    self.notes.append(f"zone not verified: {why}")
            done.append(known)
        return done

    def searched(self, levels: Sequence[float] = LEVELS) -> tuple[Search, bool]:
        """Costs and proxies of what there is to choose from; whether time was enough for all that was meant."""
        self._calibrate()
        grid = self.space.grid(levels)
        settings = {(o.cut, o.defense): o for o in reversed(taken(grid, self.bench.seed))}
        self._defended = [o for o in reversed(settings.values()) if o.defense != PLAIN]
        if len(settings) <= MANY:
            with task("proxies", len(settings)) as show:
                waiting = list(reversed(settings.values()))
                for done, option in enumerate(waiting):
                    if not self.clock.proxies_fit() and done:
                        break
                    self._prepared(waiting[done:])
                    self.consider(option)
                    show(done + 1)
            self.waiting = max(0, len(settings) - len(self._tried))
        else:
            self.waiting = MANY - proposed(self.space, self._judge, self.clock.proxies_fit, MANY, self.bench.seed)
        complete = not self.waiting
        search = Search([*self._known.values()], self.limits, self._held, leak=self.leak, seed=self.bench.seed)
        return search, complete

    def consider(self, option: Option) -> list[Known]:
        """Install a defence at a cut, count what each codec costs there, and take the proxies of what is left."""
        if (option.cut, option.defense) in self._tried:
            return []
        self._tried.add((option.cut, option.defense))
        with self.clock.timing("proxy"):
            try:
                costs = {codec: self.bench.costs(option, codec) for codec in self.space.codecs}
            except InputError as why:
                if (option.cut, option.family) not in self._refused:
                    self._refused.add((option.cut, option.family))
                    self.notes.append(f"{option.cut} cannot have {option.defense}: {why}")
                return []
            made = []
            for codec, counted in costs.items():
                own = Option(option.depth, option.cut, option.defense, codec, option.family, option.strength)
                k = self._known.get(own) or Known(own, counted)
                k.offered = True
                if self._too_dear(k.costs):
                    k.offered = False
                    self.pruned.append(k)
                else:
                    made.append(k)
            if made:
                found = self.bench.proxies(option, [k.option.codec for k in made])
                for k in made:
                    k.proxy = found[k.option.codec]
                    self._known[k.option] = k
        return made

    def _too_dear(self, costs: dict[str, Figure]) -> bool:
        return bool(broken({n: f for n, f in costs.items() if n in COSTS}, self.limits))

    def _prepared(self, waiting: Sequence[Option]) -> None:
        """Where there are workers, have the next options' costs and proxies made beside each other."""
        workers = self.bench.sending.workers
        if workers.inline or (waiting[0].cut, waiting[0].defense) in self._near:
            return
        some = [o for o in waiting if (o.cut, o.defense) not in self._tried][: AT_ONCE * workers.pool.slots]
        self._near |= {(o.cut, o.defense) for o in some}

        def wanted(option: Option) -> list[str]:
            try:
                return [c for c in self.space.codecs if not self._too_dear(self.bench.costs(option, c))]
            except InputError:
                return []

        begun = self.clock.seconds
        self.bench.prepare(some, wanted)
        if some:
            self.clock.note("proxy", (self.clock.seconds - begun) / len(some))

    def _work(self, wish: tuple[Option, bool]) -> Callable[[], None]:
        """Everything that `measure` needs of an option, or of one that is attacked anyway."""
        option, anyway = wish
        return self.bench.searching(option, lambda accuracy: not anyway and self._far(accuracy), self.clock.timing)

    def _far(self, accuracy: float) -> bool:
        """Whether this misses the limit on accuracy by so much that an attack is not worth its time."""
        limit = self.limits.get("accuracy_drop")
        return limit is not None and 100 * (self._held - accuracy) > limit + EARLY

    def measure(
        self, k: Known, *, anyway: bool = False, guesses: Callable[[int], Sequence[Known]] = lambda _: ()
    ) -> None:
        """Train and, unless that already misses the accuracy, attack with the search's quick suite; or `anyway`.

        guesses: so many that are expected to be measured next, for workers that are idle.
        """
        self.left -= 1
        with self.clock.timing("measure"):
            try:
                self.ahead.ready(
                    (k.option, anyway),
                    lambda most: [(g.option, anyway) for g in guesses(min(most, self.left))],
                )
                with self.clock.timing("training"):
                    accuracy = self.bench.accuracy(k.option)
            except TrainingError as why:
                k.offered, k.note = False, f"not trained: {why}"
                return
            if self._far(accuracy) and not anyway:
                source = f"{len(self.bench.held):,} test images set aside for the search"
                k.found = {
                    "accuracy": Figure(value=accuracy, measured=True, source=source),
                    "accuracy_drop": Figure(value=100 * (self._held - accuracy), measured=True, source=source),
                }
                k.note = "trained and not attacked: it misses the accuracy by far"
                return
            protected = self.bench.protected(k.option)
            k.costs = self.bench.counted(protected, k.option.codec)
            with self.clock.timing("audit"):
                card, path = self.bench.audited(k.option, protected, self.bench.asked.suite, fresh=False)
        k.found = figures(card, card.places[0], self._held, self._source(card), intervals=False)
        k.card = path.relative_to(self.bench.out).as_posix()

    def widths(self, search: Search, most: int) -> list[Known]:
        """Options that differ in strength alone, weak, middle and strong: for the proxy's rank over widths."""
        groups: dict[tuple[str, str, str], list[Known]] = {}
        for k in search.known:
            if k.offered and k.proxy:
                groups.setdefault(k.option.group, []).append(k)
        wide = [sorted(g, key=lambda k: k.option.strength) for g in groups.values() if len(g) >= WIDTHS]
        if most < ENOUGH_FOR_WIDTHS or not wide:
            return []
        expected = search.expected()

        def excess(group: list[Known]) -> float:
            return sum(sum(broken({**expected[k.option], **k.costs}, self.limits).values()) for k in group) / len(group)

        chosen = min(wide, key=excess)
        return [chosen[0], chosen[len(chosen) // 2], chosen[-1]]

    def need(self, search: Search, meant: int) -> Need:
        """How long a plan that measures `meant` takes; a training is timed on a few images where there was none."""
        training = self.clock.expected("training")
        offered = [k.option for k in search.offered if k.option.defense != PLAIN]
        if not self.clock.timed("training") and (untrained := [*offered, *self._defended][:1]):
            with self.clock.timing("trial"):
                try:
                    training = self.bench.training_seconds(untrained[0])
                except (InputError, TrainingError) as why:
                    self.notes.append(f"the time of a training is not known: {why}")
        return needed(self.clock, choices=meant, training=training, waiting=self.waiting)

    def verify(self, k: Known) -> None:
        """Attack afresh: the same trained split, another seed, other images, the suite that is reported."""
        with self.clock.timing("fresh"):
            protected = self.bench.protected(k.option)
            card, path = self.bench.audited(k.option, protected, self.suite, fresh=True)
            k.fresh = figures(card, card.places[0], self.reference, self._source(card), intervals=True)
            self.lost[k.option] = gap = lost(self.right, right_of(protected, self.bench.data.test, self.bench.seed))
            drop = k.fresh["accuracy_drop"]
            # The audit drew other noise: its loss, with the reach of the interval about ours.
            ends = tuple(drop.value + end - gap.points for end in gap.interval)
            k.fresh["accuracy_drop"] = drop.model_copy(update={"interval": ends})
            if self.bench.way.known:
                self.ahead.settle()
                timed = self.bench.way.timed(export_halves(protected, self.bench.data.shape), k.costs["payload"].value)
                k.fresh["latency"] = timed
        k.card = path.relative_to(self.bench.out).as_posix()
        self._cards[k.option] = card
        k.note = "attacked afresh"

    def shipped(self, record: Plan, k: Known) -> Plan:
        """The record with the bundle of what it recommends, which holds the card of the fresh audit."""
        protected: Protected = self.bench.protected(k.option)
        card, classes = self._cards[k.option], self.bench.data.classes
        folder = self.bench.out / "bundle"
        save(
            protected, folder, name="bundle", model_spec=self.bench.model, image_shape=self.bench.data.shape,
            classes=classes, card=card, task_accuracy=k.fresh["accuracy"].value,
            tested=next(iter(card.tested.values())), undefended=self.tested, picture=self.bench.data.picture,
        )  # fmt: skip
        return record.model_copy(update={"bundle": folder.name})

    def few_images(self, chosen: Known | None) -> list[str]:
        """Why the test images do not bear out the limit on accuracy; empty where they do, or where there is none."""
        limit = self.limits.get("accuracy_drop")
        if not limit:
            return []
        if chosen is not None and chosen.option in self.lost:
            return check_lost(self.lost[chosen.option], limit)
        return check_budget_told(self.tested, limit)

    def _judge(self, option: Option) -> tuple[float, float, float] | None:
        self.consider(option)
        known = [k for k in (*self._known.values(), *self.pruned) if k.option == option]
        if not known:
            return None
        k = known[0]
        over = sum(broken(k.costs, self.limits).values())
        return k.proxy.get("accuracy", 0.0), k.proxy.get(self.leak, 1e3), over

    def _calibrate(self) -> None:
        """Attack the undefended model at some cuts, by one forward pass, so that the proxies mean something."""
        cuts = self.space.cuts
        last = len(cuts) - 1
        places = range(len(cuts)) if len(cuts) <= CALIBRATED else [
            round(last * i / (CALIBRATED - 1)) for i in range(CALIBRATED)
        ]  # fmt: skip
        names = [cuts[i].name for i in dict.fromkeys(places)]
        with self.clock.timing("calibration"):
            card, path = self.bench.undefended(names, self.bench.asked.suite)
        self.floors = {
            name: max(((r.attack, r.scores[name].mean) for r in card.rows if r.role is Role.FLOOR),
                      key=lambda pair: pair[1])
            for name in reversed(CHOSEN_BY)
        }  # fmt: skip
        self.clock.note("audit", self.clock.expected("calibration") / len(names))
        if not self.bench.sending.workers.inline:
            self.bench.prepare([self.space.plain(name) for name in names], lambda o: [o.codec])
        for name in names:
            option = self.space.plain(name)
            k = Known(option, self.bench.costs(option, option.codec), offered=False)
            k.proxy = self.bench.proxies(option, [option.codec])[option.codec]
            k.found = figures(card, option.place, self._held, self._source(card), intervals=False)
            k.card = path.relative_to(self.bench.out).as_posix()
            self._known[option] = k

    def _source(self, card: Card) -> str:
        return f"{card.suite}, {card.private_n} private images, seed {card.seed}, {card.hardware}"


def leak_of(leakage: Sequence[str]) -> str:
    """The number that stands for leakage in the front: the first that is limited, else the mean SSIM."""
    return next((name for name in LEAKAGE if name in leakage), LEAKAGE[0])
