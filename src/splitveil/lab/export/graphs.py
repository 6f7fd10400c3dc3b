"""What is exported: each half with its share of defence and codec around it."""

from torch import Tensor, nn

from splitveil.lab.defenses.base import Defense
from splitveil.wire.codecs import Codec


class EdgeGraph(nn.Module):
    """What runs on the device: x (N, C, H, W) in [0, 1], noise (N, *drawn) -> packed codes, as they cross the wire."""

    def __init__(self, edge: nn.Module, defense: Defense, codec: Codec) -> None:
        super().__init__()
        self.edge, self.defense, self.codec = edge, defense, codec

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        packed: Tensor = self.codec.pack(self.codec.encode(self.defense.apply_noise(self.edge(x), noise)))
        return packed


class Sent(nn.Module):
    """The same before the codec: x (N, C, H, W) in [0, 1], noise (N, *drawn) -> features (N, *cut)."""

    def __init__(self, edge: nn.Module, defense: Defense) -> None:
        super().__init__()
        self.edge, self.defense = edge, defense

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.defense.apply_noise(self.edge(x), noise)


class CloudGraph(nn.Module):
    """What runs on the server: packed codes, as they crossed -> logits (N, K). shape: of one sample's features."""

    def __init__(self, cloud: nn.Module, codec: Codec, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.cloud, self.codec, self.shape = cloud, codec, shape

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.cloud(self.codec.decode(self.codec.unpack(z, self.shape)))
        return logits
