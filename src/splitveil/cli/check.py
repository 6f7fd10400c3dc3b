"""``splitveil check``: a leakage card against a privacy policy, for pipelines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from splitveil.server.policy import PrivacyPolicy, Verdict

BROKEN = 3
"""Exit code where a limit is not kept; the same as of `serve` and of an audit that is not to be trusted."""


def run(
    target: Annotated[Path, typer.Argument(metavar="CARD|BUNDLE", help="a card.json, an audit's folder or a bundle")],
    policy: Annotated[Path, typer.Option(help="TOML or JSON, as for serve --privacy-policy")],
    signed_by: Annotated[Path | None, typer.Option(help="public key whose owner must have signed the bundle")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Hold a card against a policy, one line a limit; exit code 3 if one is not kept, and the rules are serve's own.

    Of a bundle, or of a card that was made of one, what it serves counts; of any other card every cut, defence and
    codec in it.
    """
    from splitveil.cli.console import print_json
    from splitveil.core.records import dumps
    from splitveil.server.policy import PrivacyPolicy

    verdicts = list(_verdicts(target, PrivacyPolicy.read(policy), signed_by))
    kept = all(v.kept for v in verdicts)
    if as_json:
        print_json(dumps({"target": str(target), "policy": str(policy), "kept": kept, "limits": _told(verdicts)}))
    else:
        for v in verdicts:
            print(f"{'kept  ' if v.kept else 'BROKEN'}  {v.limit}: {v.found}{'' if v.kept else f'. {v.why}'}")
        print("the policy is kept" if kept else "the policy is not kept")
    if not kept:
        raise typer.Exit(BROKEN)


def _verdicts(target: Path, policy: "PrivacyPolicy", signed_by: Path | None) -> "Iterator[Verdict]":
    from splitveil.core.errors import InputError
    from splitveil.core.records import Card
    from splitveil.wire.bundle import AUDITED, CARD, MANIFEST, Bundle, load_signed

    if target.is_dir() and (target / MANIFEST).exists():
        yield from policy.judge_bundle(load_signed(target, signed_by) if signed_by else Bundle.load(target))
        return
    if signed_by is not None:
        raise InputError(f"expected a signed bundle beside --signed-by, got the card {target}; give the bundle.")
    card = Card.load(target / CARD if target.is_dir() else target)
    # The last one is the bundle's own: before it stand its halves with nothing between them.
    places = card.places[-1:] if card.contract or card.weights.startswith(AUDITED) else card.places
    if not places:
        raise InputError(f"{target} is a card without rows; audit anew.")
    yield from policy.judge_card(card, places, str(target))


def _told(verdicts: "list[Verdict]") -> list[dict[str, object]]:
    return [v._asdict() for v in verdicts]
