"""`PrivacyPolicy`: limits that a bundle's leakage card must keep before the bundle is served."""

import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from splitveil.core.errors import BundleError, InputError
from splitveil.core.records.base import Record
from splitveil.core.records.card import Card, LabelRow, Row
from splitveil.core.records.place import Place
from splitveil.wire.bundle import Bundle

READ = ("accuracy",)
"""Of what a label attack read."""


class PrivacyPolicyError(BundleError):
    """A leakage card that does not keep the policy; the exit code of an audit that is not to be trusted."""

    exit_code = 3


class PrivacyPolicy(Record):
    """Limits on the rows of the card that tell of the bundle's own cut, defence and codec.

    Floors count too: what an adversary gets without inverting the features, it gets all the same.

    A score is one of mse, psnr, ssim, psnr_worst5, ssim_worst5, a further metric of the card by its name (its mean), or
    accuracy, of label attacks. ``max`` is for scores that leak more when they are higher, ``min`` for the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max: dict[str, float] = Field(default={}, description="score -> largest value in any row")
    min: dict[str, float] = Field(default={}, description="score -> smallest value in any row")
    suite: list[str] = Field(default=[], description="suites that count; none means any")
    allow_unreliable: bool = False

    @classmethod
    def read(cls, path: Path) -> "PrivacyPolicy":
        """Read a policy, TOML by its suffix or else JSON.

        Raises:
            InputError: missing, unreadable, or not a policy; all fields that are wrong.
        """
        try:
            text = path.read_text("utf-8")
            found: Any = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; check the path.") from None
        except ValueError as error:
            raise InputError(f"{path} is neither TOML nor JSON ({error}); correct it.") from None
        try:
            policy = cls.model_validate(found)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'text'}: {e['msg']}" for e in error.errors())
            raise InputError(
                f"{path} is no privacy policy ({wrong}); use {', '.join(cls.model_fields)} only."
            ) from None
        if not policy.max and not policy.min:
            raise InputError(f'{path} limits nothing; give at least one limit, such as {{"max": {{"ssim": 0.3}}}}.')
        return policy

    def enforce(self, bundle: Bundle) -> None:
        """Make sure that this bundle may be served.

        Raises:
            PrivacyPolicyError: no card, a card of other suites, an unreliable one, or the first row beyond a limit.
        """
        card, m = bundle.card, bundle.manifest
        if card is None:
            raise PrivacyPolicyError(
                f"{bundle.folder} has no leakage card, which the privacy policy asks for; audit it."
            )
        if self.suite and card.suite not in self.suite:
            raise PrivacyPolicyError(
                f"{bundle.folder} was audited with {card.suite or 'no suite'}, expected {' or '.join(self.suite)}; "
                "audit it with that one."
            )
        if card.unreliable and not self.allow_unreliable:
            raise PrivacyPolicyError(
                f"the leakage card of {bundle.folder} is unreliable ({card.unreliable[0]}); audit it with more effort."
            )
        place = Place(m.cut.name, m.defense, m.codec)
        rows, labels = card.at(place), card.labels_at(place)
        if not rows:
            raise PrivacyPolicyError(
                f"the leakage card of {bundle.folder} has no row for {place.label}, which it serves; audit this bundle."
            )
        for score, limit in self.max.items():
            for row, value in _values(card, score, rows, labels):
                if not value <= limit:
                    raise _beyond(bundle, row, f"{score} = {value:.4g}, more than the {limit:g}")
        for score, limit in self.min.items():
            for row, value in _values(card, score, rows, labels):
                if not value >= limit:
                    raise _beyond(bundle, row, f"{score} = {value:.4g}, less than the {limit:g}")


def _values(card: Card, score: str, rows: list[Row], labels: list[LabelRow]) -> list[tuple[str, float]]:
    """Each row's words and value of one score.

    Raises:
        PrivacyPolicyError: no row has it.
    """
    if rows and score in rows[0].numbers:
        return [(f"{r.cut} {r.attack}", r.numbers[score]) for r in rows]
    if score in READ:
        found = [(f"{r.cut} {r.attack} of {r.attribute}", float(getattr(r, score))) for r in labels]
    else:
        found = [(f"{r.cut} {r.attack}", r.extra[score].mean) for r in rows if score in r.extra]
    if not found:
        raise PrivacyPolicyError(
            f"the leakage card of {card.model} does not tell {score}, which the privacy policy limits; audit with it."
        )
    return found


def _beyond(bundle: Bundle, row: str, what: str) -> PrivacyPolicyError:
    return PrivacyPolicyError(
        f"{bundle.folder} may not be served: its row {row!r} has {what} that the privacy policy allows; defend it more."
    )
