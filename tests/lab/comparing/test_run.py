import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from splitveil.core.errors import AnswerError, InputError, SplitVeilError
from splitveil.core.records import Comparison, Estimate, Lost, Measured, Trial
from splitveil.lab.attacks.view import PRESETS
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.auditing.summary import estimate
from splitveil.lab.comparing import compare, epochs_for
from splitveil.lab.comparing.run import _too_few
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.trials import Trials
from splitveil.lab.comparing.verdict import findings, overlap
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset
from splitveil.lab.protection import protect, validation_accuracy
from splitveil.lab.recipe import Recipe
from splitveil.lab.seeds import derive

from .conftest import ASKED, Compare


def test_a_comparison_holds_floors_reference_and_every_budget(compared: tuple[Comparison, Path]) -> None:
    found, out = compared
    assert Comparison.load(out / "comparison.json") == found
    assert [f.attack for f in found.floors] == ["mean", "class_mean", "nearest"]
    assert found.contenders[0] is found.undefended
    assert [c.label for c in found.contenders] == ["none", *ASKED]
    for c in found.contenders:
        assert c.reached == (c.measured is not None)
        assert c.reached == (c.validation >= found.undefended.validation - 0.15 - 1e-9)
        assert all((out / card).exists() for card in (c.measured.cards if c.measured else ()))
    noise, _, quantised = found.contenders[1:]
    assert noise.defense == f"noise:sigma={noise.value},clip=1.0"
    assert [t.strength for t in noise.tried] == sorted(t.strength or 0.0 for t in noise.tried)
    passed = [t.defense for t in noise.tried if t.validation >= found.undefended.validation - 0.15]
    assert noise.defense == passed[-1], "the strongest that passes"
    assert (quantised.defense, quantised.knob, len(quantised.tried)) == ("none", "", 1)
    assert quantised.measured
    assert found.undefended.measured
    assert quantised.measured.payload_bytes == -(-found.undefended.measured.payload_bytes * 3 // 32)
    assert "noise leaks least" in found.findings[0], "quantisation is no defence"


def test_who_misses_the_budget_is_reported_with_how_close_it_came(compared: tuple[Comparison, Path]) -> None:
    found, _ = compared
    missed = found.ranked(15.0)[-1]
    assert missed.label == "noise:sigma=200.0"
    assert missed.missing == pytest.approx(100 * (found.undefended.validation - missed.validation) - 15, abs=1e-5)
    assert f"noise:sigma=200.0 by {missed.missing:.2f}" in found.findings[0]


def test_resuming_trains_nothing_again_and_a_longer_one_only_what_is_new(
    quick: Compare, compared: tuple[Comparison, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, made = compared
    out, trained = tmp_path / "c", list[str]()
    shutil.copytree(made, out)

    def counted(split: Split, defense: str, codec: str, *rest: object, **more: object) -> object:
        trained.append(defense)
        return protect(split, defense, codec, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("splitveil.lab.comparing.training.protect", counted)
    again = quick(out, *ASKED, "top_k:keep=0.9", resume=True)
    assert trained == ["top_k:keep=0.9"]
    assert again.contenders[:-1] == first.contenders
    with pytest.raises(InputError, match="--resume"):
        quick(out, *ASKED)


def test_a_setting_that_answers_nan_has_missed_and_the_others_go_on(
    quick: Compare, compared: tuple[Comparison, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, made = compared
    out = tmp_path / "c"
    shutil.copytree(made, out)

    def broken(*_: object, **__: object) -> object:
        raise AnswerError("expected finite logits from the net, got NaN")

    with monkeypatch.context() as patched:
        patched.setattr("splitveil.lab.comparing.training.protect", broken)
        again = quick(out, *ASKED, "vib", resume=True)
    assert again.contenders[:-1] == first.contenders
    vib = again.contenders[-1]
    assert (vib.reached, vib.validation, vib.measured) == (False, 0.0, None)
    assert "vib by" in again.findings[0]
    assert quick(out, *ASKED, "vib", resume=True).contenders == again.contenders, "it is not trained again"


@pytest.mark.parametrize("codec", ["raw", "uniform:bits=2", "uniform:bits=4"])
def test_what_was_kept_answers_as_what_was_trained(
    codec: str, data: Dataset, fresh: Callable[[int], Split], tmp_path: Path
) -> None:
    shop = Trials(tmp_path, fresh, data, Recipe(epochs=1, lr=1e-3))
    setting = Setting("siftfunnel:channels=3", codec)
    trial = shop.trial(setting, 0)
    torch.manual_seed(derive(0, "training"))
    protected = protect(fresh(0), setting.defense, codec, data, epochs=1, lr=1e-3)[0]
    kept = shop.protected(setting, 0)
    x = torch.from_numpy(data.test.x[:8]).float() / 255
    with torch.no_grad():
        assert torch.equal(kept(x), protected(x))
    assert trial.validation == validation_accuracy(protected, data)
    if codec != "raw":
        sent = kept.codec.encode(kept.split.edge(x))
        assert len(sent.unique()) <= 2 ** int(codec[-1])
    shop.drop(setting, 0)
    assert shop.trial(setting, 0) == trial


def test_tuning_sees_the_images_that_training_set_aside(data: Dataset, fresh: Callable[[int], Split]) -> None:
    protected, history = protect(fresh(0), "none", "raw", data, epochs=2, lr=4e-3, seed=3)
    assert validation_accuracy(protected, data, 3) == pytest.approx(max(history.scores), abs=0.04)


def test_intervals() -> None:
    one, two = (Estimate(mean=m, interval=(m - 1, m + 1), values=[m]) for m in (10.0, 11.5))
    far = Estimate(mean=20.0, interval=(19.0, 21.0), values=[20.0])
    alone = Estimate(mean=10.0, interval=None, values=[10.0])
    assert (overlap(one, two), overlap(one, far), overlap(one, alone)) == (True, False, None)


def test_findings_name_the_least_leakage_and_whether_it_is_sure(compared: tuple[Comparison, Path]) -> None:
    plain, noise, *_ = compared[0].contenders
    assert isinstance(noise.measured, Measured)
    changed = [plain]
    for label, mean, half in (("a", 10.0, 0.5), ("b", 12.0, 1.0)):
        estimate = Estimate(mean=mean, interval=(mean - half, mean + half), values=[mean])
        measured = noise.measured.model_copy(update={"psnr": estimate, "unreliable": []})
        changed.append(noise.model_copy(update={"label": label, "drop": 15.0, "measured": measured}))
    (text, *_) = findings(changed, [15.0])
    assert "a leaks least" in text
    assert "2.00 dB below b (intervals apart)" in text
    assert changed[1].measured
    floor = changed[1].measured.model_copy(update={"strongest": {"psnr": "class_mean"}})
    (text, *_) = findings([plain, changed[1].model_copy(update={"measured": floor})], [15.0])
    assert "No single attack on it gets more than the floor class_mean does." in text


@pytest.mark.long
def test_an_audit_is_found_again_only_for_the_same_question(
    data: Dataset, fresh: Callable[[int], Split], tmp_path: Path
) -> None:
    def asked(**more: Any) -> Comparison:
        settings: dict[str, Any] = {"n": 20, "suite": custom_suite(["linear"]), **more}
        return compare(
            fresh, data, model="small", weights="seed 0", defenses=["noise:sigma=1.0"], out=tmp_path / "c",
            drops=(90.0,), seeds=(0,), epochs=1, resume=True, **settings,
        )  # fmt: skip

    found = asked()
    cards = [card for c in found.contenders if c.measured for card in c.measured.cards]
    others: tuple[dict[str, Any], ...] = (
        {"n": 30},
        {"suite": custom_suite(["linear", "positions:size=small,epochs=1,steps=5"])},
        {"knows": PRESETS["black-box"]},
        {"metrics": ["registered_psnr"]},
        {"aux_n": 50},
    )
    for more in others:
        again = asked(**more)
        assert not set(cards) & {card for c in again.contenders if c.measured for card in c.measured.cards}, more
    assert [c.measured for c in asked().contenders] == [c.measured for c in found.contenders]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"n": 5000}, "private"),
        ({"metrics": ["nosuch"]}, "unknown metric"),
        ({"suite": custom_suite(["linearr"])}, "unknown attack"),
        ({"defenses": ["noise", "pripro:layers=9"]}, "expected 8 earlier places"),
        ({"defenses": ["noise", "shredder"]}, "at least 4 epochs"),
        ({"recipe": "usual:keep=last"}, "images to tune by"),
        ({"recipe": "usaul"}, "unknown recipe"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained_or_written(
    wrong: dict[str, Any], told: str, data: Dataset, fresh: Callable[[int], Split], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"n": 20, "suite": custom_suite(["linear"]), "defenses": ["noise"], **wrong}
    with pytest.raises(SplitVeilError, match=told):
        compare(
            fresh, data, model="small", weights="seed 0", out=tmp_path / "c", drops=(90.0,), seeds=(0,), epochs=1,
            **settings,
        )  # fmt: skip
    assert not (tmp_path / "c").exists()


def test_a_verdict_claims_no_points_that_the_test_images_do_not_bear_out(compared: tuple[Comparison, Path]) -> None:
    """33 test images: one more right is 3 points, so that nothing is lost or won for sure."""
    found, _ = compared
    measured = found.undefended.measured
    assert measured

    def verdict(both: int, first: int, second: int, neither: int) -> tuple[str, list[str]]:
        gap = Lost.of(both, first, second, neither)
        own = measured.model_copy(update={"paired": gap, "lost": estimate([gap.points])})
        veil = found.undefended.model_copy(
            update={"label": "veil", "drop": 3.0, "defends": True, "missing": 0.0, "measured": own}
        )
        reference = Trial(defense="none", codec="raw", seed=0, epochs=1, seconds=1, validation=0.9, validated_on=16)
        return " ".join(findings([found.undefended, veil], (3.0,))), _too_few(own, reference, 3.0)

    told, doubts = verdict(23, 2, 1, 7)
    assert "Lost on 33 test images, which do not tell whether it is within that: veil 3.03 points (" in told
    assert "Lost more than that" not in told
    assert [why.partition(":")[0] for why in doubts] == ["few test images"] * 2
    assert "16 images, of which one is 6.2 points" in doubts[1]
    told, doubts = verdict(4000, 500, 100, 400)
    assert "Lost more than that on test images, in points: veil 8.00 points (" in told
    assert len(doubts) == 1, "only what knobs are tuned by is too little"
    told, _ = verdict(4300, 150, 120, 430)
    assert "Lost" not in told


def test_a_comparison_says_on_how_many_images_and_how_sure(compared: tuple[Comparison, Path]) -> None:
    found, _ = compared
    for c in found.contenders:
        assert c.validated is not None
        if c.measured:
            assert c.measured.tested is not None
            assert c.measured.tested.share == pytest.approx(c.measured.accuracy.mean)
            assert (c.measured.paired is None) == (c.drop is None)
            if c.measured.paired and c.drop:
                assert c.measured.paired.points == pytest.approx(c.measured.lost.mean, abs=1e-4), "a float32 mean"
                assert c.measured.paired.n == c.measured.tested.n
                raised = any("few test images" in why for why in c.measured.unreliable)
                low, high = c.measured.paired.interval
                assert raised >= ((high - low) / 2 > c.drop)


def test_epochs_are_what_the_defences_need() -> None:
    assert epochs_for(["noise", "dropout"], "raw") == 4
    assert epochs_for(["noise", "shredder:collection=7"], "raw") == 7


def test_the_recipe_is_that_of_every_training_and_told(
    data: Dataset, fresh: Callable[[int], Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[Recipe]()

    def looked(*given: Any, recipe: Recipe, **more: Any) -> Any:
        seen.append(recipe)
        return protect(*given, recipe=recipe, **more)

    monkeypatch.setattr("splitveil.lab.comparing.training.protect", looked)
    found = compare(
        fresh, data, model="small", weights="seed 0", defenses=["uniform:bits=3"], out=tmp_path / "c", drops=(90.0,),
        suite=custom_suite(["linear"]), n=20, seeds=(0,), trials=1, epochs=1, recipe="usual:lr=0.02,average=0.9",
    )  # fmt: skip
    assert seen == [Recipe(epochs=1, lr=0.02, average=0.9)] * 2
    assert (found.epochs, found.lr, found.recipe) == (1, 0.02, "usual:lr=0.02,average=0.9")


def test_a_recipe_that_sets_no_images_aside_tunes_by_none_of_them(
    data: Dataset, fresh: Callable[[int], Split], tmp_path: Path
) -> None:
    recipe = Recipe(epochs=1, lr=1e-3, keep="last")
    with pytest.raises(InputError, match="trains on all of them"):
        Trials(tmp_path / "a", fresh, data, recipe).trial(Setting("none", "raw"), 0)
    assert Trials(tmp_path / "b", fresh, data, recipe, data.test).trial(Setting("none", "raw"), 0).validation >= 0
