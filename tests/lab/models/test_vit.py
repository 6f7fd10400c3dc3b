import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, layer_norm

from splitveil.lab.cut import trace
from splitveil.lab.models.vit import Attention, VisionTransformer


def test_attention_is_torchs_own() -> None:
    torch.manual_seed(0)
    own, reference = Attention(12, 3), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    reference.in_proj_weight.data.copy_(own.qkv.weight.data)
    reference.in_proj_bias.data.copy_(own.qkv.bias.data)
    reference.out_proj.load_state_dict(own.proj.state_dict())
    x = torch.randn(2, 5, 12)
    assert torch.allclose(own(x), reference(x, x, x, need_weights=False)[0], atol=1e-6)


def test_it_can_be_cut_after_every_block_into_halves_that_train() -> None:
    traced = trace(VisionTransformer((3, 16, 16), 5, 4, 12, 3, 3).eval(), torch.zeros(2, 3, 16, 16))
    # What fx follows keeps the model's own layers.
    assert (traced.tracer, traced.why) == ("fx", "")
    shapes = {c.name: c.shape for c in traced.cuts()}
    assert {shapes[name] for name in ("blocks.0", "blocks.1", "blocks")} == {(16, 12)}
    assert shapes["norm+mean"] == (12,)


def test_every_token_counts_the_same_and_knows_its_place() -> None:
    torch.manual_seed(1)
    net = VisionTransformer((1, 8, 8), 3, 4, 12, 2, 3).eval()
    x = torch.rand(1, 1, 8, 8)
    swapped = torch.cat([x[..., 4:], x[..., :4]], 3)

    def answer(image: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = net(image)
        return out

    assert not torch.allclose(answer(x), answer(swapped), atol=1e-5)
    net.position.data.zero_()
    assert torch.allclose(answer(x), answer(swapped), atol=1e-5)


def test_it_learns() -> None:
    torch.manual_seed(2)
    net = VisionTransformer((1, 8, 8), 2, 4, 12, 2, 3)
    x = torch.rand(64, 1, 8, 8)
    y = (layer_norm(x, (1, 8, 8))[:, 0, 0, 0] > 0).long()
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    first = last = 0.0
    for step in range(60):
        optimiser.zero_grad()
        loss = cross_entropy(net(x), y)
        loss.backward()
        optimiser.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < first / 2
