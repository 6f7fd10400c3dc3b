"""Audits of 8-bit edge halves: of the graph that ships, and of nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from splitveil.cli import audit as command
from splitveil.cli.retrieve import run as retrieve
from splitveil.core.errors import BundleError, ThreatModelError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.view import PRESETS, Aux, Knows
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.criterion import criterion
from splitveil.lab.auditing.facts import At
from splitveil.lab.auditing.suites import Suite, custom_suite
from splitveil.lab.auditing.views import Wire
from splitveil.lab.export import save
from splitveil.lab.export.quantizing import write_quantized
from splitveil.lab.protection import protect
from splitveil.lab.restoring import Shipped, restore, restore_shipped
from splitveil.wire.bundle import EDGE, FLOAT_EDGE, Bundle, write_bundle, write_half
from tests.cli.test_retrieve import CARS
from tests.cli.test_retrieve import bundle as car_bundle

from .conftest import Trained
from .test_run import Spy, holds, tensors_reachable_from

ATTACKS_RUN: Suite = custom_suite(["linear", "mle:steps=30"])
NOISY = "noise:sigma=0.3"


@pytest.fixture(scope="module")
def make(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Bundle, Bundle]]:
    """Defence and codec -> the float bundle and its 8-bit one."""
    made: dict[tuple[str, str], tuple[Bundle, Bundle]] = {}

    def both(defense: str, codec: str) -> tuple[Bundle, Bundle]:
        if (defense, codec) not in made:
            folder = tmp_path_factory.mktemp("b")
            floats = save(
                trained.protected("relu2", defense, codec), folder / "b", name="b", model_spec="small",
                image_shape=trained.data.shape, classes=trained.data.classes,
            )  # fmt: skip
            made[defense, codec] = floats, write_quantized(floats, trained.data, folder / "q", n=64)
        return made[defense, codec]

    return both


Make = Callable[[str, str], tuple[Bundle, Bundle]]


def subject(bundle: Bundle, trained: Trained) -> Subject:
    x = torch.from_numpy(trained.data.test.x)
    return Subject.of_shipped(restore_shipped(bundle), x, model="small", weights="test", bundle="q")


def wire(found: Subject, trained: Trained, knows: Knows = PRESETS["white-box"]) -> Wire:
    x = torch.from_numpy(trained.data.test.x)
    aux = Aux(x[40:], torch.zeros(len(x) - 40, dtype=torch.int64))
    images = x.float() / 255
    return Wire(found.configurations[0], images[:40], images[40:], aux, knows, 0, None)


def by_hand(bundle: Bundle, x: Tensor) -> Tensor:
    """What crosses, by ONNX Runtime and the codec alone. Only where no noise is drawn."""
    from splitveil.wire.bundle import codec

    session = onnxruntime.InferenceSession(bundle.read(EDGE), providers=["CPUExecutionProvider"])
    wired = codec(bundle.manifest)
    packed = session.run(None, {"x": x.numpy().astype(np.float32)})[0]
    return torch.from_numpy(np.asarray(wired.decode(wired.unpack(packed, bundle.manifest.cut.shape))))


@pytest.mark.parametrize("codec", ["raw", "uniform:bits=8", "uniform:bits=4", "half"])
def test_everything_that_crosses_is_the_graphs(make: Make, trained: Trained, codec: str) -> None:
    _, integers = make("none", codec)
    found = wire(subject(integers, trained), trained)
    x = torch.from_numpy(trained.data.test.x).float() / 255
    truth = by_hand(integers, x)
    view = found.view(0, 1, None)
    assert torch.equal(view.z, truth[:40])
    assert torch.equal(view.observe(torch.arange(25)), truth[40:65])
    assert torch.equal(view.query(x[50:60]), truth[50:60])
    assert not torch.allclose(view.z, restore(make("none", codec)[0]).sent(x[:40]), atol=1e-6), "not the float edge's"


def test_noise_is_drawn_afresh_for_every_crossing_and_enters_the_graph(make: Make, trained: Trained) -> None:
    view = wire(subject(make(NOISY, "raw")[1], trained), trained).view(0, 3, None)
    assert view.crossings.unique(dim=0).shape[0] == 3
    assert not torch.equal(view.observe(torch.arange(5)), view.observe(torch.arange(5)))
    noise = (view.crossings - view.crossings.mean(0)).square().mean().sqrt()
    scale = view.z.std()
    assert 0.1 < noise / scale < 1.0


def test_searches_have_the_graphs_values_and_the_floats_slope(make: Make, trained: Trained) -> None:
    floats, integers = make("none", "raw")
    view = wire(subject(integers, trained), trained).view(0, 1, None)
    x = (torch.from_numpy(trained.data.test.x[:6]).float() / 255).requires_grad_(True)
    z = view.edge(x)
    assert torch.allclose(z, by_hand(integers, x.detach()), atol=1e-6)
    weight = torch.randn(z.shape)
    (slope,) = torch.autograd.grad((z * weight).sum(), x)
    own = restore(floats).requires_grad_(False).split.edge
    (wanted,) = torch.autograd.grad((own(x) * weight).sum(), x)
    assert torch.allclose(slope, wanted, atol=1e-5)


@pytest.mark.long
def test_the_numbers_are_near_those_of_the_float_bundle(make: Make, trained: Trained, tmp_path: Path) -> None:
    floats, integers = make("none", "uniform:bits=8")
    before = audit(
        Subject.of_split(restore(floats), model="small", weights="t"), trained.data, suite=ATTACKS_RUN, n=40
    ).card
    after = audit(subject(integers, trained), trained.data, suite=ATTACKS_RUN, n=40, out=tmp_path / "a").card
    old = {r.attack: r.psnr for r in before.rows if r.codec == "uniform:bits=8"}
    new = {r.attack: r.psnr for r in after.rows}
    assert {(r.defense, r.codec) for r in after.rows} == {("none", "uniform:bits=8")}
    assert old.keys() == new.keys()
    for attack in ("mean", "class_mean", "nearest", "linear"):
        assert new[attack] == pytest.approx(old[attack], abs=1.0)
    assert new["mle"] > new["linear"] - 3
    assert after.task_accuracy == pytest.approx(before.task_accuracy, abs=0.03)
    assert after.stand_in is not None
    assert before.stand_in is None
    assert after.stand_in.kind == "straight-through"
    assert 0 < after.stand_in.relative_error < 0.1
    assert after.stand_in.equal_codes is not None
    assert 0.3 < after.stand_in.equal_codes < 1
    assert after.stand_in.words in after.notes


@pytest.mark.long
def test_a_defence_between_the_halves_leaves_a_float_stand_in(make: Make, trained: Trained) -> None:
    found = subject(make(NOISY, "raw")[1], trained)
    assert found.stand_in is not None
    assert (found.stand_in.kind, found.stand_in.equal_codes) == ("float", None)
    assert found.stand_in.relative_error < 0.1
    card = audit(found, trained.data, suite=ATTACKS_RUN, n=30).card
    assert {r.attack for r in card.rows} >= {"linear", "mle"}


def test_grants_hold(make: Make, trained: Trained) -> None:
    found = wire(subject(make("none", "raw")[1], trained), trained, PRESETS["query-free"])
    view = found.view(0, 1, None)
    for read in (lambda: view.edge, lambda: view.query(torch.zeros(1, 1, 8, 8)), lambda: view.observe(torch.arange(1))):
        with pytest.raises(ThreatModelError):
            read()
    card = audit(subject(make("none", "raw")[1], trained), trained.data, suite=ATTACKS_RUN, n=30,
                 knows=PRESETS["black-box"]).card  # fmt: skip
    assert any("mle" in note and "WEIGHTS" in note for note in card.notes)
    assert "mle" not in {r.attack for r in card.rows}


def test_an_architecture_with_fresh_weights_has_no_value_of_the_graph(make: Make, trained: Trained) -> None:
    found = subject(make("none", "raw")[1], trained)
    knows = Knows.AUX | Knows.CLOUD
    torch.manual_seed(3)
    blank = wire(found, trained, knows).view(0, 1, None).blank_edge()
    assert not any(hasattr(part, "graph") and hasattr(part, "floats") for part in blank.modules())
    x = torch.from_numpy(trained.data.test.x[:20]).float() / 255
    shipped = found.configurations[0].protected
    assert isinstance(shipped, Shipped)
    with torch.no_grad():
        assert torch.corrcoef(torch.stack([blank(x).flatten(), shipped.sent(x).flatten()]))[0, 1] < 0.9
    for own, known in zip(blank.parameters(), shipped.twin.parameters(), strict=True):
        assert own.numel() < 2 or not torch.equal(own, known)


def test_an_altered_graph_is_refused_by_its_hash(make: Make, tmp_path: Path) -> None:
    _, integers = make("none", "raw")
    copied = write_bundle(
        tmp_path / "q", integers.manifest, {name: integers.folder / name for name in integers.manifest.files}
    )
    content = bytearray((copied.folder / EDGE).read_bytes())
    content[len(content) // 2] ^= 1
    (copied.folder / EDGE).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"edge\.onnx is altered"):
        Bundle.load(copied.folder)
    with pytest.raises(BundleError, match=r"edge\.onnx is altered"):
        restore_shipped(copied)


def test_another_graph_is_another_result(make: Make, trained: Trained) -> None:
    first, second = (subject(make(defense, "raw")[1], trained).configurations[0] for defense in ("none", NOISY))
    marks = [At.of(c).graph for c in (first, second)]
    assert marks[0] != marks[1]
    assert not At.of(trained.subject("relu2").configurations[0]).graph


def test_floats_stay_with_the_owner(make: Make, trained: Trained, tmp_path: Path) -> None:
    floats, integers = make("none", "raw")
    assert integers.read(FLOAT_EDGE) == floats.read("edge.safetensors")
    for half in ("edge", "cloud"):
        alone = write_half(integers, half, tmp_path / half)
        assert FLOAT_EDGE not in alone.manifest.files
        with pytest.raises(BundleError, match=f"is the {half} half"):
            restore_shipped(alone)
    with pytest.raises(BundleError, match="cannot be trained; use the bundle"):
        restore(integers)


def test_a_bundle_from_before_says_what_to_do(make: Make, tmp_path: Path) -> None:
    _, integers = make("none", "raw")
    kept = {name: integers.folder / name for name in integers.manifest.files if name != FLOAT_EDGE}
    old = write_bundle(tmp_path / "old", integers.manifest, kept)
    assert old.manifest.contract == integers.manifest.contract
    with pytest.raises(BundleError, match=r"has no edge-float\.safetensors.*quantize. again on the bundle \w{12}"):
        restore_shipped(old)


@pytest.mark.long
def test_the_criterion_takes_an_8_bit_bundle(make: Make, trained: Trained) -> None:
    found = criterion(subject(make("none", "uniform:bits=8")[1], trained), trained.data, n=200)
    assert len(found.cuts) == 1
    costs = {c.name: c for c in found.cuts[0].costs}
    assert costs["edge parameters"].note.startswith("edge.onnx")
    assert costs["agreement"].value > 0.9
    assert any("float edge half" in note for note in found.notes)


@pytest.mark.long
def test_every_attack_of_the_table_takes_it(make: Make, trained: Trained) -> None:
    found = wire(subject(make("none", "raw")[1], trained), trained)
    for spec in (
        "deep_prior:steps=2",
        "mle:steps=2",
        "shadow:learn=cloud,arch=same,steps=2",
        "mle:steps=2,optimizer=lbfgs",
    ):
        attack = ATTACKS.build(spec)
        guess = attack(found.view(0, 1, None))  # type: ignore[operator]
        assert guess.x_hat.shape == (40, 1, 8, 8)


def test_the_commands_take_it(
    make: Make, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, integers = make("none", "uniform:bits=8")
    copied = write_bundle(
        tmp_path / "q", integers.manifest, {name: integers.folder / name for name in integers.manifest.files}
    )
    monkeypatch.setattr("splitveil.lab.data.load_data", lambda *_, **__: trained.data)
    command.run(str(copied.folder), "digits", tmp_path / "a", attack=["linear"], n=30, as_json=True)
    card = json.loads(capsys.readouterr().out)
    assert card["stand_in"]["kind"] == "straight-through"
    again = Bundle.load(copied.folder)
    assert again.card is not None
    assert again.manifest.contract == integers.manifest.contract
    assert again.card.stand_in is not None


def test_retrieve_takes_an_8_bit_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from splitveil.lab.data import load_data

    floats = Bundle.load(car_bundle(tmp_path / "cars", "noise:sigma=0.1"))
    write_quantized(floats, load_data(CARS), tmp_path / "q", n=16)
    retrieve(tmp_path / "q", CARS, seed=0, as_json=False)
    assert "without its noise, in floats" in capsys.readouterr().out


@pytest.mark.parametrize("defense", ["none", NOISY])
def test_a_private_image_cannot_be_reached_from_a_view(
    make: Make, trained: Trained, defense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spy, "views", [])
    monkeypatch.setitem(ATTACKS._table, "spy", "tests.lab.auditing.test_run:Spy")
    bundle = make(defense, "uniform:bits=8")[1]
    found = audit(subject(bundle, trained), trained.data, suite=custom_suite(["spy"]), n=40, samples=40)
    assert len(Spy.views) == 2
    for view in Spy.views:
        reachable = list(tensors_reachable_from(view))
        assert holds(reachable, view.aux.x[:5]), "the search must find what is there"
        assert not holds(reachable, found.inputs)


def test_a_defence_that_never_trained_says_so_in_8_bits_too(trained: Trained, tmp_path: Path) -> None:
    untrained = protect(trained.traced.split("relu2"), "nopeek", "raw", trained.data, epochs=0)[0]
    floats = save(
        untrained, tmp_path / "b", name="b", model_spec="small", image_shape=trained.data.shape,
        classes=trained.data.classes,
    )  # fmt: skip
    found = subject(write_quantized(floats, trained.data, tmp_path / "q", n=32), trained)
    assert found.configurations[0].protected.untrained
    assert any("never trained" in note for note in found.notes)
