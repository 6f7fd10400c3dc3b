"""A bundle that a stranger wrote, or changes while it is read: nothing but its own files, and each once."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from splitveil.core.errors import BundleError, InputError, SplitVeilError
from splitveil.server.policy import PrivacyPolicy, PrivacyPolicyError
from splitveil.wire.bundle import (
    CARD,
    CLOUD,
    EDGE,
    GOLDEN,
    MANIFEST,
    SIGNATURE,
    Bundle,
    load_signed,
    make_keys,
    sign,
    with_card,
    write_bundle,
    write_half,
)
from splitveil.wire.bundle.graphs import reaches, refuse_reaching
from tests.faults.spoilt import REACHING, body, external
from tests.wire.bundle.test_folder import AUDITED, FILES, MADE, bundle

__all__ = ["bundle"]


def model(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])
    opset = helper.make_opsetid("", 18)
    return helper.make_model(helper.make_graph(nodes, "g", [z], [out]), opset_imports=[opset], ir_version=9)


WHOLE = model([helper.make_node("Identity", ["z"], ["logits"])]).SerializeToString()


@pytest.mark.parametrize("where", REACHING)
def test_graphs_that_reach_out_are_refused_wherever_it_hides(where: str) -> None:
    made = onnx.load_from_string(WHOLE)
    REACHING[where](made)
    with pytest.raises(BundleError, match=r"numbers in another file|domain 'com.stranger'"):
        refuse_reaching(made.SerializeToString(), "g")


def test_graphs_that_are_whole_are_taken_and_what_is_none_is_said() -> None:
    refuse_reaching(WHOLE, "g")
    nested = body("deep", [helper.make_node("Neg", ["v"], ["w"])], initializer=[external()])
    for _ in range(8):
        nested = body("deeper", [helper.make_node("If", ["go"], ["w"], then_branch=nested, else_branch=nested)])
    made = onnx.load_from_string(WHOLE)
    made.graph.node.append(helper.make_node("Loop", ["", "", "z"], ["x"], body=nested))
    assert "another file" in reaches(made.SerializeToString())
    for content in (b"", WHOLE):
        assert reaches(content) == ""
    for content in (WHOLE[:-1], b"edge", b"\x0b" * 9, b"\x3a\x03\x0a\x7f\x01", b"\xff" * 40):
        assert reaches(content) == ""
        with pytest.raises(BundleError, match="g is no ONNX graph"):
            refuse_reaching(content, "g")
    assert "own format" in reaches(b"\x10\x00\x00\x00ORTM" + b"\x00" * 20)
    tensor = TensorProto(name="t", data_location=TensorProto.EXTERNAL).SerializeToString()
    # The same number as a varint of ten bytes, whose upper bits protobuf drops.
    odd = tensor.replace(b"\x70\x01", b"\x70\x81\x80\x80\x80\x80\x80\x80\x80\x80\x01")
    graph = b"\x2a" + bytes([len(odd)]) + odd
    assert odd != tensor
    assert "another file" in reaches(b"\x3a" + bytes([len(graph)]) + graph)


def test_no_engine_is_given_a_graph_that_reaches_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.key").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    made = model([helper.make_node("Add", ["z", "stolen"], ["logits"])])
    made.graph.initializer.append(external())
    files = {**FILES, CLOUD: made.SerializeToString()}
    with pytest.raises(BundleError, match=r"cloud.onnx keeps numbers in another file"):
        write_bundle(tmp_path / "made", MADE, files)
    there = Bundle.peek(tmp_path / "made")
    assert there.verify() == [f"{CLOUD} keeps numbers in another file"]
    with pytest.raises(BundleError, match="another file"):
        there.graph(CLOUD)


ODD: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "link to a folder": lambda path: path.symlink_to("/"),
}


@pytest.mark.parametrize("kind", [*ODD, "link"])
@pytest.mark.parametrize("name", [CLOUD, CARD, MANIFEST, SIGNATURE])
def test_only_regular_files_are_read_and_nothing_waits(bundle: Bundle, tmp_path: Path, kind: str, name: str) -> None:
    with_card(bundle, AUDITED)
    private, public = make_keys(tmp_path / "owner")
    sign(bundle, private)
    kept = (bundle.folder / name).rename(tmp_path / name)
    if kind == "link":
        (bundle.folder / name).symlink_to(kept)
    else:
        ODD[kind](bundle.folder / name)
    with pytest.raises(BundleError, match="no regular file"):
        Bundle.load(bundle.folder)
    with pytest.raises(BundleError, match=r"no regular file|is not a signature"):
        load_signed(bundle.folder, public)
    if name != MANIFEST:
        assert Bundle.peek(bundle.folder).verify() == [f"{name} is no regular file"]
        if name == CLOUD:
            with pytest.raises(BundleError, match="no regular file"):
                Bundle.peek(bundle.folder).read(CLOUD)


def test_the_bundle_itself_may_be_a_link_and_a_mount_of_kubernetes_is_one(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(bundle.folder)
    assert Bundle.load(tmp_path / "linked").manifest == bundle.manifest
    mount = tmp_path / "mount"
    mount.mkdir()
    for version in ("..2026_11_30", "..2026_12_01"):
        held = mount / version
        held.mkdir()
        for file in bundle.folder.iterdir():
            (held / file.name).write_bytes(file.read_bytes())
            if not (mount / file.name).is_symlink():
                (mount / file.name).symlink_to(f"..data/{file.name}")
        (mount / "..data_tmp").symlink_to(version)
        (mount / "..data_tmp").rename(mount / "..data")
        found = Bundle.load(mount)
        assert found.manifest == bundle.manifest
        assert found.read(CLOUD) == FILES[CLOUD]
    (mount / "more").symlink_to("/etc/passwd")
    assert found.verify() == [f"more is not listed in {MANIFEST}"]
    (mount / "more").unlink()
    (mount / "..data").unlink()
    (mount / "..data").symlink_to("/")
    with pytest.raises(BundleError, match="no regular file"):
        Bundle.load(mount)


def test_what_is_not_listed_is_told(bundle: Bundle) -> None:
    (bundle.folder / "make.py").write_text("raise SystemExit")
    (bundle.folder / "\x1b[2J").mkdir()
    with pytest.raises(BundleError, match=r"\\x1b\[2J is not listed.*; make.py is not listed"):
        Bundle.load(bundle.folder)


def test_nested_brackets_and_endless_faults_are_one_short_sentence(bundle: Bundle) -> None:
    path = bundle.folder / MANIFEST
    whole = path.read_bytes()
    for text in (b"[" * 200_000, whole.replace(b'"codec_state": {', b'"codec_state": {"x": ' + b"[" * 99_999 + b"], ")):
        path.write_bytes(text)
        with pytest.raises(BundleError) as caught:
            Bundle.load(bundle.folder)
        assert len(str(caught.value)) < 1000
    manifest = json.loads(whole)
    manifest["files"] = {f"\x1b{i}": [1] for i in range(5000)}
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="and 4,990 more") as caught:
        Bundle.load(bundle.folder)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("name", ['a"\nb', "\x1b[2J", "a\u202eb", "", "x" * 5000])
def test_names_have_one_grammar(bundle: Bundle, name: str) -> None:
    text = (bundle.folder / MANIFEST).read_text()
    changes: tuple[Callable[[dict[str, Any]], object], ...] = (
        lambda m: m.update(name=name), lambda m: m["features"].update(name=name), lambda m: m["cut"].update(name=name),
        lambda m: m.update(classes=["a", name]), lambda m: m.update(defense=name), lambda m: m.update(model=name),
        lambda m: m["output"].update(datatype=name),
    )  # fmt: skip
    for change in changes:
        manifest = json.loads(text)
        change(manifest)
        (bundle.folder / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match="is no name") as caught:
            Bundle.load(bundle.folder)
        assert str(caught.value).isprintable()


def test_shapes_that_no_tensor_has_are_refused(bundle: Bundle) -> None:
    text = (bundle.folder / MANIFEST).read_text()
    for shape in ([-1], [-1, 2**40], [-1, 0], [-1, -4], [-1] + [2] * 40, [-1, 10**4000]):
        manifest = json.loads(text)
        manifest["features"]["shape"] = shape
        (bundle.folder / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match="has the shape"):
            Bundle.load(bundle.folder)


def test_a_card_of_another_bundle_never_counts(bundle: Bundle, tmp_path: Path) -> None:
    policy = PrivacyPolicy(max={"ssim": 1.0})
    for told in ({"contract": "0" * 32}, {"weights": "bundle 000000000000"}):
        foreign = AUDITED.model_copy(update=told)
        with pytest.raises(BundleError, match="card is of another bundle"):
            with_card(bundle, foreign)
        there = write_bundle(tmp_path / "raced", MADE, {**FILES, CARD: foreign.to_json().encode()})
        assert there.card == foreign
        assert there.own_card is None
        with pytest.raises(PrivacyPolicyError, match="not made of this bundle"):
            policy.enforce(there)
    own = with_card(bundle, AUDITED)
    assert own.own_card == own.card
    older = AUDITED.model_copy(update={"weights": f"bundle {bundle.manifest.contract[:12]}"})
    assert write_bundle(tmp_path / "older", MADE, {**FILES, CARD: older.to_json().encode()}).own_card == older


def test_a_card_is_not_written_into_a_bundle_that_changed_meanwhile(bundle: Bundle) -> None:
    write_bundle(bundle.folder, MADE, {**FILES, EDGE: b"newer"})
    with pytest.raises(BundleError, match=r"edge\.onnx is altered"):
        with_card(bundle, AUDITED)
    assert Bundle.load(bundle.folder).read(EDGE) == b"newer"


@pytest.fixture
def racing(bundle: Bundle, tmp_path: Path) -> Iterator[tuple[Bundle, Path]]:
    """A signed bundle whose card a forged one replaces again and again, and the public key."""
    private, public = make_keys(tmp_path / "owner")
    sign(with_card(bundle, AUDITED), private)
    good = (bundle.folder / CARD).read_bytes()
    forged = good.replace(b'"task_accuracy": 0.5', b'"task_accuracy": 0.9')
    assert forged != good
    stop = threading.Event()

    def race() -> None:
        while not stop.is_set():
            for content in (forged, good):
                fresh = bundle.folder.with_name("fresh")
                fresh.write_bytes(content)
                fresh.rename(bundle.folder / CARD)

    thread = threading.Thread(target=race)
    thread.start()
    yield bundle, public
    stop.set()
    thread.join()


def test_no_forged_card_passes_however_often_it_is_swapped_in(racing: tuple[Bundle, Path]) -> None:
    bundle, public = racing
    loaded = refused = 0
    for _ in range(300):
        try:
            found = load_signed(bundle.folder, public)
        except SplitVeilError:
            refused += 1
            continue
        loaded += 1
        assert found.card is not None
        assert found.card.task_accuracy == 0.5
    assert loaded
    assert refused


def test_each_file_is_opened_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(bundle, AUDITED)
    names: list[str] = []
    really = os.open

    def noted(path: str, flags: int, *rest: int, **more: int) -> int:
        names.append(os.path.basename(path))
        return really(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", noted)
    found = Bundle.load(bundle.folder, keep=(CLOUD, GOLDEN))
    assert found.read(CLOUD) == FILES[CLOUD]
    assert found.read(GOLDEN) == FILES[GOLDEN]
    for name in (MANIFEST, CARD, EDGE, CLOUD, GOLDEN):
        assert names.count(name) == 1


def test_what_has_secrets_is_for_its_owner_alone(bundle: Bundle, tmp_path: Path) -> None:
    def modes(folder: Path) -> set[int]:
        return {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (folder, *folder.iterdir())}

    assert modes(bundle.folder) == {0}
    assert modes(write_half(bundle, "edge", tmp_path / "edge").folder) == {0}
    assert stat.S_IMODE((tmp_path / "edge").stat().st_mode) == 0o700
    cloud = MADE.model_copy(update={"half": "cloud", "elsewhere": {EDGE: "0"}})
    shared = write_bundle(tmp_path / "cloud", cloud, {n: c for n, c in FILES.items() if n != EDGE})
    assert stat.S_IMODE(shared.folder.stat().st_mode) == 0o755
    bundle.folder.chmod(0o750)
    with_card(bundle, AUDITED)
    assert stat.S_IMODE(bundle.folder.stat().st_mode) == 0o750


def test_what_a_killed_run_left_is_removed_and_what_it_moved_aside_comes_back(bundle: Bundle, tmp_path: Path) -> None:
    half = Path(tempfile.mkdtemp(dir=tmp_path, prefix=".made.new-"))
    (half / EDGE).write_bytes(b"ed")
    alive = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path\n"
         "from splitveil.wire.bundle.replacing import replaced\n"
         "with replaced(Path(sys.argv[1])) as fresh: print(fresh, flush=True); sys.stdin.read(1); raise SystemExit",
         str(bundle.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert alive.stdout is not None
    theirs = Path(alive.stdout.readline().strip())
    assert theirs.is_dir()
    assert not half.exists()
    write_bundle(bundle.folder, MADE, FILES)
    assert theirs.is_dir()
    alive.kill()
    alive.communicate()
    aside = Path(tempfile.mkdtemp(dir=tmp_path, prefix=".made.old-"))
    bundle.folder.rename(aside)
    with pytest.raises(InputError, match="is not a bundle"):
        Bundle.load(bundle.folder)
    (tmp_path / ".made.new-link0000").symlink_to("/")
    write_bundle(tmp_path / "other", MADE, FILES)
    assert aside.is_dir()
    assert theirs.is_dir()
    with pytest.raises(BundleError, match="card"):
        write_bundle(bundle.folder, MADE, FILES, AUDITED.model_copy(update={"contract": "0" * 32}))
    assert Bundle.load(bundle.folder).verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made.new-link0000", "made", "other"]
