"""What came of each self-check."""

from pathlib import Path

import pytest

from splitveil.core.records import CHECKS, Accuracy, Card
from splitveil.report.headline import doubts
from splitveil.report.selfchecks import APART, SelfCheck, all_checks

from .conftest import MakeAudit


def results(path: Path) -> dict[str, SelfCheck]:
    card = Card.load(path / "card.json")
    return {c.kind: c for c in all_checks(card, doubts(card))}


def test_all_pass_where_nothing_was_raised(make_audit: MakeAudit) -> None:
    found = results(make_audit(samples=0))
    assert list(found) == list(CHECKS)
    later = {"untrained defence": "unknown", "few test images": "idle", "beaten from outside": "idle"}
    later |= dict.fromkeys(APART, "unknown")
    assert {k: c.state for k, c in found.items()} == {k: later.get(k, "passed") for k in found}
    told = {"attacks": {"mean": 20.0, "worst": 25.0, "unit": "dB", "higher_leaks": True, "n": 40}}
    again = results(make_audit("apart", samples=0, row={"envelope": told}))
    assert all(again[kind].state == "passed" for kind in APART)
    tested = {"layer1 | none | raw": Accuracy.of(9, 10)}
    for defense, state in (("none", "idle"), ("noise", "passed")):
        again = results(make_audit(defense, samples=0, configs=[(defense, "raw")], card={"tested": tested}))
        assert again["untrained defence"].state == state


def test_a_raised_check_names_its_rows(make_audit: MakeAudit) -> None:
    found = results(make_audit(samples=0, row={"unreliable": ["under-trained: gained 0.6 dB", "of a plug-in"]}))
    assert [k for k, c in found.items() if c.state == "raised"] == ["under-trained", "of a plug-in"]
    doubt = found["under-trained"].doubt
    assert doubt
    assert doubt.rows[0] == "layer1, undefended · raw: all rows (gained 0.6 dB)"
    assert found["of a plug-in"].raised_if == ""


@pytest.mark.parametrize(
    ("attacks", "idle"),
    [
        (("decoder",), {"zero gradients", "black box beats white box"}),
        (("mle",), {"under-trained", "over-fitted", "black box beats white box"}),
        ((), {"zero gradients", "under-trained", "over-fitted", "black box beats white box", "below the floor"}),
    ],
)
def test_without_the_attack_there_is_nothing_to_check(
    attacks: tuple[str, ...], idle: set[str], make_audit: MakeAudit
) -> None:
    found = results(make_audit(samples=0, attacks=attacks))
    assert {k for k, c in found.items() if c.state == "idle"} == {*idle, "few test images", "beaten from outside"}


def test_an_old_audit_never_claims_checks_that_it_did_not_run(make_audit: MakeAudit) -> None:
    found = results(make_audit(samples=0, old=True))
    assert {k for k, c in found.items() if c.state == "passed"} == {"not finite", "few images", "below the floor"}
    assert {c.state for c in found.values()} == {"passed", "unknown"}
