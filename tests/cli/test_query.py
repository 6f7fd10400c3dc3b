"""What ``query`` can do beyond asking one server; the rest is in test_serving_commands."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from splitveil.cli.console import out, printable
from splitveil.cli.query import run
from splitveil.core.errors import AnswerError, DataError, InputError, LinkError
from splitveil.device.exchange import OutageError
from splitveil.lab.defenses.none import Undefended
from splitveil.wire.bundle import write_bundle
from splitveil.wire.codecs.uniform import Uniform

from ..serving.conftest import Made, make, running
from ..serving.scripted import Scripted, scripted
from ..serving.test_pictures import Capture


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("b") / "four", Undefended(), Uniform(4))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, optimize=True)
    return path


APP = typer.Typer()
APP.command()(run)


def ask(*words: object) -> str:
    return CliRunner().invoke(APP, [str(w) for w in words], catch_exceptions=False).output


def test_bytes_are_compared_with_the_picture_itself(made: Made, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "_width", 200)
    with running(made.bundle) as server:
        words = [made.bundle.folder, "--to", f"127.0.0.1:{server.port}", "--input", picture, "--input", picture]
        told = json.loads(ask(*words, "--json"))
        shown = ask(*words)
        packed = json.loads(ask(*words, "--json", "--compress", "zstd"))
    sent = 8 * 16 * 16 // 2
    assert told["bytes_per_image"] == told["bytes"]["sent"] == sent
    assert told["bytes"]["png"] == picture.stat().st_size
    assert 0 < told["bytes"]["jpeg"] < told["bytes"]["png"]
    assert [(a["bytes"], a["attempts"], a["local"]) for a in told["answers"]] == [(sent, 1, False)] * 2
    assert f"{sent / told['bytes']['png']:.1f} times its PNG ({picture.stat().st_size:,})" in shown
    assert "JPEG of quality 75" in shown
    assert packed["compress"] == "zstd"
    assert packed["bytes"]["sent"] != sent == packed["bytes_per_image"]
    assert [a["class"] for a in packed["answers"]] == [a["class"] for a in told["answers"]]


def test_the_fallback_is_told(made: Made, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "_width", 200)
    with scripted(Scripted(made.bundle)) as port:
        words: list[Any] = [made.bundle.folder, "--to", f"127.0.0.1:{port}", "--input", picture, "--attempts", 1]
        remote = json.loads(ask(*words, "--json"))
    with pytest.raises(LinkError):
        ask(*words)
    here = json.loads(ask(*words, "--json", "--fallback"))
    assert (remote["local"], here["local"], here["bytes"]["sent"]) == (0, 1, None)
    np.testing.assert_allclose(here["answers"][0]["logits"], remote["answers"][0]["logits"], rtol=1e-4, atol=1e-4)
    assert "1 of them answered here: no server did" in ask(*words, "--fallback")


def test_tokens_and_several_servers_reach_the_edge(made: Made, picture: Path, tmp_path: Path) -> None:
    one, two = Scripted(made.bundle), Scripted(made.bundle)
    (tmp_path / "token").write_text("a-token-of-this-test\nmore\n")
    with scripted(one) as first, scripted(two) as second:
        to = f"127.0.0.1:{first},127.0.0.1:{second}"
        inputs = [w for _ in range(8) for w in ("--input", picture)]
        ask(made.bundle.folder, "--to", to, *inputs, "--token-file", tmp_path / "token")
    assert len(one.asked) + len(two.asked) == 8
    assert set(one.tokens + two.tokens) == {"Bearer a-token-of-this-test"}
    (tmp_path / "empty").write_text("\n")
    for name, told in (("empty", "first line is the token"), ("missing", "cannot read .*check --token-file")):
        with pytest.raises(InputError, match=told):
            ask(made.bundle.folder, "--to", to, "--input", picture, "--token-file", tmp_path / name)
    with pytest.raises(InputError, match="mutual TLS"):
        ask(made.bundle.folder, "--to", to, "--input", picture, "--cert", tmp_path / "c.pem")


def test_folders_of_any_photos_are_asked_and_broken_ones_named(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "_width", 200)
    (tmp_path / "in").mkdir()
    Image.new("CMYK", (50, 20), (10, 200, 30, 5)).save(tmp_path / "a.jpg")
    Image.new("L", (7, 90)).save(tmp_path / "in" / "b.png")
    with scripted(Scripted(made.bundle)) as port:
        words: list[Any] = [made.bundle.folder, "--to", f"127.0.0.1:{port}", "--input", tmp_path]
        told = json.loads(ask(*words, "--json"))
        (tmp_path / "in" / "c.jpg").write_bytes(b"no picture")
        (tmp_path / "in" / "d.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"cannot read 2 of the 4 pictures of --input: .*c.jpg .*d.png .*--skip-b"):
            ask(*words)
        left = CliRunner().invoke(APP, [str(w) for w in (*words, "--json", "--skip-broken")], catch_exceptions=False)
    assert [Path(a["input"]).name for a in told["answers"]] == ["a.jpg", "b.png"]
    assert (told["skipped"], told["picture_assumed"], told["picture"]["size"]) == ([], False, [16, 16])
    assert "2 of 4 pictures cannot be read and are left out" in left.stderr
    found = json.loads(left.stdout)
    assert (found["n"], len(found["skipped"])) == (2, 2)


def test_a_bundle_from_before_says_what_it_assumes(
    made: Made, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_bundle(
        tmp_path / "old", made.bundle.manifest.model_copy(update={"picture": None}),
        {name: made.bundle.folder / name for name in made.bundle.manifest.files},
    )  # fmt: skip
    with scripted(Scripted(old)) as port:
        words = [old.folder, "--to", f"127.0.0.1:{port}", "--input", picture, "--json"]
        done = CliRunner().invoke(APP, [str(w) for w in words], catch_exceptions=False)
    assert "does not say how its pictures were made; assumed: RGB picture turned upright" in done.stderr
    assert json.loads(done.stdout)["picture_assumed"] is True


def test_a_camera_is_asked_frame_by_frame(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Capture))
    with scripted(Scripted(made.bundle)) as port:
        told = json.loads(ask(made.bundle.folder, "--to", f"127.0.0.1:{port}", "--camera", 0, "-n", 2, "--json"))
    assert [a["input"] for a in told["answers"]] == ["camera 0[0]", "camera 0[1]"]


def test_the_most_probable_classes_are_named(made: Made, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "_width", 200)
    with running(made.bundle) as server:
        words = [made.bundle.folder, "--to", f"127.0.0.1:{server.port}", "--input", picture]
        answer = json.loads(ask(*words, "--json"))["answers"][0]
        four = json.loads(ask(*words, "--json", "--top", 4))
        everything = json.loads(ask(*words, "--json", "--top", 99))["answers"][0]["top"]
        shown = ask(*words, "--top", 2)
    logits = np.asarray(answer["logits"], float)
    odds = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-logits)
    names = made.bundle.manifest.classes
    assert [(k["class"], k["probability"]) for k in answer["top"]] == [
        (names[k], pytest.approx(odds[k])) for k in order[:3]
    ]
    assert answer["probabilities"] == pytest.approx(odds.tolist())
    assert (four["classes"], len(four["answers"][0]["top"])) == (names, 4)
    assert len(everything) == len(names)
    assert (answer["class"], answer["confidence"]) == (names[order[0]], pytest.approx(odds[order[0]]))
    assert f"{names[order[0]]} {odds[order[0]]:.3f}, {names[order[1]]} {odds[order[1]]:.3f}" in shown
    assert f"{odds[order[2]]:.3f}" not in shown


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_an_error_and_never_a_class(
    made: Made, picture: Path, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Scripted(made.bundle)
    answered = service.cloud.run

    def broken(given: dict[str, Any]) -> Any:
        logits = answered(given)
        logits[-1, 1] = bad
        return logits

    monkeypatch.setattr(service.cloud, "run", broken)
    with scripted(service) as port:
        words = [made.bundle.folder, "--to", f"127.0.0.1:{port}", "--input", picture]
        with pytest.raises(AnswerError, match=r"got NaN or infinity for 1 of 1 images") as told:
            ask(*words)
        assert isinstance(told.value, OutageError)
        here = json.loads(ask(*words, "--json", "--fallback"))
    assert here["local"] == 1
    assert np.isfinite(here["answers"][0]["logits"]).all()
    assert len(service.asked) == 2, "the same features would be answered the same: no retry"


def test_names_cannot_write_to_the_terminal() -> None:
    assert printable("cat") == "cat"
    assert printable("\x1b[2Jcat\n") == "\\x1b[2Jcat\\n"
    assert printable("a\u202eb") == "a\\u202eb"
    assert printable("Käse 猫") == "Käse 猫"
    assert (len(printable("x" * 500)), printable("x" * 500)[-1]) == (40, "…")
    assert len(printable("\x1b" * 30)) == 40
