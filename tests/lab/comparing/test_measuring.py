from pathlib import Path

from splitveil.core.records import Card, Comparison
from splitveil.lab.comparing.measuring import strongest_over


def test_the_strongest_attack_is_that_of_the_mean_over_seeds(compared: tuple[Comparison, Path]) -> None:
    found, out = compared
    assert found.undefended.measured
    card = Card.load(out / found.undefended.measured.cards[0])
    assert strongest_over([card]) == next(iter(card.strongest.values()))

    def seed(**psnr: float) -> Card:
        """The card with other numbers; a worst case is no attack."""
        rows = [r.model_copy(update={"psnr": psnr.get(r.attack, 99.0 if ":" in r.attack else 1.0)}) for r in card.rows]
        return card.model_copy(update={"rows": rows})

    cards = [seed(class_mean=20.0, decoder=19.0), seed(class_mean=10.0, decoder=19.0)]
    assert [strongest_over([c])["psnr"] for c in cards] == ["class_mean", "decoder"]
    assert strongest_over(cards)["psnr"] == "decoder"
