"""Names, numbers and definitions in plain English."""

from collections.abc import Sequence

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"

LABELS = {
    "mean": "mean image",
    "class_mean": "class mean",
    "nearest": "nearest image",
    "worst_case:psnr": "worst case by PSNR",
    "worst_case:ssim": "worst case by SSIM",
}

ATTACKS = {
    "mean": "Floor. The average of the adversary's own images, whatever was sent.",
    "class_mean": "Floor. The average of the adversary's own images of the class that the model answers.",
    "nearest": "Floor. That one of the adversary's own images whose features are most like those sent.",
    "decoder": "A network, trained on the adversary's own images and their features, that turns features into images.",
    "mle": "A search, through the known edge half, for the image whose features are most like those sent.",
    "shadow": "A stand-in for the unknown edge half, built from the cloud half and own images, then inverted.",
    "deep_prior": "A search for the image among those that an untrained image network draws.",
    "generative": "A search for the image among those that a generator trained on the adversary's images draws.",
    "worst_case": "No attack of its own: for each image the best of all rows above, chosen knowing the truth.",
}

DEFINITIONS = {
    "PSNR": "Peak signal-to-noise ratio of each image in decibels, pixels in [0, 1], capped at 100 dB, then averaged. "
    "More decibels mean that more leaked: 10 dB more is a tenth of the squared error.",
    "SSIM": "Structural similarity (Wang et al. 2004) of each image, then averaged. 1 means equal, near 0 unrelated.",
    "MSE": "Mean squared error for each pixel and channel, pixels in [0, 1]. Less means that more leaked.",
    "Worst 5 %": "The average over the 5 % of the images that leak most by that metric, at least one image. "
    "A mean can look safe while these are not.",
    "Worst case per image": "For each image the best attack by that metric, chosen with knowledge of the truth: "
    "an upper envelope over the attacks, not one adversary. Stronger attacks than those run here may exist.",
    "Floors": "What an adversary guesses without inverting the features: the mean image, the class mean, the nearest "
    "image of its own. Leakage is what lies above them.",
    "Edge share": "The part of all multiply-accumulates (MACs) that the device computes.",
}

GRANTS = {
    "AUX": "holds images of its own, with labels",
    "QUERIES": "can send images of its own through the protected edge half and read the features",
    "WEIGHTS": "has the edge half: its architecture and weights",
    "DEFENSE": "knows the defence and its parameters, not its random draws",
    "CLOUD": "runs the cloud half",
}

DOUBTS = {
    "not finite": "the attack diverged, and its numbers mean nothing",
    "few images": "the worst 5 % rest on one image or two",
    "below the floor": "the attack failed here, and its low numbers are no evidence of privacy",
}


def attack_label(attack: str) -> str:
    """``mean`` -> ``mean image``; names without a label stay."""
    return LABELS.get(attack, attack)


def attack_line(attack: str) -> str:
    """What the attack does, in one line."""
    return ATTACKS.get(attack.partition(":")[0], "An attack that this report has no description of.")


def grants(knows: Sequence[str]) -> list[str]:
    """What the adversary has, in words; grants without words stay."""
    return [GRANTS.get(grant, grant) for grant in knows]


def decibels(value: float) -> str:
    """``32.1``."""
    return f"{value:.1f}"


def similarity(value: float) -> str:
    """``0.98``; a typographic minus where below zero."""
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", MINUS)


def percent(share: float | None) -> str:
    """0.921 -> ``92.1 %``; an en dash for None."""
    return NONE if share is None else f"{100 * share:.1f} %"


def size(count: int) -> str:
    """Bytes: ``512 B``, ``16.0 KiB``, ``1.5 MiB``."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def quantity(count: int) -> str:
    """``950``, ``12.4 k``, ``3.1 M``, ``2.0 G``."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return str(count)


def duration(seconds: float) -> str:
    """``0.4 s``, ``95 s``, ``12 min``, ``3.2 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
