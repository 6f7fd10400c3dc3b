import json
from pathlib import Path
from typing import Any

import pytest

from splitveil.core.errors import InputError
from splitveil.core.records.card import Card, LabelRow, Row
from splitveil.core.records.score import Score
from splitveil.server.policy import PrivacyPolicy, PrivacyPolicyError
from splitveil.server.server import Server
from splitveil.wire.bundle import Bundle

from .conftest import Made


def row(made: Made, attack: str = "decoder", **changes: Any) -> Row:
    m = made.bundle.manifest
    base = Row(
        cut=m.cut.name, defense=m.defense, codec=m.codec, attack=attack, needs=[], n=20, mse=0.05, psnr=13.0, ssim=0.2,
        psnr_worst5=16.0, ssim_worst5=0.35, seconds=1.0,
    )  # fmt: skip
    return base.model_copy(update=changes)


def carded(made: Made, *rows: Row, inferences: tuple[LabelRow, ...] = (), suite: str = "standard-1") -> Bundle:
    own = f"bundle {made.bundle.manifest.contract[:12]}"
    card = Card(
        model="tiny", weights=own, data="d", task_accuracy=0.9, threat_model="t", suite=suite, seed=0, hardware="h",
        seconds=1.0, rows=list(rows), inferences=list(inferences),
    )  # fmt: skip
    return Bundle(made.bundle.folder, made.bundle.manifest, card)


def policy(**fields: Any) -> PrivacyPolicy:
    return PrivacyPolicy.model_validate(fields)


def test_what_keeps_every_limit_is_served(noisy: Made) -> None:
    extra = {"lpips": Score(mean=0.6, unit="distance", higher_leaks=False, n=20)}
    label = LabelRow(
        cut="custom", defense=noisy.bundle.manifest.defense, codec=noisy.bundle.manifest.codec, attack="attribute",
        needs=[], attribute="task", classes=5, n=20, accuracy=0.3, chance=0.2, seconds=1.0,
    )  # fmt: skip
    bundle = carded(noisy, row(noisy, extra=extra), row(noisy, defense="none", ssim=0.99), inferences=(label,))
    kept = policy(
        max={"ssim": 0.2, "psnr_worst5": 16, "accuracy": 0.3}, min={"mse": 0.05, "lpips": 0.6}, suite=["standard-1"]
    )
    kept.enforce(bundle)
    Server(bundle, port=0, policy=kept).batcher.close()
    with pytest.raises(PrivacyPolicyError, match=r"'custom attribute of task' has accuracy = 0.3, more than the 0.29"):
        policy(max={"accuracy": 0.29}).enforce(bundle)
    with pytest.raises(PrivacyPolicyError, match=r"lpips = 0.6, less than the 0.61"):
        policy(min={"lpips": 0.61}).enforce(bundle)


def test_the_row_and_the_limit_are_named(noisy: Made) -> None:
    bundle = carded(noisy, row(noisy), row(noisy, "mle", ssim_worst5=0.5))
    with pytest.raises(PrivacyPolicyError, match=r"'custom mle' has ssim_worst5 = 0.5, more than the 0.4") as caught:
        Server(bundle, port=0, policy=policy(max={"ssim_worst5": 0.4}))
    assert caught.value.exit_code == 3
    with pytest.raises(PrivacyPolicyError, match="mse = nan"):
        policy(min={"mse": 0.01}).enforce(carded(noisy, row(noisy, mse=float("nan"))))


def test_cards_that_say_too_little_are_refused(noisy: Made) -> None:
    limits = {"max": {"ssim": 0.9}}
    for bundle, wanted, words in (
        (noisy.bundle, limits, "has no leakage card"),
        (carded(noisy, row(noisy)), {**limits, "suite": ["strong-1"]}, "audited with standard-1, expected strong-1"),
        (carded(noisy, row(noisy, unreliable=["too weak"])), limits, "unreliable .*decoder: too weak"),
        (carded(noisy, row(noisy, defense="none")), limits, "no row for custom | noise"),
        (carded(noisy, row(noisy)), {"max": {"plates": 0.0}}, "does not tell plates"),
    ):
        with pytest.raises(PrivacyPolicyError, match=words):
            policy(**wanted).enforce(bundle)
    policy(**limits, allow_unreliable=True).enforce(carded(noisy, row(noisy, unreliable=["too weak"])))


def test_files_are_read_and_typos_are_found(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('suite = ["standard-1"]\n[max]\nssim = 0.3\n')
    (tmp_path / "p.json").write_text(json.dumps({"max": {"ssim": 0.3}, "suite": ["standard-1"]}))
    assert PrivacyPolicy.read(tmp_path / "p.toml") == PrivacyPolicy.read(tmp_path / "p.json")
    for text, words in (
        ("{", "neither TOML nor JSON"),
        ("[]", "no privacy policy"),
        ('{"maximum": {"ssim": 0.3}}', "maximum.*use max, min, suite"),
        ('{"max": {"ssim": "low"}}', "max.ssim"),
        ('{"suite": ["standard-1"]}', "limits nothing"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=words):
            PrivacyPolicy.read(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot read"):
        PrivacyPolicy.read(tmp_path / "none.json")
