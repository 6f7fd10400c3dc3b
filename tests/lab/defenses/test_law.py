"""What each defence tells an adversary who knows it, held against what it really sends."""

import math

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.cut import trace
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense
from splitveil.lab.defenses.dropout import TOLERANCE
from splitveil.lab.defenses.shredder import Members
from splitveil.lab.law import Law, Sharp
from splitveil.wire.codecs import CODECS, Codec

Z = torch.randn(64, 8, 4, 4, generator=torch.Generator().manual_seed(0)).add(0.3).relu()
EXACT = {"dropout": 0.5, "top_k": 0.1, "disco": 0.4}
"""Share of the numbers that cross as they are, where it is not all of them."""


def installed(spec: str) -> Defense:
    torch.manual_seed(0)
    defense = DEFENSES.build(spec)
    edge = [nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    net = nn.Sequential(*edge, nn.Flatten(), nn.Linear(128, 5))
    defense.install(trace(net, torch.zeros(2, 3, 8, 8)).split("3"))
    with torch.no_grad():
        for p in defense.parameters():
            p.add_(0.2 * torch.randn_like(p))
    defense.calibrate(Z)
    return defense.eval()


def law_of(defense: Defense, codec: Codec | None = None, times: int = 1) -> Law:
    law = defense.law(Z[:1], codec, times)
    assert law is not None
    return law


def sent(defense: Defense, codec: Codec, z: Tensor, times: int) -> Tensor:
    """(times, n, *cut), as an adversary reads them."""
    with torch.no_grad():
        return torch.stack([codec.decode(codec.encode(defense(z))) for _ in range(times)])


@pytest.mark.parametrize("codec", ["raw", "half", "uniform:bits=4"])
@pytest.mark.parametrize("name", DEFENSES.names())
def test_features_lie_where_the_law_says_and_what_is_exact_is_theirs(name: str, codec: str) -> None:
    defense = installed(name)
    wire = CODECS.build(codec).calibrate(sent(defense, CODECS.build("raw"), Z, 1)[0])
    for times in (1, 5) if defense.stochastic else (1,):
        law = law_of(defense, wire, times)
        with torch.no_grad():
            z, clean = law.combined(sent(defense, wire, Z, times)), law.clean(Z)
        low, high = law.bounds(z)
        room = 1e-5 * clean.abs().max()
        assert ((low <= clean + room) & (clean <= high + room)).all()
        share = law.exact(z).float().mean().item()
        if law.deviation is not None:
            assert share == 0, "nothing is exact under noise"
        elif codec == "raw":
            assert torch.allclose(z[law.exact(z)], clean[law.exact(z)], rtol=1e-6, atol=0)
            if name not in EXACT:
                assert share == 1
            elif name == "disco":
                assert 0 < share < 1
            elif name == "top_k":
                assert share == pytest.approx(EXACT[name], abs=0.02)
            else:
                kept = 1 - EXACT[name] ** times
                assert share == pytest.approx(kept * (Z > 0).float().mean().item(), abs=0.02)


@pytest.mark.parametrize("name", ["noise", "vib", "pripro", "cloak", "ensembler", "shredder:collection=2"])
def test_noise_that_is_left_is_as_large_as_the_law_says(name: str) -> None:
    defense, raw = installed(name), CODECS.build("raw")
    for times in (1, 4):
        law = law_of(defense, raw, times)
        assert law.deviation is not None
        draws = sent(defense, raw, Z[:1].expand(4000, -1, -1, -1), times)
        with torch.no_grad():
            off = law.combined(draws) - law.clean(Z[:1])
            told = law.deviation(Z[:1]).expand(1, *Z.shape[1:])[0]
        assert off.std(0).mean().item() == pytest.approx(told.mean().item(), rel=0.1)
        assert (off.mean(0).abs() < 6 * told / 4000**0.5 + 0.05 * told).all()


def test_a_feature_is_missing_as_often_as_dropout_says_and_a_missing_one_says_so_much() -> None:
    rate, raw = 0.4, CODECS.build("raw")
    defense = installed(f"dropout:rate={rate}")
    for times in (1, 3):
        law = law_of(defense, raw, times)
        z = law.combined(sent(defense, raw, torch.full((400, 8, 4, 4), 2.0), times))
        often = (z == 0).float().mean().item()
        assert often == pytest.approx(rate**times, abs=0.01)
        # A guess that lies far from 0 wherever nothing was seen costs the logarithm of how often that happens.
        guess = torch.where(z == 0, 9.0, z)
        unit = 2 * TOLERANCE**2 * 4.0
        cost = law.to(z)(guess) * law.power(z) / (z == 0).flatten(1).sum(1)
        assert cost.nanmean().item() == pytest.approx(-unit * math.log(often), rel=0.05)


def test_of_dropped_features_every_one_is_known_in_the_end() -> None:
    defense, raw = installed("dropout:rate=0.4"), CODECS.build("raw")
    z = law_of(defense, raw, 40).combined(sent(defense, raw, Z - 0.5, 40))
    assert torch.equal(z, Z - 0.5), "negative ones too"


def test_what_the_gate_left_out_says_nothing_and_the_rest_is_held_exactly() -> None:
    defense, raw = installed("disco:ratio=0.5"), CODECS.build("raw")
    z = sent(defense, raw, Z, 1)[0]
    closed = (z == 0).all((2, 3), keepdim=True).expand_as(z)
    assert 0.4 < closed.float().mean() < 0.7
    far = law_of(defense, raw).to(z)
    assert far(torch.where(closed, Z + 5, Z)).max() < 1e-12
    assert far(torch.where(closed, Z, Z + 0.1)).min() > 0


def test_a_faded_channel_tells_its_pattern() -> None:
    defense, raw = installed("disco:ratio=0.5,hard=False"), CODECS.build("raw")
    law, z = law_of(defense, raw), sent(defense, raw, Z, 1)[0]
    assert law.to(z)(Z).max() < 1e-9
    assert law.to(z)(Z.flip(-1)).min() > 0.1
    # However far it was faded.
    assert law.to(z * torch.logspace(-6, 0, 8).reshape(1, 8, 1, 1))(Z).max() < 1e-4


def test_a_missing_feature_of_top_k_is_smaller_than_all_that_crossed() -> None:
    defense, raw = installed("top_k:keep=0.2"), CODECS.build("raw")
    law, z = law_of(defense, raw), sent(defense, raw, Z, 1)[0]
    far, missing = law.to(z), z == 0
    least = torch.where(missing, torch.inf, z).flatten(1).amin(1).reshape(-1, 1, 1, 1)
    assert far(torch.where(missing, 0.9 * least, Z)).max() == 0
    assert far(torch.where(missing, 1.1 * least, Z)).min() > 0


def test_a_rounded_number_fits_everywhere_in_its_cell() -> None:
    codec = CODECS.build("uniform:bits=3").calibrate(Z)
    z = codec.decode(codec.encode(Z))
    step = torch.tensor(codec.state()["step"]).reshape(1, -1, 1, 1)
    far = law_of(installed("none"), codec).to(z)
    # To its ends hardly less well than in its middle, and beyond them as badly as the distance says.
    assert far(z).max() == 0
    inside, out, further = (far(z + share * step).mean().item() for share in (0.49, 0.6, 1.5))
    assert 0 < inside < 0.6 * out
    assert further > 20 * inside
    top = codec.decode(torch.full_like(Z, 7))
    assert law_of(installed("none"), codec).to(top)(top + 100).max() == 0, "the last code has no upper end"


def test_laplace_noise_counts_by_size_and_of_many_crossings_the_median_is_taken() -> None:
    defense, raw = installed("laplace:sigma=1.0"), CODECS.build("raw")
    assert isinstance(law_of(defense, raw), Sharp)
    far = Sharp(lambda h: h, raw, deviation=lambda h: torch.full_like(h, 0.1)).to(Z[:1])
    one, two = (far(Z[:1] + shift) for shift in (1.0, 2.0))
    assert (two / one).item() == pytest.approx(2, rel=0.1), "in proportion, not four times"
    draws = sent(defense, raw, Z[:1].expand(300, -1, -1, -1), 16)
    many = law_of(defense, raw, 16)
    assert isinstance(many, Sharp)
    error, mean = ((t - defense.mean(Z[:1])).std() for t in (many.combined(draws), draws.mean(0)))
    assert error < 0.85 * mean


def test_the_member_of_a_collection_is_found_and_taken_off() -> None:
    defense, raw = installed("shredder:collection=4"), CODECS.build("raw")
    law = law_of(defense, raw)
    assert isinstance(law, Members)
    assert law.rewrites
    noise = torch.randn(64, 8, 4, 4)
    with torch.no_grad():
        z = defense.apply_noise(Z, noise)
        member = noise.flatten(1).argmax(1) * 4 // 128
        assert torch.equal(law.member(z), member)
        left = (law.combined(z[None]) - Z).square().mean()
    assert left < 0.1 * (z - Z).square().mean()


def test_in_a_chain_the_last_part_that_touches_features_speaks_behind_the_others() -> None:
    raw = CODECS.build("raw")
    masked = installed("chain:of=[dropout:rate=0.4 + nopeek]")
    z = sent(masked, raw, Z, 1)[0]
    assert law_of(masked).exact(z).float().mean() == (z != 0).float().mean()
    behind = installed("chain:of=[top_k:keep=0.3 + noise:sigma=0.1]")
    law = law_of(behind, raw)
    assert torch.allclose(law.clean(Z), behind.mean(Z))
    assert law.to(behind.mean(Z))(Z).max() < 1e-9
    assert installed("chain:of=[noise + dropout]").law(Z[:1], raw) is None, "two that draw"


def test_scale_moves_no_distance() -> None:
    """Of what does not measure itself: a guess fits as badly where all features are ten times as large."""
    raw = CODECS.build("raw")
    for name in ("none", "dropout", "top_k", "noise", "laplace"):
        found = []
        for factor in (1.0, 10.0):
            defense = DEFENSES.build(name)
            defense.calibrate(factor * Z)
            torch.manual_seed(0)
            law = defense.law(factor * Z[:1], raw)
            assert law is not None
            found.append(law.to(sent(defense, raw, factor * Z, 1)[0])(factor * Z.flip(0)))
        assert torch.allclose(found[0], found[1], rtol=1e-3), name


def test_which_defences_tell_more_than_noise() -> None:
    telling = {name for name in DEFENSES.names() if DEFENSES.build(name).lawful}
    assert telling == {"dropout", "top_k", "disco", "laplace", "shredder"}
    assert DEFENSES.build("chain:of=[noise + nopeek]").lawful is False
    assert DEFENSES.build("chain:of=[nopeek + dropout]").lawful
    assert DEFENSES.build("pripro:noise=laplace").lawful
