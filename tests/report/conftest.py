"""Audit folders made up for the report: smooth images; attacks recover less at deeper and better defended cuts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from splitveil.core.records import Card, Cut, LabelRow, Row

BOTH = (("none", "raw"), ("noise:sigma=0.5", "uniform:bits=8"))
Images = NDArray[np.float64]
NEEDS = {"mean": ["AUX"], "class_mean": ["AUX", "CLOUD"], "nearest": ["AUX", "QUERIES"], "mle": ["WEIGHTS", "DEFENSE"]}
EVIDENCE = {"decoder": {"gain": 0.05, "gap": 0.6}, "mle": {"gradient": 0.0, "draws": 1.0}}


class MakeAudit(Protocol):
    """Writes an audit folder and gives its path; an `old` one has no intervals and no images that leak most."""

    def __call__(
        self,
        name: str = "audit",
        *,
        shape: tuple[int, int, int] = (3, 16, 16),
        cuts: Sequence[str] = ("layer1", "layer2"),
        configs: Sequence[tuple[str, str]] = (("none", "raw"),),
        attacks: Sequence[str] = ("decoder", "mle"),
        samples: int = 4,
        n: int = 40,
        card: dict[str, Any] | None = None,
        row: dict[str, Any] | None = None,
        images: Images | None = None,
        old: bool = False,
    ) -> Path: ...


def smooth(rng: np.random.Generator, count: int, shape: tuple[int, int, int], coarse: int = 4) -> Images:
    """(count, C, H, W) in [0, 1]: coarse noise, bilinearly enlarged."""
    c, h, w = shape
    small = rng.random((count, c, coarse, coarse))
    for axis, size in ((2, h), (3, w)):
        at = np.linspace(0, coarse - 1, size)
        low = np.minimum(at.astype(int), coarse - 2)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        small = np.asarray(np.take(small, low, axis) * (1 - share) + np.take(small, low + 1, axis) * share)
    return small


def scores(x: Images, guess: Images) -> dict[str, NDArray[np.float32]]:
    """Per image; SSIM over the whole image at once, near enough for a picture of the page."""
    axes = (1, 2, 3)
    mse = ((x - guess) ** 2).mean(axes)
    mx, mg = x.mean(axes), guess.mean(axes)
    cov = (x * guess).mean(axes) - mx * mg
    likeness = (2 * mx * mg + 1e-4) * (2 * cov + 9e-4)
    ssim = likeness / ((mx**2 + mg**2 + 1e-4) * (x.var(axes) + guess.var(axes) + 9e-4))
    found = {"mse": mse, "psnr": np.minimum(-10 * np.log10(np.maximum(mse, 1e-10)), 100), "ssim": ssim}
    return {name: values.astype(np.float32) for name, values in found.items()}


def recovered(rng: np.random.Generator, x: Images, attack: str, keep: float) -> Images:
    """What `attack` gets when a share `keep` of the input is left in the features."""
    mean = x.mean(0, keepdims=True)
    if attack == "mean":
        return np.repeat(mean, len(x), 0)
    if attack == "class_mean":
        return np.repeat(0.7 * mean + 0.3 * x[:1], len(x), 0)
    if attack == "nearest":
        return np.roll(x, 1, 0)
    noise = rng.normal(0, (0.03 if attack == "decoder" else 0.06) * (1.5 - keep), x.shape)
    share = keep * rng.uniform(0.75, 1, (len(x), 1, 1, 1))
    guess: Images = np.clip(share * x + (1 - share) * mean + noise, 0, 1)
    return guess


def cut_record(name: str, index: int, of: int) -> Cut:
    share = (index + 1) / (of + 1)
    side = 16 >> index
    size = 16 * side * side
    return Cut(
        name=name, index=index, shape=(16, side, side), bytes_fp32=4 * size, bytes_u8=size, edge_macs=int(4e7 * share),
        cloud_macs=int(4e7 * (1 - share)), edge_params=int(3e5 * share**2), cloud_params=int(3e5 * (1 - share**2)),
        edge_share=share, edge_peak_bytes=200_000,
    )  # fmt: skip


def label_row(attribute: str = "body", **more: Any) -> LabelRow:
    fields: dict[str, Any] = {
        "cut": "layer1", "defense": "none", "codec": "raw", "attack": "attribute", "needs": ["AUX", "QUERIES"],
        "attribute": attribute, "classes": 6, "n": 40, "accuracy": 0.712, "accuracy_interval": (0.63, 0.79),
        "chance": 0.225, "seconds": 3.0,
    }  # fmt: skip
    return LabelRow(**(fields | more))


def interval(values: NDArray[np.float32]) -> tuple[float, float]:
    """Near enough to a bootstrap of the mean."""
    half = 1.96 * float(values.std()) / len(values) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half


@pytest.fixture
def make_audit(tmp_path: Path) -> MakeAudit:
    def make(
        name: str = "audit",
        *,
        shape: tuple[int, int, int] = (3, 16, 16),
        cuts: Sequence[str] = ("layer1", "layer2"),
        configs: Sequence[tuple[str, str]] = (("none", "raw"),),
        attacks: Sequence[str] = ("decoder", "mle"),
        samples: int = 4,
        n: int = 40,
        card: dict[str, Any] | None = None,
        row: dict[str, Any] | None = None,
        images: Images | None = None,
        old: bool = False,
    ) -> Path:
        rng = np.random.default_rng(0)
        x = smooth(rng, n, shape) if images is None else images
        n = len(x)
        first = slice(0, samples)
        rows: list[Row] = []
        tensors: dict[str, NDArray[np.float32]] = {}
        kept: dict[str, NDArray[Any]] = {
            "input": _bytes(x[first]),
            "index": np.arange(samples, dtype=np.int64) * 7 + 1000,
        }

        def add(cut: str, config: tuple[str, str], attack: str, guess: Images) -> None:
            values, tail = scores(x, guess), max(1, round(0.05 * n))
            number = len(rows)
            tensors.update({f"row{number:03d}.{k}": v for k, v in values.items()})
            kept[f"row{number:03d}"] = _bytes(guess[first])
            top = np.argsort(-values["psnr"], kind="stable")[:5]
            worst = {"": _bytes(guess[top]), "_input": _bytes(x[top])}
            if not old:
                kept.update({f"row{number:03d}.worst{part}": v for part, v in worst.items()})
                kept[f"row{number:03d}.worst_index"] = top.astype(np.int64) * 7 + 1000
            fields: dict[str, Any] = {
                "cut": cut, "defense": config[0], "codec": config[1], "attack": attack, "n": n,
                "options": "steps=600" if attack in attacks else "",
                "needs": NEEDS.get(attack, ["AUX", "QUERIES"]), "seconds": 12.5 if attack in attacks else 0.2,
                "psnr_worst5": float(np.sort(values["psnr"])[-tail:].mean()),
                "ssim_worst5": float(np.sort(values["ssim"])[-tail:].mean()),
                **{k: float(v.mean()) for k, v in values.items()},
                **({} if old else {f"{k}_interval": interval(v) for k, v in values.items()}),
                "evidence": {} if old else EVIDENCE.get(attack, {}),
            }  # fmt: skip
            rows.append(Row(**(fields | (row or {}))))

        for depth, cut in enumerate(cuts):
            for config in configs:
                keep = 0.97 * 0.8**depth * (1.0 if config[0] == "none" else 0.35)
                guesses = {a: recovered(rng, x, a, keep) for a in ("mean", "class_mean", "nearest", *attacks)}
                for attack, guess in guesses.items():
                    add(cut, config, attack, guess)
                for metric in ("psnr", "ssim"):
                    best = np.stack([scores(x, g)[metric] for g in guesses.values()]).argmax(0)
                    envelope = np.stack(list(guesses.values()))[best, np.arange(n)]
                    add(cut, config, f"worst_case:{metric}", envelope)
        fields: dict[str, Any] = {
            "model": "resnet20", "weights": "trained here, seed 0", "data": "digits", "task_accuracy": 0.921, "seed": 0,
            "threat_model": "white-box adversary", "suite": "standard", "hardware": "two cores",
            "seconds": 312.0, "rows": rows,
            "aux": "same set, other images", "aux_n": 1000, "private_n": n, "versions": {"torch": "2.8.0"},
            "knows": ["AUX", "QUERIES", "WEIGHTS", "DEFENSE", "CLOUD"],
            "cuts": [cut_record(cut, i, len(cuts)) for i, cut in enumerate(cuts)],
            "accuracies": {f"{c} | {d} | {k}": 0.92 if d == "none" else 0.874 for c in cuts for d, k in configs},
        }  # fmt: skip
        folder = tmp_path / name
        Card(**(fields | (card or {}))).save(folder / "card.json")
        save_file(tensors, folder / "scores.safetensors")
        if samples:
            save_file(kept, folder / "samples.safetensors")
        return folder

    return make


def _bytes(images: Images) -> NDArray[np.uint8]:
    return np.ascontiguousarray((images * 255).round().astype(np.uint8))
