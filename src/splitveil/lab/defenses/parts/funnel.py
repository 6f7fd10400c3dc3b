"""SiftFunnel's two modules: the funnel that ends the edge half, the expansion that begins the cloud half.

After Liu et al. 2025 (arXiv 2501.00824) and its released nets.
"""

from torch import Tensor, nn

from splitveil.core.errors import CutError
from splitveil.lab.cut import Split, trace
from splitveil.lab.defenses.parts.attention import BlockAttention, SqueezeExcitation, TripletAttention

REDUCTION = 32
"""Of the squeeze-excitation before the funnel, the same in all three published nets."""


class Funnel(nn.Module):
    """The published edge end for any cut: attention, 1x1 down, small convolutions, attention.

    Squeeze-excitation and triplet attention; 1x1 to a quarter with BatchNorm and ReLU; pooling; 1x1 to `sent`, 3x3,
    SiLU, 1x1, 3x3, 5x5, ReLU; squeeze-excitation and CBAM. (N, C, h, w) -> (N, sent, h / pool, w / pool). Hidden widths
    of the last two follow from `sent` by the rule that gives the published ones for 12, 6 and 4 (our reading).

    Args:
        channels: C.
        sent: channels that cross.
        pool: 2 for the published CNN, whose funnel halves the resolution; 1 for its ResNet and VGG.
    """

    def __init__(self, channels: int, sent: int, pool: int) -> None:
        super().__init__()
        quarter, hidden = max(sent, channels // 4), max(1, (sent + 2) // 4)
        self.first = nn.Sequential(SqueezeExcitation(channels, REDUCTION), TripletAttention())
        self.down = nn.Sequential(
            nn.Conv2d(channels, quarter, 1), nn.BatchNorm2d(quarter), nn.ReLU(),
            nn.MaxPool2d(pool) if pool > 1 else nn.Identity(),
            nn.Conv2d(quarter, sent, 1), nn.Conv2d(sent, sent, 3, 1, 1), nn.SiLU(),
            nn.Conv2d(sent, sent, 1), nn.Conv2d(sent, sent, 3, 1, 1), nn.Conv2d(sent, sent, 5, 1, 2), nn.ReLU(),
        )  # fmt: skip
        self.last = nn.Sequential(
            SqueezeExcitation(sent, max(1, sent // hidden)), BlockAttention(sent, max(1, sent // min(2, hidden)))
        )

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.last(self.down(self.first(z)))
        return out


class Expansion(nn.Module):
    """The cloud's up-sampling module, which expands channels: two 3x3 convolutions, BatchNorm, ReLU, triplet attention.

    Args:
        sent: channels that crossed.
        channels: C, which the cloud half takes.
        pool: by how much z is smaller than the cut; resolution is brought back by repetition.
    """

    def __init__(self, sent: int, channels: int, pool: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Upsample(scale_factor=pool) if pool > 1 else nn.Identity(),
            nn.Conv2d(sent, channels, 3, 1, 1, bias=False), nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU(), TripletAttention(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.net(z)
        return out


def without_last_stages(split: Split, halvings: int) -> Split | None:
    """The edge half cut again where its maps had ``2 ** halvings`` times the resolution of the cut, its rest dropped.

    Of the cuts at that resolution it is the last one before the next multiplication: behind the pooling, normalisation
    and activation that the stage before ends with, ahead of the first convolution of the stage that is dropped.

    Returns:
        A split of the edge half (its cloud is what is dropped); None where the edge half has no such place, cannot be
        traced, or the shape of its images is not known.
    """
    if not split.image or len(split.cut.shape) != 3:
        return None
    size = tuple(side * 2**halvings for side in split.cut.shape[1:])
    like = next(split.edge.parameters())
    try:
        traced = trace(split.edge, like.new_zeros(1, *split.image))
        found = [cut for cut in traced.cuts() if cut.shape[1:] == size]
        if not found:
            return None
        least = min(cut.edge_macs for cut in found)
        return traced.split([cut for cut in found if cut.edge_macs == least][-1].name)
    except CutError:
        return None
