"""Nets of our own, of torchvision and of timm: cuts at both ends, in the middle and drawn at random are exact."""

import importlib
import random
from collections.abc import Iterator

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import nn

from splitveil.lab.cut import Traced, trace
from splitveil.lab.cut.capture import no_fast_path
from splitveil.lab.vision import timm, torchvision

from .nets import lively

OWN = [
    ("splitveil.lab.models.lenet:lenet5", (1, 28, 28), 6),
    ("splitveil.lab.models.he:cnn6", (3, 16, 16), 6),
    ("splitveil.lab.models.vgg:vgg11", (3, 32, 32), 12),
    ("splitveil.lab.models.vgg:vgg16", (3, 32, 32), 20),
    ("splitveil.lab.models.alexnet:alex_net", (3, 32, 32), 8),
    ("splitveil.lab.models.mobilenet:mobilenetv2", (3, 16, 16), 40),
    ("splitveil.lab.models.resnet:resnet20", (3, 16, 16), 20),
    ("splitveil.lab.models.resnet:resnet56", (3, 16, 16), 50),
    ("splitveil.lab.models.resnet:resnet18", (3, 16, 16), 18),
    ("splitveil.lab.models.small:small_net", (3, 16, 16), 3),
]
SMALL_VIT: dict[str, object] = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 3,
    "num_heads": 2,
    "hidden_dim": 32,
    "mlp_dim": 64,
}
TORCHVISION: list[tuple[str, dict[str, object], int, int]] = [
    ("resnet18", {}, 32, 20),
    ("resnet50", {}, 32, 36),
    ("vgg16_bn", {"num_classes": 10}, 32, 40),
    ("mobilenet_v3_small", {}, 64, 50),
    ("efficientnet_b0", {}, 32, 60),
    ("densenet121", {}, 32, 20),
    ("convnext_tiny", {}, 32, 22),
    ("swin_t", {}, 32, 30),
    ("regnet_y_400mf", {}, 32, 34),
    ("googlenet", {"init_weights": False, "aux_logits": False}, 32, 16),
    ("VisionTransformer", SMALL_VIT, 32, 10),
]
TIMM: list[tuple[str, dict[str, object], int, int]] = [
    ("vit_tiny_patch16_224", {"img_size": 32, "depth": 4}, 32, 12),
    ("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 2, "depths": (2, 2, 2, 2)}, 32, 22),
    ("resnet18", {}, 32, 20),
    ("mobilenetv3_small_100", {}, 32, 44),
    ("mobilevit_xxs", {}, 32, 40),
]
FURTHER: list[tuple[str, dict[str, object], int, int]] = [
    ("levit_128s", {}, 224, 36),
    ("mobilevitv2_050", {}, 64, 70),
    ("fastvit_t8", {}, 64, 34),
    ("repvit_m0_9", {}, 64, 90),
    ("xcit_nano_12_p16_224", {}, 64, 50),
    ("halonet26t", {}, 256, 20),
    ("lambda_resnet26t", {"img_size": 64}, 64, 20),
    ("deit_tiny_distilled_patch16_224", {"img_size": 32}, 32, 24),
    ("efficientformerv2_s0", {}, 224, 25),
    ("edgenext_xx_small", {}, 64, 20),
    ("tiny_vit_5m_224", {}, 224, 20),
    ("mobilenetv4_conv_small_050", {}, 64, 36),
    ("ghostnetv2_100", {}, 64, 20),
    ("hgnetv2_b0", {}, 64, 60),
    ("inception_next_atto", {}, 64, 20),
    ("maxvit_tiny_tf_224", {"img_size": 64}, 64, 55),
    ("torchvision:googlenet", {"init_weights": False}, 64, 20),
    ("torchvision:inception_v3", {"init_weights": False, "aux_logits": False}, 96, 16),
    ("torchvision:shufflenet_v2_x0_5", {}, 64, 20),
]
"""Cut in the middle only: one network of each idea that the tables above lack."""
BY_EXPORT = {"mobilevit_xxs", "mobilevitv2_050", "tiny_vit_5m_224"}
SLOW = {"vgg16", "resnet56", "resnet50", "vgg16_bn", "efficientnet_b0", "swin_t", "regnet_y_400mf", "googlenet"}


def cases(*rows: tuple[object, ...]) -> list[ParameterSet]:
    """One case a row under the net's name."""
    names = [str(row[0]).rpartition(":")[2] for row in rows]
    return [
        pytest.param(*row, id=name, marks=[pytest.mark.long] if name in SLOW else [])
        for name, row in zip(names, rows, strict=True)
    ]


def check(model: nn.Module, shape: tuple[int, int, int], floor: int) -> Traced:
    lively(model, shape)
    traced, whole = trace(model, torch.rand(1, *shape)), model.state_dict()
    cuts = traced.cuts()
    work = [c.edge_macs for c in cuts]
    assert len(cuts) >= floor
    assert len({c.name for c in cuts}) == len(cuts)
    assert work == sorted(work)
    assert len({c.edge_macs + c.cloud_macs for c in cuts}) == 1
    assert len({c.edge_params + c.cloud_params for c in cuts}) == 1
    inner = random.Random(0).sample(range(1, len(cuts) - 1), 1)
    inputs = [torch.rand(n, *shape) for n in (1, 3)]
    with torch.no_grad():
        expected = [model(x) for x in inputs]
        assert all(out.std() > 1e-3 for out in expected)
        for index in {0, len(cuts) // 2, len(cuts) - 1, *inner}:
            halves = traced.split(cuts[index].name)
            edge, cloud = halves.edge.state_dict(), halves.cloud.state_dict()
            assert edge.keys().isdisjoint(cloud)
            counters = {k for k in whole if k.endswith("num_batches_tracked")} if traced.tracer != "fx" else set()
            assert edge.keys() | cloud.keys() == whole.keys() - counters
            assert cuts[index].edge_params == sum(p.numel() for p in halves.edge.parameters())
            for x, out in zip(inputs, expected, strict=True):
                z = halves.edge(x)
                assert z.shape == (len(x), *cuts[index].shape)
                assert torch.equal(halves.cloud(z), out)
    return traced


@pytest.fixture(autouse=True)
def _seeded_plain_attention() -> Iterator[None]:
    """The fused attention kernel of nn.MultiheadAttention has other last bits than the plain operations."""
    torch.manual_seed(0)
    with no_fast_path():
        yield


@pytest.mark.parametrize(("source", "shape", "floor"), cases(*OWN))
def test_own_nets(source: str, shape: tuple[int, int, int], floor: int) -> None:
    module, _, name = source.partition(":")
    assert check(getattr(importlib.import_module(module), name)(shape=shape, classes=10), shape, floor).tracer == "fx"


@pytest.mark.parametrize(("name", "options", "side", "floor"), cases(*TORCHVISION))
def test_torchvision(name: str, options: dict[str, object], side: int, floor: int) -> None:
    net = getattr(torchvision().models, name)(**options)
    assert check(net, (3, side, side), floor).tracer == "fx"


@pytest.mark.parametrize(("name", "options", "side", "floor"), cases(*TIMM))
def test_timm(name: str, options: dict[str, object], side: int, floor: int) -> None:
    net = timm().create_model(name, pretrained=False, **options)
    assert check(net, (3, side, side), floor).tracer == ("export" if name in BY_EXPORT else "fx")


@pytest.mark.long
@pytest.mark.parametrize(("name", "options", "side", "floor"), cases(*FURTHER))
def test_further_architectures_are_cut_in_the_middle(
    name: str, options: dict[str, object], side: int, floor: int
) -> None:
    library, _, own = name.rpartition(":")
    if library:
        net = getattr(torchvision().models, own)(**options)
    else:
        net = timm().create_model(name, pretrained=False, **options)
    shape = (3, side, side)
    lively(net, shape)
    traced = trace(net, torch.rand(1, *shape))
    cuts = traced.cuts()
    assert traced.tracer == ("export" if own in BY_EXPORT else "fx")
    assert len(cuts) >= floor
    middle = min(cuts, key=lambda c: abs(c.edge_share - 0.5))
    assert 0.4 < middle.edge_share < 0.6
    halves = traced.split(middle.name)
    with torch.no_grad():
        for n in (1, 3):
            x = torch.rand(n, *shape)
            expected = net(x)
            assert expected.std() > 1e-3
            z = halves.edge(x)
            assert z.shape == (n, *middle.shape)
            assert torch.equal(halves.cloud(z), expected)
