"""Self-checks: reasons why a number cannot be trusted. Each says when it is raised and what it means.

They read rows only. What an attack tells of itself stands in `Row.evidence`: ``draws`` of the defence averaged a step
(or how often an attack without the edge's weights read each image that it used), ``gradient`` the share of images whose
first gradient is zero or not finite, ``slope`` how far its gradients are what steps do (1 wholly, 0 not at all),
``stuck`` the share of images whose features it brought no nearer to those sent, ``gain`` in dB over the last tenth of
the training, ``gap`` in dB between its training and its held-out images, ``crossings`` where it reads each private
input more than once. The audit adds ``reads``, how often it read the features of each of its own images where that is
less than twice, ``finite``, 0 where something was not, and ``scale``, by how many dB the score moved when all features
were multiplied by 10.
"""

import math
from collections.abc import Mapping, Sequence

from splitveil.core.records import FREE, STANDING, Accuracy, Doubt, LabelRow, Lost, Role, Row, Score
from splitveil.core.registry import Spec
from splitveil.lab.auditing.units import DRAWS, JUDGED_BY

FEW = 20
WIDE_DB = 3.0
BELOW_FLOOR_DB = 0.5
SAMPLED_DB = 3.5
"""More that a draw from all images that fit may lie below: twice the squared error is 3 dB."""
BLIND = 0.05
MISLED, STUCK = 0.5, 0.5
"""Agreement of gradients with steps, and share of images that a search does not help, at which it is doubted."""
BEHIND_DB = 0.5
STILL_GAINING_DB = 0.3
BY_HEART_DB = 3.0
NEAR_DUPLICATES = 0.01
SCALE_DB = 0.5
FEW_OWN = 200
"""Images of the adversary's own below which what it learns from them says little of one who has more."""
LEARNED = 0.2
"""Of the way from chance to no mistake, that a net has gone at least before anybody would run it."""
TAIL = {"psnr": 1.0, "ssim": 0.05}
"""More that the floors' worst 5 % are than the attacks', in the metric's unit, before they carry the tail."""
ATTACKS, FLOORS = "attacks", "floors"


def check_rows(
    rows: Sequence[Row],
    *,
    stochastic: bool,
    data: Sequence[str] = (),
    untrained: bool = False,
    net: Sequence[str] = (),
) -> list[list[str]]:
    """Reasons not to trust each of the rows of one configuration; empty where there are none.

    Args:
        rows: all attacks of one configuration, floors too.
        stochastic: whether its defence draws noise.
        data: reasons that hold for every attack which uses the adversary's images; see `check_data`.
        untrained: its defence works by training and had none.
        net: reasons that lie in the net; see `check_net`.
    """
    floor = next((_got(r) for r in rows if r.attack == FREE), None)
    found = [
        [
            *_of_itself(r),
            *(_against(r, floor) if floor is not None else ()),
            *_noise(r, stochastic),
            *_data(r, data),
            *_untrained(r, untrained),
            *(net if r.role is not Role.FLOOR else ()),
        ]
        for r in rows
    ]
    attacks = [k for k, r in enumerate(rows) if r.role is Role.ATTACK]
    white = max((k for k in attacks if "WEIGHTS" in rows[k].needs), key=lambda k: _got(rows[k]), default=None)
    if white is None:
        return found
    # Who reads an input sixteen times has more than the weights make up for: only what reads no more often is held up.
    fair = [k for k in attacks if "WEIGHTS" not in rows[k].needs and _crossings(rows[k]) <= _crossings(rows[white])]
    black = max(fair, key=lambda k: _got(rows[k]), default=None)
    if black is not None and _got(rows[black]) > _got(rows[white]) + BEHIND_DB:
        found[white].append(
            Doubt.of(
                "black box beats white box",
                f"{rows[black].attack} recovers {_got(rows[black]):.1f} dB without the edge's "
                f"weights, this {_got(rows[white]):.1f} dB with them",
            )
        )
    return found


def _got(row: Row) -> float:
    """Decibels."""
    return row.scores[JUDGED_BY].mean


def _crossings(row: Row) -> float:
    """How often it reads each private input."""
    return row.evidence.get("crossings", 1.0)


def check_labels(
    row: LabelRow,
    *,
    stochastic: bool,
    data: Sequence[str] = (),
    untrained: bool = False,
    net: Sequence[str] = (),
) -> list[str]:
    """Reasons not to trust a label row; empty where there are none. Arguments as for `check_rows`."""
    reasons: list[str] = []
    if row.evidence.get("finite") == 0:
        reasons.append(Doubt.of("not finite", "the attack returned NaN or infinite scores"))
    if row.n < FEW:
        reasons.append(Doubt.of("few images", f"{row.n} private images with a known label, expected at least {FEW}"))
    return [*reasons, *_noise(row, stochastic), *_data(row, data), *_untrained(row, untrained), *net]


def check_data(copies: int, near: int, n: int, held: int | None = None) -> list[str]:
    """Reasons that lie in the images.

    Args:
        copies: private images that the adversary holds.
        near: private images that closely resemble one that it holds, copies included.
        n: private images.
        held: images of the adversary's own; None where so many were asked for.
    """
    reasons: list[str] = []
    if held is not None and held < FEW_OWN:
        reasons.append(Doubt.of("few own images", f"the adversary holds {held}, expected at least {FEW_OWN}"))
    if copies:
        reasons.append(Doubt.of("overlap", f"{copies} of {n} private images are also the adversary's"))
    if near > NEAR_DUPLICATES * n:
        reasons.append(
            Doubt.of("near-duplicates", f"{near} of {n} private images closely resemble one of the adversary's")
        )
    return reasons


def check_net(accuracy: Accuracy, chance: float) -> list[str]:
    """Reasons that lie in the net: it knows hardly more than which class is the commonest.

    Args:
        accuracy: on test images of classes that it was trained for.
        chance: share of the commonest of them.
    """
    learned = (accuracy.interval[1] - chance) / max(1 - chance, 1e-12)
    if learned >= LEARNED:
        return []
    return [Doubt.of("barely trained", f"the net's task accuracy is {accuracy.share:.1%} where chance is {chance:.1%}")]


def check_tail(envelope: Mapping[str, Score], metric: str) -> list[str]:
    """Reasons not to take a worst case's tail for what attacks recover. envelope: by `ATTACKS` and `FLOORS`."""
    if ATTACKS not in envelope or FLOORS not in envelope:
        return []
    attacks, floors = (envelope[what].number(tail=True) for what in (ATTACKS, FLOORS))
    ahead = floors - attacks if envelope[ATTACKS].higher_leaks else attacks - floors
    if not ahead > TAIL.get(metric, math.inf):
        return []
    unit = f" {envelope[ATTACKS].unit}" if envelope[ATTACKS].unit != "1" else ""
    return [
        Doubt.of(
            "floor in the tail",
            f"the worst 5 % are {floors:.3g}{unit} by the floors and {attacks:.3g}{unit} by the attacks",
        )
    ]


def check_lost(found: Lost, points: float) -> list[str]:
    """Reasons not to believe that a loss of accuracy is within a budget of `points`; empty where there are none."""
    (low, high), n = found.interval, found.n
    half = (high - low) / 2
    if half <= points:
        return []
    return [
        Doubt.of(
            "few test images",
            f"{n:,} leave the points lost between {low:.1f} and {high:.1f}, which does not tell "
            f"{points:g} from none; some {_needed(n, half, points):,} would",
        )
    ]


def check_budget_told(found: Accuracy, points: float, what: str = "test images") -> list[str]:
    """As `check_lost`, of an accuracy that nothing is held against yet. what: the images, in words."""
    half = 50 * (found.interval[1] - found.interval[0])
    if half <= points:
        return []
    return [
        Doubt.of(
            "few test images",
            f"{found.n:,} {what} tell an accuracy to {half:.1f} points only, too few for a budget of "
            f"{points:g}; some {_needed(found.n, half, points):,} would do",
        )
    ]


def inherited(rows: Sequence[Row]) -> list[str]:
    """Reasons that a worst case over `rows` takes over from them."""
    return sorted({why for r in rows for why in r.unreliable if Doubt(why).passes_on})


def _needed(n: int, half: float, points: float) -> int:
    """Images whose interval is narrow enough, rounded up to two digits: its width falls with their square root."""
    count = math.ceil(n * (half / points) ** 2)
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / unit) * unit


def _of_itself(row: Row) -> list[str]:
    reasons, told = list[str](), row.evidence
    if told.get("finite") == 0 or not all(math.isfinite(row.scores[metric].mean) for metric in STANDING):
        reasons.append(Doubt.of("not finite", "the attack returned NaN or infinite pixels, or evidence of that kind"))
    if row.n < FEW:
        reasons.append(Doubt.of("few images", f"{row.n} private images, expected at least {FEW}"))
    elif (interval := row.scores[JUDGED_BY].interval) and interval[1] - interval[0] > WIDE_DB:
        low, high = interval
        reasons.append(
            Doubt.of("few images", f"{row.n} private images leave the mean PSNR between {low:.1f} and {high:.1f} dB")
        )
    if told.get("gradient", 0) > BLIND:
        reasons.append(
            Doubt.of(
                "zero gradients", f"the search began without a usable gradient for {told['gradient']:.0%} of images"
            )
        )
    if told.get("slope", 1) < MISLED:
        reasons.append(
            Doubt.of(
                "misleading gradients",
                f"the search's gradients agree with what steps do by {told['slope']:.2f}, of at most 1, "
                f"{told.get('mended', 0):g} functions mended",
            )
        )
    if told.get("stuck", 0) > STUCK:
        reasons.append(
            Doubt.of(
                "search without gain", f"the search brought {told['stuck']:.0%} of images no nearer to their features"
            )
        )
    if told.get("gain", 0) > STILL_GAINING_DB:
        reasons.append(Doubt.of("under-trained", f"{told['gain']:.2f} dB gained over the last tenth of the training"))
    if abs(told.get("scale", 0)) > SCALE_DB:
        reasons.append(Doubt.of("scale dependent", f"{told['scale']:+.1f} dB when all features are multiplied by 10"))
    return reasons


def _against(row: Row, floor: float) -> list[str]:
    reasons: list[str] = []
    allowed = BELOW_FLOOR_DB + (SAMPLED_DB if row.evidence.get("sampled") else 0)
    if row.role is Role.ATTACK and _got(row) < floor - allowed:
        reasons.append(Doubt.of("below the floor", f"{_got(row):.1f} dB where the mean image has {floor:.1f} dB"))
    gap = row.evidence.get("gap", 0)
    if gap > BY_HEART_DB and _got(row) < floor + BELOW_FLOOR_DB:
        reasons.append(
            Doubt.of(
                "over-fitted",
                f"{gap:.1f} dB better on its training images, {_got(row):.1f} dB on private ones where the "
                f"mean image has {floor:.1f} dB",
            )
        )
    return reasons


def _noise(row: Row | LabelRow, stochastic: bool) -> list[str]:
    if not stochastic or Role.of(row.attack) is Role.FLOOR:
        return []
    if "WEIGHTS" in row.needs:
        draws = row.evidence.get("draws")
        said = "does not say how many draws it averages" if draws is None else f"averages {draws:g} draw a step"
        return [Doubt.of("unaveraged noise", f"the attack {said}")] if draws is None or draws < DRAWS else []
    reads = row.evidence.get("reads")
    if reads is not None and max(reads, row.evidence.get("draws", 0.0)) < DRAWS:
        return [Doubt.of("unaveraged noise", f"the attack read the features of its own images {reads:.1f} times each")]
    return []


def _data(row: Row | LabelRow, data: Sequence[str]) -> list[str]:
    return list(data) if "AUX" in row.needs else []


def _untrained(row: Row | LabelRow, untrained: bool) -> list[str]:
    if not untrained or Role.of(row.attack) is Role.FLOOR:
        return []
    return [Doubt.of("untrained defence", f"{Spec.parse(row.defense).name} works by training and got none")]
