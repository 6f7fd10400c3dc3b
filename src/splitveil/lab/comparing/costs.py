"""What a protected split asks of the device and of the wire."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitveil.lab.cut.costs import module_macs, numel
from splitveil.lab.defenses.base import Protected


@dataclass(frozen=True, slots=True)
class EdgeCost:
    """What one request costs on the device and on the wire.

    Attributes:
        macs: multiply-accumulates of edge half and defence.
        params: of both, each once.
        payload: bytes that cross, without protocol headers.
    """

    macs: int
    params: int
    payload: int


class _Device(nn.Module):
    def __init__(self, protected: Protected) -> None:
        super().__init__()
        self.edge, self.defense = protected.split.edge, protected.defense

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.defense(self.edge(x))
        return z


def edge_cost(protected: Protected, image: tuple[int, ...]) -> EdgeCost:
    """Costs with the defence's own modules. image: (C, H, W)."""
    device = _Device(protected).eval()
    elements = numel(protected.split.cut.shape)
    return EdgeCost(
        macs=module_macs(device, image, torch.zeros(())),
        params=sum(p.numel() for p in device.parameters()),
        payload=protected.codec.payload_bytes(elements),
    )
