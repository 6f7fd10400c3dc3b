import pytest
import torch

from splitveil.lab.attacks.decoder import last_gain
from splitveil.lab.attacks.parts.blocks import BLOCKS
from splitveil.lab.attacks.parts.decoder_network import Decoder, spectrum


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_keep_shape_start_near_the_identity_and_learn(name: str) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name](32, 4)
    x = torch.randn(2, 32, 20, 20)
    out = block(x)
    assert out.shape == x.shape
    assert 0 < (out - x).square().mean() < 1
    out.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in block.parameters())


@pytest.mark.parametrize(
    ("name", "reach"), [("residual", 2), ("multi_scale", 3), ("large_kernel", 11), ("squeeze", 19)]
)
def test_how_far_a_block_sees(name: str, reach: int) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name](16, 1)
    x = torch.randn(1, 16, 41, 41, requires_grad=True)
    block(x)[0, :, 20, 20].sum().backward()
    assert x.grad is not None
    seen = (x.grad[0].abs().sum(0) > 0).nonzero()
    assert int((seen - 20).abs().max()) >= reach


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_kind_builds_a_decoder(kind: str) -> None:
    net = Decoder((16, 8, 8), (3, 32, 32), torch.zeros(3, 32, 32), 24, 2, kind=kind, frequency=True)
    assert net(torch.randn(2, 16, 8, 8)).shape == (2, 3, 32, 32)


def test_the_spectrum_is_normalised_and_finds_a_wave() -> None:
    z = torch.randn(2, 3, 8, 8)
    assert spectrum(z).mean().item() == pytest.approx(0, abs=1e-5)
    assert spectrum(z).std().item() == pytest.approx(1, abs=0.05)
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(8) / 8).expand(1, 1, 8, 8)
    assert {tuple(p) for p in (spectrum(wave)[0, 0] > 1).nonzero().tolist()} == {(0, 3), (0, 5)}


def test_the_last_gain_is_that_of_the_last_tenth() -> None:
    assert last_gain([10.0] * 18 + [11.0, 12.0]) == pytest.approx(2)
    assert last_gain([10.0, 12.0, 12.0, 11.0]) == 0
    assert last_gain([10.0, 11.0, 12.0, 13.0, 14.0]) == pytest.approx(0.5)
