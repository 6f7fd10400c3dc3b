import torch
from torch import Tensor, nn

from splitveil.lab.cut import cuts
from splitveil.lab.models.resnet import resnet20


def test_resnet20_by_hand() -> None:
    stem = 32 * 32 * 16 * 3 * 9
    stages = [
        32 * 32 * 6 * 16 * 16 * 9,
        16 * 16 * 9 * (16 * 32 + 5 * 32 * 32),
        8 * 8 * 9 * (32 * 64 + 5 * 64 * 64),
    ]
    total = stem + sum(stages) + 64 * 10
    found = {c.name: c for c in cuts(resnet20(), torch.rand(1, 3, 32, 32))}
    assert total == 40_551_040  # the 40.6 million that is quoted for this net
    assert all(c.edge_macs + c.cloud_macs == total for c in found.values())
    assert [found[f"layer{i}"].edge_macs for i in (1, 2, 3)] == [stem + sum(stages[:i]) for i in (1, 2, 3)]
    assert all(c.edge_params + c.cloud_params == 269_722 for c in found.values())
    assert found["bn1"].edge_params == 16 * 27 + 32
    assert found["layer3+mean"].cloud_params == 650
    assert found["layer2"].bytes_fp32 == 4 * 32 * 16 * 16
    assert found["layer2"].bytes_u8 == 32 * 16 * 16
    assert found["layer2"].edge_share == found["layer2"].edge_macs / total
    # The second block of stage 1 adds its input to what it computed from it: three maps of 64 KiB at a time.
    assert found["layer1.1"].edge_peak_bytes == 3 * 4 * 16 * 32 * 32
    assert found["conv1"].edge_peak_bytes == 4 * (3 + 16) * 32 * 32


def test_views_take_no_memory_twice() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Unflatten(1, (2, 4, 4)), nn.Conv2d(2, 8, 1), nn.Flatten())
    first, second = cuts(nn.Sequential(*net, nn.Linear(128, 2)), torch.rand(1, 2, 4, 4))
    assert (first.name, first.also) == ("0", ("1", "2"))
    assert first.edge_peak_bytes == 4 * (32 + 32)
    assert second.edge_peak_bytes == 4 * (32 + 128)


def test_grouped_convolution_and_attention_count() -> None:
    class Attentive(nn.Module):
        def __init__(self, *, fused: bool) -> None:
            super().__init__()
            self.fused = fused
            self.conv = nn.Conv2d(4, 8, 3, padding=1, groups=4)
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
            self.qkv = nn.Linear(8, 24)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            t = self.conv(x).flatten(2).transpose(1, 2)
            if self.fused:
                q, k, v = self.qkv(t).view(x.shape[0], 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
                t = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape[0], 16, 8)
            else:
                t, _ = self.attend(t, t, t, need_weights=False)
            logits: Tensor = self.head(t.mean(1))
            return logits

    conv, products = 16 * 8 * 9, 2 * 16 * 16 * 8
    for fused, layers in ((True, 16 * 8 * 24), (False, 16 * 8 * 32)):
        found = cuts(Attentive(fused=fused), torch.rand(1, 4, 4, 4))
        assert found[0].edge_macs == conv
        assert found[-1].edge_macs == conv + layers + products
        assert found[-1].cloud_macs == 24
