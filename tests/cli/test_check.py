"""``splitveil check`` as a pipeline runs it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from splitveil.cli import app
from splitveil.core.errors import BundleError, InputError
from splitveil.wire.bundle import MANIFEST, Bundle, make_keys, sign, with_card, write_bundle
from tests.serving.conftest import Made
from tests.serving.test_policy import row
from tests.wire.bundle.test_folder import AUDITED, FILES, MADE


@pytest.fixture
def audited(tmp_path: Path) -> Bundle:
    made = write_bundle(tmp_path / "made", MADE, FILES)
    rows = [row(Made(made, None), attack) for attack in ("mean image", "decoder")]  # type: ignore[arg-type]
    bare = row(Made(made, None), codec="raw", ssim=0.99)  # type: ignore[arg-type]
    return with_card(made, AUDITED.model_copy(update={"rows": [bare, *rows], "suite": "smoke-1"}))


def check(target: Path, policy: str, *more: str) -> Result:
    (target.parent / "p.toml").write_text(policy)
    return CliRunner().invoke(app, ["check", str(target), "--policy", str(target.parent / "p.toml"), *more])


LIMITS = "[max]\nssim = 0.5\npsnr = 12\n[min]\nmse = 0.01\n"


def test_one_line_a_limit_and_the_exit_code(audited: Bundle) -> None:
    done = check(audited.folder, LIMITS)
    assert done.exit_code == 3
    lines = done.output.splitlines()
    assert [line[:6] for line in lines[:-1]] == ["kept  "] * 4 + ["BROKEN", "kept  "]
    assert lines[3] == "kept    ssim at most 0.5: 0.2 (layer1 mean image)"
    assert "psnr = 13, more than the 12 that the privacy policy allows" in lines[4]
    assert check(audited.folder, "[max]\nssim = 0.5\n").exit_code == 0
    told = json.loads(check(audited.folder, LIMITS, "--json").output)
    assert told["kept"] is False
    assert [limit["kept"] for limit in told["limits"]] == [True, True, True, True, False, True]


def test_a_card_alone_is_held_against_what_its_bundle_serves(audited: Bundle, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_bytes((audited.folder / "card.json").read_bytes())
    assert check(card, "[max]\nssim = 0.5\n").exit_code == 0
    assert audited.card is not None
    audited.card.model_copy(update={"contract": ""}).save(card)
    assert check(card, "[max]\nssim = 0.5\n").exit_code == 3


@pytest.mark.parametrize(
    ("suite", "code"), [('"smoke-1"', 0), ('"smoke-2"', 3), ('"standard-1"', 3), ('["smoke-1"]', 0), ('["smoke-2"]', 3)]
)
def test_cards_of_a_suite_that_was_found_wanting_are_refused(audited: Bundle, suite: str, code: int) -> None:
    done = check(audited.folder, f"suite = {suite}\n[max]\nssim = 0.5\n")
    assert done.exit_code == code
    assert code == 0 or "was audited with smoke-1, expected" in done.output


def test_later_versions_count_and_wrong_words_do_not(audited: Bundle) -> None:
    assert audited.card is not None
    later = with_card(audited, audited.card.model_copy(update={"suite": "smoke-12"}))
    assert check(later.folder, 'suite = "smoke-2"\n[max]\nssim = 0.5\n').exit_code == 0
    for wrong in ('suite = "smoke"\n[max]\nssim = 1\n', "[" * 3000, "[max]\n"):
        assert isinstance(check(audited.folder, wrong).exception, InputError)


def test_a_signature_may_be_asked_for_and_damage_is_told(audited: Bundle, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path / "owner")
    asked = ("[max]\nssim = 0.5\n", "--signed-by", str(public))
    assert isinstance(check(audited.folder, *asked).exception, BundleError)
    sign(audited, private)
    assert check(audited.folder, *asked).exit_code == 0
    (audited.folder / MANIFEST).write_text("{}")
    assert isinstance(check(audited.folder, *asked).exception, BundleError)


def test_a_bundle_without_a_card_fails(tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "made", MADE, FILES)
    done = check(made.folder, "[max]\nssim = 0.5\n")
    assert done.exit_code == 3
    assert "no leakage card" in done.output
