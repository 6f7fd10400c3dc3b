import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.parts.decoder_network import Decoder
from splitveil.lab.attacks.parts.features import ChannelScale

MAPS = [(16, 32, 32), (8, 16, 16), (64, 8, 8), (12, 5, 5), (512, 2, 2), (7, 7, 3), (64, 1, 1)]
FEATURES = [*MAPS, (256,), (17, 24), (16, 24), (11, 6)]


@pytest.mark.parametrize("image", [(3, 32, 32), (1, 28, 28), (3, 8, 8), (3, 30, 22), (1, 112, 92)])
@pytest.mark.parametrize("features", FEATURES)
def test_any_features_give_images_of_the_right_shape(features: tuple[int, ...], image: tuple[int, int, int]) -> None:
    decoder = Decoder(features, image, torch.full(image, 0.5), width=8, blocks=1)
    x_hat = decoder(torch.randn(2, *features))
    assert x_hat.shape == (2, *image)
    x_hat.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


@pytest.mark.parametrize("features", [(6, 12, 12), (17, 5), (16, 5), (9,)])
def test_every_feature_reaches_the_image(features: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    decoder = Decoder(features, (3, 16, 16), torch.zeros(3, 16, 16), width=16, blocks=1)
    z = torch.randn(1, *features, requires_grad=True)
    decoder(z).square().sum().backward()
    assert z.grad is not None
    assert (z.grad != 0).all()


def test_an_untrained_decoder_guesses_nearly_the_mean_image() -> None:
    mean = torch.rand(3, 16, 16)
    decoder = Decoder((8, 4, 4), (3, 16, 16), mean, width=32, blocks=2)
    assert (decoder(torch.randn(4, 8, 4, 4)) - mean).abs().mean() < 0.1


def test_channel_scale_ignores_scale_and_drops_dead_channels() -> None:
    z = torch.randn(64, 5, 4, 4)
    z[:, 2] = 3.0
    scale, tenfold = ChannelScale(z), ChannelScale(10 * z)
    out = scale(z)
    assert torch.allclose(out, tenfold(10 * z), atol=1e-5)
    assert (out[:, 2] == 0).all()
    assert out[:, [0, 1, 3, 4]].std((0, 2, 3)).tolist() == pytest.approx([1] * 4, abs=0.01)
    assert ChannelScale(torch.ones(8, 3))(torch.ones(8, 3)).abs().sum() == 0


@pytest.mark.parametrize(
    "spec", ["decoder:size=huge", "decoder:epochs=0", "decoder:lr=0", "mle:steps=0", "mle:prior=-1"]
)
def test_bad_options_are_one_sentence(spec: str) -> None:
    with pytest.raises(InputError, match=r"(choose from|; use )"):
        ATTACKS.build(spec)
