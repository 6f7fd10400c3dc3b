import pytest
import torch
from torch import nn

from splitveil.core.errors import InputError
from splitveil.lab.models import MODELS
from splitveil.lab.models.base import Normalize
from splitveil.lab.vision import torchvision

NAMES = MODELS.names()
LEAST = {
    "small": 4,
    "lenet5": 16,
    "cnn6": 8,
    "vgg11": 32,
    "vgg16": 32,
    "alexnet": 16,
    "mobilenetv2": 8,
    "whitenet": 16,
    "whitenet_wide": 16,
    "vit_tiny32": 8,
}


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 37, 41)])
def test_logits_for_any_channels_sides_and_classes(name: str, shape: tuple[int, int, int]) -> None:
    net = MODELS.build(name, shape=shape, classes=7).eval()
    with torch.inference_mode():
        assert net(torch.rand(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", NAMES)
def test_normalisation_is_the_first_step_and_not_in_the_weights(name: str) -> None:
    net = MODELS.build(name)
    first, module = next(iter(net.named_children()))
    assert (first, type(module)) == ("normalize", Normalize)
    assert not any(key.startswith("normalize") for key in net.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_overwrites_features_that_may_have_crossed(name: str) -> None:
    assert not any(getattr(module, "inplace", False) for module in MODELS.build(name).modules())


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_too_small_images_are_refused_with_the_remedy(name: str, least: int) -> None:
    with torch.inference_mode():
        assert MODELS.build(name, shape=(1, least, least)).eval()(torch.rand(1, 1, least, least)).shape == (1, 10)
    with pytest.raises(InputError) as caught:
        MODELS.build(name, shape=(1, least, least - 1))
    assert str(caught.value) == (
        f"{name} expected images of at least {least}x{least} pixels, got {least}x{least - 1}; "
        f"enlarge them with ?size={least} after the data's name."
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lenet5", ["conv1", "ReLU1", "pool1", "conv2", "ReLU2", "pool2", "fc1", "fc1act", "fc2", "fc2act", "fc3"]),
        (
            "cnn6",
            [
                *("conv11", "ReLU11", "conv12", "ReLU12", "pool1", "conv21", "ReLU21", "conv22", "ReLU22", "pool2"),
                *("conv31", "ReLU31", "conv32", "ReLU32", "pool3", "fc1", "fc1act", "fc2"),
            ],
        ),
        ("small", ["conv1", "relu1", "conv2", "relu2", "pool1", "conv3", "relu3", "pool2", "fc"]),
    ],
)
def test_names_to_cut_at(name: str, expected: list[str]) -> None:
    children = [n for n, _ in MODELS.build(name).named_children() if n not in ("normalize", "flatten")]
    assert children == expected


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("small", (1, 8, 8), 44_474),
        ("lenet5", (1, 28, 28), 8 * 26 + 16 * 201 + 120 * 257 + 84 * 121 + 10 * 85),
        ("cnn6", (3, 32, 32), 1_609_546),
        ("resnet20", (3, 32, 32), 269_722),
        ("resnet56", (3, 32, 32), 853_018),
        ("resnet18", (3, 32, 32), 11_173_962),
        ("vgg16", (3, 32, 32), 14_728_266),
        ("mobilenetv2", (3, 32, 32), 2_236_682),
        ("whitenet", (3, 32, 32), 1_122_890),
        ("whitenet_wide", (3, 32, 32), 1_972_490),
        ("vit_tiny32", (3, 32, 32), 48 * 96 + 96 + 64 * 96 + 6 * (12 * 96**2 + 13 * 96) + 2 * 96 + 97 * 10),
    ],
)
def test_sizes(name: str, shape: tuple[int, int, int], count: int) -> None:
    assert parameters(MODELS.build(name, shape=shape)) == count


@pytest.mark.parametrize(("name", "side"), [("mobilenetv2", 96), ("alexnet", 224)])
def test_torchvisions_weights_give_torchvisions_logits(name: str, side: int) -> None:
    theirs = {"mobilenetv2": "mobilenet_v2"}.get(name, name)
    reference = torchvision().models.get_model(theirs, weights=None, num_classes=5).eval()
    net = MODELS.build(name, shape=(3, side, side), classes=5).eval()
    net.load_state_dict(reference.state_dict())
    x = torch.rand(2, 3, side, side)
    with torch.inference_mode():
        assert torch.equal(net(x), reference(net.get_submodule("normalize")(x)))


@pytest.mark.parametrize("name", ["vgg11", "vgg16"])
def test_vgg_features_are_torchvisions(name: str) -> None:
    reference = torchvision().models.get_model(f"{name}_bn", weights=None, num_classes=1).features.eval()
    features = MODELS.build(name).eval().get_submodule("features")
    features.load_state_dict(reference.state_dict())
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(features(x), reference(x))


def test_mobilenet_keeps_resolution_for_small_images() -> None:
    x = torch.rand(1, 3, 64, 64)
    small, large = (MODELS.build("mobilenetv2", shape=(3, side, side)).get_submodule("features") for side in (64, 65))
    with torch.inference_mode():
        assert small.eval()(x).shape == (1, 1280, 8, 8)
        assert large.eval()(x).shape == (1, 1280, 2, 2)


@pytest.mark.parametrize(("channels", "expected"), [(1, [-1.0, 1.0]), (3, [-2.1179, 2.2489])])
def test_black_and_white_after_normalisation(channels: int, expected: list[float]) -> None:
    normalize = Normalize(channels)
    got = [normalize(torch.full((1, channels, 1, 1), v))[0, 0].item() for v in (0.0, 1.0)]
    assert got == pytest.approx(expected, abs=1e-4)
