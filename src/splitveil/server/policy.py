"""`PrivacyPolicy`: limits that a bundle's leakage card must keep before the bundle is served."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from splitveil.core.errors import BundleError, InputError
from splitveil.core.printing import listed, phrase
from splitveil.core.records.base import Record
from splitveil.core.records.card import Card, LabelRow, Row
from splitveil.core.records.place import Place
from splitveil.wire.bundle import Bundle

READ = ("accuracy",)
"""Of what a label attack read."""
MOST_BYTES = 1 << 20
"""Of a policy's file."""
VERSIONED = re.compile(r"(?P<name>.+)-(?P<version>[0-9]{1,9})")
"""A suite as cards name it: ``smoke-1``."""


class PrivacyPolicyError(BundleError):
    """A leakage card that does not keep the policy; the exit code of an audit that is not to be trusted."""

    exit_code = 3


class Verdict(NamedTuple):
    """One limit of a policy, and whether a card keeps it; `why` is a sentence where it does not.

    Attributes:
        limit: what is asked for: ``ssim at most 0.3``.
        kept: whether it is.
        found: what the card says, with the row that leaks most.
        why: what to do about it.
    """

    limit: str
    kept: bool
    found: str
    why: str = ""


class PrivacyPolicy(Record):
    """Limits on the rows of the card that tell of the bundle's own cut, defence and codec.

    Floors count too: what an adversary gets without inverting the features, it gets all the same.

    A score is one of mse, psnr, ssim, psnr_worst5, ssim_worst5, a further metric of the card by its name (its mean), or
    accuracy, of label attacks. ``max`` is for scores that leak more when they are higher, ``min`` for the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max: dict[str, float] = Field(default={}, description="score -> largest value in any row")
    min: dict[str, float] = Field(default={}, description="score -> smallest value in any row")
    suite: list[str] | str = Field(
        default=[], description="suites that count, of exactly these versions; or one, of this version or a later one"
    )
    allow_unreliable: bool = False

    @field_validator("suite")
    @classmethod
    def _least(cls, suite: list[str] | str) -> list[str] | str:
        if isinstance(suite, str) and not VERSIONED.fullmatch(suite):
            raise ValueError("a least version is written as NAME-NUMBER, such as standard-1")
        return suite

    @classmethod
    def read(cls, path: Path) -> "PrivacyPolicy":
        """Read a policy, TOML by its suffix or else JSON.

        Raises:
            InputError: missing, unreadable, or not a policy; all fields that are wrong.
        """
        try:
            with path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise InputError(f"{path} is larger than {MOST_BYTES:,} bytes, which no policy is; give another file.")
            text = content.decode("utf-8")
            found: Any = tomllib.loads(text) if path.suffix.lower() == ".toml" else from_json(text)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; check the path.") from None
        except (ValueError, RecursionError) as error:
            why = phrase(str(error).partition("\n")[0])
            raise InputError(f"{path} is neither TOML nor JSON ({why}); correct it.") from None
        try:
            policy = cls.model_validate(found)
        except ValidationError as error:
            wrong = listed([f"{'.'.join(map(str, e['loc'])) or 'text'}: {phrase(e['msg'])}" for e in error.errors()])
            raise InputError(
                f"{path} is no privacy policy ({wrong}); use {', '.join(cls.model_fields)} only."
            ) from None
        if not policy.max and not policy.min:
            raise InputError(f'{path} limits nothing; give at least one limit, such as {{"max": {{"ssim": 0.3}}}}.')
        return policy

    def enforce(self, bundle: Bundle) -> None:
        """Make sure that this bundle may be served.

        Raises:
            PrivacyPolicyError: no card, a card of another bundle or of other suites, an unreliable one, or the first
                row beyond a limit.
        """
        for verdict in self.judge_bundle(bundle):
            if not verdict.kept:
                raise PrivacyPolicyError(verdict.why)

    def judge_bundle(self, bundle: Bundle) -> Iterator[Verdict]:
        """Each limit for what a bundle serves, in order; nothing follows where there is no card to ask."""
        card, m, name = bundle.card, bundle.manifest, f"{bundle.folder}"
        if card is None:
            why = f"{name} has no leakage card, which the privacy policy asks for; audit it."
            yield Verdict("a leakage card", False, "none", why)
            return
        yield Verdict("a leakage card", True, f"of {len(card.rows)} rows")
        if bundle.own_card is None:
            why = f"the leakage card in {name} was not made of this bundle, so it does not count; audit this one."
            yield Verdict("made of this bundle", False, "made of another", why)
            return
        yield Verdict("made of this bundle", True, f"contract {m.contract[:12]}")
        yield from self.judge_card(card, [Place(m.cut.name, m.defense, m.codec)], name)

    def judge_card(self, card: Card, places: list[Place], name: str) -> Iterator[Verdict]:
        """Each limit for these places of a card. name: of what it lies in, for sentences."""
        if self.suite:
            asked = f"{self.suite} or later" if isinstance(self.suite, str) else " or ".join(self.suite)
            held = phrase(card.suite, 80) or "no suite"
            why = f"{name} was audited with {held}, expected {asked}; audit it with that one."
            yield Verdict(f"suite {asked}", self._counts(card.suite), held, why)
        if not self.allow_unreliable:
            doubts = card.unreliable
            first = phrase(doubts[0]) if doubts else ""
            why = f"the leakage card of {name} is unreliable ({first}); audit it with more effort."
            yield Verdict("reliable", not doubts, first or "no doubt", why)
        for place in places:
            rows, labels = card.at(place), card.labels_at(place)
            if not rows:
                label = phrase(place.label)
                why = f"the leakage card of {name} has no row for {label}, which it serves; audit this bundle."
                yield Verdict(f"rows for {label}", False, "none", why)
                continue
            for score, limit in self.max.items():
                yield _limited(card, score, limit, rows, labels, name, most=True)
            for score, limit in self.min.items():
                yield _limited(card, score, limit, rows, labels, name, most=False)

    def _counts(self, suite: str) -> bool:
        if isinstance(self.suite, list):
            return suite in self.suite
        least, found = VERSIONED.fullmatch(self.suite), VERSIONED.fullmatch(suite)
        if least is None or found is None:
            return False
        return found["name"] == least["name"] and int(found["version"]) >= int(least["version"])


def _limited(
    card: Card, score: str, limit: float, rows: list[Row], labels: list[LabelRow], name: str, *, most: bool
) -> Verdict:
    """Whether every row keeps one limit; the row that is worst, or not a number, is told."""
    asked = f"{score} at {'most' if most else 'least'} {limit:g}"
    values = _values(card, score, rows, labels)
    if not values:
        model = phrase(card.model)
        why = f"the leakage card of {model} does not tell {score}, which the privacy policy limits; audit with it."
        return Verdict(asked, False, "not told", why)
    beyond = [(row, value) for row, value in values if not (value <= limit if most else value >= limit)]
    row, value = beyond[0] if beyond else (max if most else min)(values, key=lambda pair: pair[1])
    found = f"{value:.4g} ({phrase(row)})"
    if not beyond:
        return Verdict(asked, True, found)
    what = f"{score} = {value:.4g}, {'more' if most else 'less'} than the {limit:g}"
    why = (
        f"{name} may not be served: its row {phrase(row)!r} has {what} that the privacy policy allows; defend it more."
    )
    return Verdict(asked, False, found, why)


def _values(card: Card, score: str, rows: list[Row], labels: list[LabelRow]) -> list[tuple[str, float]]:
    """Each row's words and value of one score; empty where no row has it."""
    if rows and score in rows[0].numbers:
        return [(f"{r.cut} {r.attack}", r.numbers[score]) for r in rows]
    if score in READ:
        return [(f"{r.cut} {r.attack} of {r.attribute}", float(getattr(r, score))) for r in labels]
    return [(f"{r.cut} {r.attack}", r.extra[score].mean) for r in rows if score in r.extra]
