"""What every defence keeps: trained, exported, restored, and the parts it says are frozen untouched."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from splitveil.bundle import EDGE, Bundle
from splitveil.codecs import CODECS
from splitveil.cut import Split, trace
from splitveil.data import Dataset, load_data
from splitveil.defenses import DEFENSES
from splitveil.defenses.base import Protected
from splitveil.export import EdgeGraph, export_halves, save
from splitveil.models.loader import load_model
from splitveil.protection import protect
from splitveil.restoring import restore

NAMES = DEFENSES.names()
OWN_WEIGHTS = ("vib", "cloak", "pripro", "shredder", "disco")
"""They get their shape from `install`; each has a test of scale of its own."""


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(256)), data.test.take(np.arange(64)), data.classes)


def fresh(digits: Dataset, at: str = "relu2") -> Split:
    model = load_model("small", shape=digits.shape, classes=10, weights=None).model
    return trace(model, torch.zeros(2, *digits.shape)).split(at)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_moves_no_half_that_it_calls_frozen(name: str, digits: Dataset) -> None:
    split = fresh(digits)
    defense = DEFENSES.build(name)
    halves = {"edge": split.edge, "cloud": split.cloud}
    before = {name: {k: v.clone() for k, v in half.state_dict().items()} for name, half in halves.items()}
    protected, history = protect(split, defense, "raw", digits, epochs=2)
    assert len(history.losses) == 2
    for half, module in halves.items():
        moved = any(not torch.equal(v, before[half][k]) for k, v in module.state_dict().items())
        assert moved == any(half in stage.trains for stage in defense.stages()), half
    assert protected.rival is None
    assert not protected.training


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_edge_is_torchs_and_takes_its_noise_as_an_input(name: str, digits: Dataset) -> None:
    protected, _ = protect(fresh(digits), name, "raw", digits)
    files = export_halves(protected, digits.shape).files
    x = torch.rand(3, *digits.shape)
    noise = torch.randn(3, *protected.split.cut.shape)
    session = onnxruntime.InferenceSession(files[EDGE])
    names = [i.name for i in session.get_inputs()]
    assert names == (["x", "noise"] if protected.defense.stochastic else ["x"])
    (found,) = session.run(None, dict(zip(names, (x.numpy(), noise.numpy()), strict=False)))
    graph = EdgeGraph(protected.split.edge, protected.defense, protected.codec)
    with torch.no_grad():
        wanted = graph(x, noise if protected.defense.stochastic else None)
    assert np.allclose(found, wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", [n for n in NAMES if DEFENSES.build(n).stochastic])
def test_noise_is_fresh_for_every_request(name: str, digits: Dataset) -> None:
    protected, _ = protect(fresh(digits), name, "raw", digits)
    z = torch.rand(1, *protected.split.cut.shape) + 0.5
    with torch.no_grad():
        assert not torch.equal(protected.defense(z), protected.defense(z))
        many = protected.defense(z.expand(64, *z.shape[1:]))
    assert len({tuple(m.flatten().tolist()) for m in many}) == 64


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_brings_it_back(name: str, digits: Dataset, tmp_path: Path) -> None:
    protected, _ = protect(fresh(digits), name, "raw", digits, epochs=1)
    save(
        protected, tmp_path / "b", name="b", model_spec="small", image_shape=digits.shape, classes=digits.classes
    )  # fmt: skip
    again = restore(Bundle.load(tmp_path / "b"))
    assert repr(again.defense) == repr(protected.defense)
    x, noise = torch.rand(2, *digits.shape), torch.randn(2, *protected.split.cut.shape)
    with torch.no_grad():
        one, two = (_sent(p, x, noise) for p in (protected, again))
    assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in OWN_WEIGHTS])
def test_scaling_the_features_buys_nothing(name: str) -> None:
    """What a defence without weights of its own does is the same for features of another scale."""
    one, ten = DEFENSES.build(name), DEFENSES.build(name)
    z = torch.randn(64, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    one.calibrate(z)
    ten.calibrate(10 * z)
    noise = torch.randn_like(z) if one.stochastic else None
    assert torch.allclose(ten.apply_noise(10 * z, noise) / 10, one.apply_noise(z, noise), atol=1e-5)


def test_codecs_are_calibrated_on_defended_features(digits: Dataset) -> None:
    protected, _ = protect(fresh(digits), "noise:sigma=2.0", CODECS.build("uniform:bits=8"), digits)
    z = protected.split.edge(torch.rand(8, *digits.shape))
    assert protected.observe(z).shape == z.shape


def _sent(protected: Protected, x: Tensor, noise: Tensor) -> Tensor:
    z = protected.split.edge(x)
    return protected.defense.apply_noise(z, noise if protected.defense.stochastic else None)
