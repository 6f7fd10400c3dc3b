"""Places on the gauge."""

from splitveil.core.records import Card
from splitveil.report.configuration import configurations
from splitveil.report.labels import EDGE, WIDTH, readings

from .conftest import MakeAudit, label_row


def test_readings_follow_the_cuts_and_lie_on_the_gauge(make_audit: MakeAudit) -> None:
    rows = [label_row("shot", cut="layer2", accuracy=1.0, accuracy_interval=None, chance=0.0), label_row()]
    card = Card.load(make_audit(samples=0, card={"inferences": rows}) / "card.json")
    body, shot = readings(configurations(card))
    assert (body.row.attribute, shot.row.attribute) == ("body", "shot")
    assert (shot.chance, shot.accuracy, shot.span) == (EDGE, WIDTH - EDGE, None)
    assert body.span
    assert body.chance < body.span[0] < body.accuracy < body.span[1]


def test_labels_of_a_configuration_without_image_rows_are_kept(make_audit: MakeAudit) -> None:
    card = Card.load(make_audit(samples=0, card={"inferences": [label_row(codec="uniform:bits=4")]}) / "card.json")
    assert [r.config for r in readings(configurations(card))] == ["undefended · uniform:bits=4"]
