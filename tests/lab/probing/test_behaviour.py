"""Well-behaved nets raise no alarm, and probing leaves no trace."""

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.cut.capture import no_fast_path
from splitveil.lab.models import MODELS
from splitveil.lab.models.loader import load_model
from splitveil.lab.probing import Findings, draws, probe

ZOO = [(name, (1, 28, 28) if name == "lenet5" else (3, 32, 32)) for name in MODELS.names()]
TIMM = [
    "levit_128s", "mobilevit_xxs", "repvit_m0_9", "xcit_nano_12_p8_224", "lambda_resnet26t", "halonet26t",
    "deit_tiny_distilled_patch16_224", "edgenext_xx_small", "tiny_vit_5m_224", "mobilenetv4_conv_small",
    "ghostnetv2_100", "hgnetv2_b0", "fastvit_t8",
]  # fmt: skip


def found(spec: str, shape: tuple[int, int, int] | None) -> Findings:
    loaded = load_model(spec, shape=shape, classes=None, weights=None)
    with no_fast_path():
        return probe(loaded.model, (torch.rand(3, *loaded.shape),), images=True)


@pytest.mark.parametrize(("name", "shape"), ZOO)
def test_no_alarm_in_the_zoo(name: str, shape: tuple[int, int, int]) -> None:
    assert found(name, shape) == Findings()


@pytest.mark.long
@pytest.mark.parametrize("spec", [*(f"timm:{name}" for name in TIMM), "torchvision:googlenet"])
def test_no_alarm_elsewhere(spec: str) -> None:
    assert found(spec, None) == Findings()


class Counting(nn.Module):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        self.calls += 1
        return x.flatten(1) + noise


def test_several_inputs_and_nothing_left_behind() -> None:
    net, state = Counting().eval(), torch.get_rng_state()
    inputs = torch.rand(3, 1, 2, 2), torch.randn(3, 4)
    state = torch.get_rng_state()
    assert probe(net, inputs, images=True) == Findings()
    assert not net.calls.any()
    assert torch.equal(torch.get_rng_state(), state)
    assert not draws(nn.Dropout().eval(), inputs[0])
    assert draws(nn.Dropout(), inputs[0])
