"""benchmarks/defenses.py: the directions that it reads from a record, and the cards that it keeps of one."""

from pathlib import Path

from benchmarks.archive import Archive
from benchmarks.defenses import NAME, _compared, cards_of, keep
from benchmarks.page import RESULTS, Page

from splitveil.core.records import Card, Comparison, Estimate

COMMITTED = Archive(Path(__file__).parents[1] / RESULTS / f"{NAME}.jsonl")


def around(mean: float) -> Estimate:
    return Estimate(mean=mean, interval=(mean - 1, mean + 1), values=[mean, mean])


def test_a_direction_holds_or_it_says_plainly_that_it_does_not() -> None:
    def said(mean: float, *others: float) -> str:
        return _compared("it", ("a", around(mean)), dict(zip("bcd", map(around, others), strict=False)), more=True)[2]

    assert said(10.0, 5.0, 2.0) == "holds (intervals apart)"
    assert said(10.0, 5.0, 9.5) == "holds (intervals overlap)"
    assert said(10.0, 5.0, 15.0) == "**does not hold** (intervals apart)"
    assert _compared("it", ("a", around(1.0)), {"b": None}, more=True)[2] == "not measured"
    assert _compared("it", ("a", None), {"b": around(1.0)}, more=True)[1] == "no number for a"


def test_a_part_made_again_takes_its_old_cards_with_it(tmp_path: Path) -> None:
    part, cards = COMMITTED.find(Comparison, "wide"), COMMITTED.all(Card)
    assert part is not None
    for name, path in cards_of(part).items():
        cards[name].save(tmp_path / "work" / path)
    page = Page(NAME, tmp_path)
    for name in ("wide", "other"):
        keep(name, part, page, tmp_path / "work")
    assert page.archive.all(Card) == {name: cards[name] for name in cards_of(part)}
    less = part.model_copy(update={"contenders": part.contenders[:-1]})
    assert set(cards_of(less)) < set(cards_of(part))
    keep("wide", less, page, tmp_path / "work")
    assert set(page.archive.all(Card)) == set(cards_of(part)), "the other part still names them"
    keep("other", less, page, tmp_path / "work")
    assert set(page.archive.all(Card)) == set(cards_of(less))
    assert list(page.archive.all(Comparison)) == ["wide", "other"]
