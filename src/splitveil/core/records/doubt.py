"""`Doubt`: a reason not to trust a row, its kind and details; `CHECKS`: every self-check with what it means."""

from collections.abc import Mapping
from dataclasses import dataclass


class Doubt(str):
    """``few images: 12 private images, expected at least 20``: as text, so that records keep plain strings."""

    __slots__ = ()

    @classmethod
    def of(cls, kind: str, detail: str) -> "Doubt":
        """A doubt of a kind that stands in `CHECKS`; plug-ins may have others."""
        return cls(f"{kind}: {detail}")

    @property
    def kind(self) -> str:
        """What stands before the colon."""
        return self.partition(":")[0].strip()

    @property
    def detail(self) -> str:
        """What stands after it."""
        return self.partition(":")[2].strip()

    @property
    def passes_on(self) -> bool:
        """Whether the worst case over a row takes the doubt over from it."""
        return self.kind not in CHECKS or CHECKS[self.kind].passes_on


@dataclass(frozen=True, slots=True)
class Check:
    """A self-check. Its thresholds stand in docs/audit-checks.md.

    Attributes:
        raised_if: when a row is doubted.
        meaning: what it then means.
        passes_on: False where the stronger row, which saves the worst case, is among those that this is made of.
    """

    raised_if: str
    meaning: str
    passes_on: bool = True


CHECKS: Mapping[str, Check] = {
    "not finite": Check(
        "an attack returns NaN or infinity",
        "the attack diverged, and its numbers mean nothing",
    ),
    "few images": Check(
        "few private images are attacked, or their scores differ so much that the mean is vague",
        "the means and the worst 5 % rest on too few images",
    ),
    "below the floor": Check(
        "an attack is clearly weaker than the mean image, which needs no features",
        "the attack failed here, and its low numbers are no evidence of privacy",
        passes_on=False,
    ),
    "unaveraged noise": Check(
        "the defence draws noise, and an attack rests on one draw of it",
        "an adversary who averages over draws of the noise gets more",
    ),
    "zero gradients": Check(
        "the first gradient of a search is zero or not finite for some images",
        "the search had nothing to follow, and its low numbers are no evidence of privacy",
    ),
    "misleading gradients": Check(
        "a search's gradients are not what a step does to the features, and no slopes were found that are",
        "the search was led astray, and its low numbers are no evidence of privacy",
    ),
    "search without gain": Check(
        "a search brings most images no nearer to their features than its start was",
        "what the attack tells is its start's, and a search that works could get more",
    ),
    "black box beats white box": Check(
        "an attack without the edge half is clearly ahead of all that have it",
        "the white-box attack is not at its best, and could get more",
        passes_on=False,
    ),
    "under-trained": Check(
        "a trained attack still improves when its training ends",
        "with longer training the attack would get more",
    ),
    "over-fitted": Check(
        "a trained attack does well on its own images and no better than the floor on others",
        "the attack learned its own images by heart, and with more of them would get more",
    ),
    "near-duplicates": Check(
        "many private images closely resemble one of the adversary's",
        "the adversary all but held some answers, and its numbers may be too high",
    ),
    "scale dependent": Check(
        "an attack scores otherwise when all features are multiplied by ten",
        "the number moves with the scale of the features, which hides nothing",
    ),
    "beaten from outside": Check(
        "an attack from outside is clearly ahead of the suite's",
        "the suite's attacks are too weak here, and its worst case is too low",
    ),
    "few test images": Check(
        "a comparison's loss of accuracy is vaguer than its budget",
        "so few images do not tell the accuracy that the defence may cost from none",
    ),
    "untrained defence": Check(
        "the defence works by training and was trained for no epoch",
        "the defence works by training and was never trained, so that the numbers are not those of it",
    ),
    "few own images": Check(
        "the adversary holds few images of its own, and nobody asked for so few",
        "an adversary who holds more learns more from them, and would get more",
    ),
    "barely trained": Check(
        "the net's task accuracy is hardly above chance",
        "nobody would run this net, and one that learned its task has other features",
    ),
    "floor in the tail": Check(
        "the worst 5 % of the images are told by a floor, clearly more than by any attack",
        "the tail is that of images which resemble the adversary's own, and hides what the attacks recover",
    ),
    "overlap": Check(
        "an image is both private and the adversary's",
        "the adversary held what it was to guess",
    ),
}
