"""What every defence keeps: trained, exported, restored, and the parts it says are frozen untouched."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.export import EdgeGraph, save
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.lab.restoring import restore
from splitveil.lab.training import History
from splitveil.wire.bundle import EDGE, Bundle
from splitveil.wire.codecs import CODECS

NAMES = DEFENSES.names()
OWN_WEIGHTS = ("vib", "cloak", "pripro", "shredder", "disco")
"""They get their shape from `install`; each has a test of scale of its own."""


class Trained(NamedTuple):
    """A defence after two epochs, or one for each of its stages, and what its halves held before."""

    protected: Protected
    history: History
    halves: dict[str, torch.nn.Module]
    before: dict[str, dict[str, Tensor]]


@cache
def digits() -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(256)), data.test.take(np.arange(64)), data.classes)


def fresh(at: str = "relu2") -> Split:
    model = load_model("small", shape=digits().shape, classes=10, weights=None).model
    return trace(model, torch.zeros(2, *digits().shape)).split(at)


@cache
def trained(name: str) -> Trained:
    split = fresh()
    halves = {"edge": split.edge, "cloud": split.cloud}
    before = {name: {k: v.clone() for k, v in half.state_dict().items()} for name, half in halves.items()}
    defense = DEFENSES.build(name)
    protected, history = protect(split, defense, "raw", digits(), epochs=max(2, len(defense.stages())))
    return Trained(protected, history, halves, before)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_moves_no_half_that_it_calls_frozen(name: str) -> None:
    found = trained(name)
    assert len(found.history.losses) == max(2, len(found.protected.defense.stages()))
    assert np.isfinite(found.history.losses).all()
    for half, module in found.halves.items():
        moved = any(not torch.equal(v, found.before[half][k]) for k, v in module.state_dict().items())
        assert moved == any(half in stage.trains for stage in found.protected.defense.stages()), half
    assert found.protected.rival is None
    assert not found.protected.training


BROUGHT_BACK = ("noise", "chain", "siftfunnel", "patrol", "dropout", "shredder")
"""A drawn, a joined, a built-in, a pruned, a masking and a collected one; the others are long."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n not in BROUGHT_BACK)) for n in NAMES])
def test_a_bundle_brings_it_back_and_its_graph_is_torchs_with_noise_as_an_input(name: str, tmp_path: Path) -> None:
    protected, shape = trained(name).protected, digits().shape
    save(protected, tmp_path / "b", name="b", model_spec="small", image_shape=shape, classes=digits().classes)
    bundle = Bundle.load(tmp_path / "b")
    again = restore(bundle)
    assert repr(again.defense) == repr(protected.defense)
    x = torch.rand(3, *shape)
    graph, noise = EdgeGraph(protected.split.edge, protected.defense, protected.codec), None
    with torch.no_grad():
        if protected.defense.stochastic:
            noise = torch.randn(3, *protected.defense.noise_shape(tuple(protected.split.edge(x).shape[1:])))
        wanted = graph(x, noise)
        restored = EdgeGraph(again.split.edge, again.defense, again.codec)(x, noise)
    assert torch.allclose(restored, wanted, atol=1e-5)
    session = onnxruntime.InferenceSession(bundle.read(EDGE))
    names = [i.name for i in session.get_inputs()]
    assert names == (["x"] if noise is None else ["x", "noise"])
    inputs = [x.numpy()] if noise is None else [x.numpy(), noise.numpy()]
    (found,) = session.run(None, dict(zip(names, inputs, strict=True)))
    assert np.allclose(found, wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", [n for n in NAMES if DEFENSES.build(n).stochastic])
def test_noise_is_fresh_for_every_request(name: str) -> None:
    protected = trained(name).protected
    with torch.no_grad():
        z = protected.split.edge(torch.rand(1, *digits().shape)) + 0.5
        assert not torch.equal(protected.defense(z), protected.defense(z))
        many = protected.defense(z.expand(64, *z.shape[1:]))
    assert len({tuple(m.flatten().tolist()) for m in many}) == 64


@pytest.mark.parametrize("name", [n for n in NAMES if n not in OWN_WEIGHTS])
def test_scaling_the_features_buys_nothing(name: str) -> None:
    """What a defence without weights of its own does is the same for features of another scale."""
    one, ten = DEFENSES.build(name), DEFENSES.build(name)
    z = torch.randn(64, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    one.calibrate(z)
    ten.calibrate(10 * z)
    noise = torch.randn_like(z) if one.stochastic else None
    assert torch.allclose(ten.apply_noise(10 * z, noise) / 10, one.apply_noise(z, noise), atol=1e-5)


def test_codecs_are_calibrated_on_defended_features() -> None:
    protected, _ = protect(fresh(), "noise:sigma=2.0", CODECS.build("uniform:bits=8"), digits())
    z = protected.split.edge(torch.rand(8, *digits().shape))
    assert protected.observe(z).shape == z.shape
