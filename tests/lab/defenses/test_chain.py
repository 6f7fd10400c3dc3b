"""Several defences at once are each of them in turn."""

from pathlib import Path

import pytest
import torch
from torch import nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import trace
from splitveil.lab.cut.pieces import Split
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense, Protected
from splitveil.lab.defenses.chain import Chain
from splitveil.lab.export import save
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import Bundle
from splitveil.wire.codecs import CODECS


def split_of(channels: int = 8) -> Split:
    net = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 16, 5))
    return trace(net, torch.zeros(2, 3, 8, 8)).split("1")


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_features_pass_one_after_the_other_and_each_draws_its_own_noise() -> None:
    chain = DEFENSES.build("chain:of=[top_k:keep=0.5 + noise:sigma=0.5 + laplace:sigma=1.0]")
    parts = [DEFENSES.build(s) for s in ("top_k:keep=0.5", "noise:sigma=0.5", "laplace:sigma=1.0")]
    z = draws(6, 8, 4, 4)
    chain.calibrate(z)
    y = z
    for part in parts:
        part.calibrate(y)
        y = part.mean(y)
    assert chain.noise_shape((8, 4, 4)) == (256,)
    noise = draws(6, 256, seed=1)
    wanted = parts[0].apply_noise(z, None)
    wanted = parts[1].apply_noise(wanted, noise[:, :128].reshape(z.shape))
    wanted = parts[2].apply_noise(wanted, noise[:, 128:].reshape(z.shape))
    assert torch.allclose(chain.apply_noise(z, noise), wanted)
    assert torch.allclose(chain.mean(z), y)
    assert chain.spread(z) is None, "noise before noise is not of one size"


def test_adversaries_are_told_of_the_noise_of_the_last_one_alone() -> None:
    z = draws(6, 8, 4, 4)
    for last, laws in (("noise:sigma=0.5", 1), ("shredder:collection=3", 3), ("vib", 1)):
        chain = DEFENSES.build(f"chain:of=[top_k:keep=0.5 + {last}]")
        chain.install(split_of())
        chain.calibrate(z)
        assert isinstance(chain, Chain)
        first, second = (p for p in chain.parts if isinstance(p, Defense))
        reached = first.mean(z)
        for law, own in zip(chain.laws(z), second.laws(reached), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(law, own, strict=True))
        assert len(chain.laws(z)) == laws
        told, wanted = chain.expected(z), second.expected(reached)
        assert told is not None
        assert wanted is not None
        assert all(torch.equal(a, b) for a, b in zip(told, wanted, strict=True))
    both = DEFENSES.build("chain:of=[noise:sigma=0.5 + laplace:sigma=1.0]")
    assert both.expected(z) is None
    assert not both.laws(z)


def test_losses_add_up() -> None:
    split, x, y = split_of(), draws(6, 3, 8, 8).sigmoid(), torch.arange(6) % 5
    alone = ("label_smoothing:alpha=0.2", "nopeek:weight=0.5")
    losses = [Protected(split, DEFENSES.build(s), CODECS.build("raw")).loss(x, y) for s in alone]
    plain = Protected(split, DEFENSES.build("none"), CODECS.build("raw")).loss(x, y)
    both = Protected(split, DEFENSES.build(f"chain:of=[{' + '.join(alone)}]"), CODECS.build("raw")).loss(x, y)
    assert both.item() == pytest.approx((losses[0] + losses[1] - plain).item(), rel=1e-5)


def test_what_one_freezes_stays_frozen_and_one_adversary_serves_all() -> None:
    chain = DEFENSES.build("chain:of=[adversarial:weight=1.0 + cloak]")
    assert chain.trains == frozenset()
    assert chain.stochastic
    assert chain.adversary((8, 4, 4), (3, 8, 8), 5) is not None
    assert [s.trains for s in DEFENSES.build("chain:of=[siftfunnel:refit=0.5 + noise]").stages()][1] == {"cloud"}


def test_a_bundle_brings_the_chain_back(tmp_path: Path) -> None:
    from splitveil.lab.models.loader import load_model

    model = load_model("small", shape=(1, 8, 8), classes=10, weights=None).model
    split = trace(model, torch.zeros(2, 1, 8, 8)).split("relu2")
    defense = DEFENSES.build("chain:of=[siftfunnel:channels=5 + noise:sigma=0.3]")
    protected = Protected(defense.install(split), defense, CODECS.build("raw"))
    defense.calibrate(protected.split.eval().edge(torch.rand(8, 1, 8, 8)).detach())
    classes = [str(k) for k in range(10)]
    save(protected, tmp_path / "b", name="b", model_spec="small", image_shape=(1, 8, 8), classes=classes)
    again = restore(Bundle.load(tmp_path / "b"))
    assert repr(again.defense) == repr(defense)
    x = torch.rand(2, 1, 8, 8)
    assert again.split.cut.shape[0] == 5
    with torch.no_grad():
        assert torch.allclose(
            again.defense.mean(again.split.edge(x)), defense.mean(protected.split.eval().edge(x)), atol=1e-6
        )


def test_what_cannot_go_together_is_refused() -> None:
    with pytest.raises(InputError, match="two defences or more"):
        DEFENSES.build("chain:of=noise")
    with pytest.raises(InputError, match="siftfunnel and label_smoothing sets the task"):
        DEFENSES.build("chain:of=[siftfunnel + label_smoothing]")


def test_veil_is_a_chain_with_names_of_its_own() -> None:
    veil = DEFENSES.build("veil:channels=4,pool=2,sigma=0.7")
    assert isinstance(veil, Chain)
    assert repr(veil) == "veil:channels=4,pool=2,distillation=1.0,adversarial=0.0,sigma=0.7"
    assert [p.name for p in veil.parts] == ["distillation", "bottleneck", "noise"]
    rival = DEFENSES.build("veil:adversarial=1.0,distillation=0.0")
    assert isinstance(rival, Chain)
    assert [p.name for p in rival.parts] == ["bottleneck", "adversarial", "noise"]
    without = DEFENSES.build("veil:channels=0")
    assert isinstance(without, Chain)
    assert [p.name for p in without.parts] == ["distillation", "noise"]
    with pytest.raises(InputError, match="two defences or more"):
        DEFENSES.build("veil:channels=0,sigma=0")
    split = veil.install(split_of())
    assert split.cut.shape == (4, 2, 2)
    veil.calibrate(draws(64, 4, 2, 2))
    spread = veil.spread(draws(2, 4, 2, 2))
    assert spread is not None, "noise of a known size comes last, so there is a certificate"
    assert spread.shape == (4, 2, 2)
