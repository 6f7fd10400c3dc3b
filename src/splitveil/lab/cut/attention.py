"""torch's attention blocks so that a tracer sees their layers: without the fused inference kernels, mask tests done.

The fused kernels (``torch.backends.mha``) round otherwise: what is computed here equals torch bit for bit where its
fast path is off, and is within 1e-6 of it where it is on. Nothing else differs, and dropout still follows training.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


class PlainAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention by its plain operations, fast path or not. Arguments, results and weights are the same."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """query: (N, L, E), (L, N, E) or (L, E); key, value: the same with S for L -> (as query, weights or None)."""
        turned = self.batch_first and query.dim() == 3
        if turned:
            # One tensor must stay one tensor: torch projects q, k and v together only where they are the same object.
            swapped = {id(t): t.transpose(0, 1) for t in (query, key, value)}
            query, key, value = (swapped[id(t)] for t in (query, key, value))
        apart = not self._qkv_same_embed_dim
        out, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=apart,
            q_proj_weight=self.q_proj_weight if apart else None,
            k_proj_weight=self.k_proj_weight if apart else None,
            v_proj_weight=self.v_proj_weight if apart else None,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return (out.transpose(0, 1) if turned else out), weights


def without_fast_path(model: nn.Module) -> None:
    """Turn every nn.MultiheadAttention inside into a PlainAttention, in place."""
    for module in model.modules():
        if type(module) is nn.MultiheadAttention:
            module.__class__ = PlainAttention


def opened(module: nn.Module) -> Callable[..., Any] | None:
    """What a block of torch's transformers calls, for a tracer to follow; None where `module` is none of those."""
    for kind, forward in FORWARDS.items():
        if type(module).forward is kind.forward:
            return lambda *args, **kwargs: forward(module, *args, **kwargs)
    return None


def _encoder(
    encoder: Any,
    src: Tensor,
    mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool | None = None,
) -> Tensor:
    causal = _is_causal(mask, is_causal)
    for layer in encoder.layers:
        src = layer(src, src_mask=mask, is_causal=causal, src_key_padding_mask=src_key_padding_mask)
    return src if encoder.norm is None else cast(Tensor, encoder.norm(src))


def _decoder(
    decoder: Any,
    tgt: Tensor,
    memory: Tensor,
    tgt_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    tgt_key_padding_mask: Tensor | None = None,
    memory_key_padding_mask: Tensor | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> Tensor:
    masks = {
        "tgt_mask": tgt_mask,
        "memory_mask": memory_mask,
        "tgt_key_padding_mask": tgt_key_padding_mask,
        "memory_key_padding_mask": memory_key_padding_mask,
        "tgt_is_causal": _is_causal(tgt_mask, tgt_is_causal),
        "memory_is_causal": memory_is_causal,
    }
    for layer in decoder.layers:
        tgt = layer(tgt, memory, **masks)
    return tgt if decoder.norm is None else cast(Tensor, decoder.norm(tgt))


def _encoder_layer(
    layer: Any,
    src: Tensor,
    src_mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    def attend(x: Tensor) -> Tensor:
        return cast(Tensor, layer._sa_block(x, src_mask, src_key_padding_mask, is_causal=is_causal))

    return _residual(layer.norm_first, src, (layer.norm1, attend), (layer.norm2, layer._ff_block))


def _decoder_layer(
    layer: Any,
    tgt: Tensor,
    memory: Tensor,
    tgt_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    tgt_key_padding_mask: Tensor | None = None,
    memory_key_padding_mask: Tensor | None = None,
    tgt_is_causal: bool = False,
    memory_is_causal: bool = False,
) -> Tensor:
    def attend(x: Tensor) -> Tensor:
        return cast(Tensor, layer._sa_block(x, tgt_mask, tgt_key_padding_mask, tgt_is_causal))

    def look(x: Tensor) -> Tensor:
        return cast(Tensor, layer._mha_block(x, memory, memory_mask, memory_key_padding_mask, memory_is_causal))

    steps = (layer.norm1, attend), (layer.norm2, look), (layer.norm3, layer._ff_block)
    return _residual(layer.norm_first, tgt, *steps)


def _transformer(
    transformer: Any,
    src: Tensor,
    tgt: Tensor,
    src_mask: Tensor | None = None,
    tgt_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    tgt_key_padding_mask: Tensor | None = None,
    memory_key_padding_mask: Tensor | None = None,
    src_is_causal: bool | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> Tensor:
    memory = transformer.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
    out = transformer.decoder(
        tgt,
        memory,
        tgt_mask=tgt_mask,
        memory_mask=memory_mask,
        tgt_key_padding_mask=tgt_key_padding_mask,
        memory_key_padding_mask=memory_key_padding_mask,
        tgt_is_causal=tgt_is_causal,
        memory_is_causal=memory_is_causal,
    )
    return cast(Tensor, out)


def _residual(norm_first: bool, x: Tensor, *steps: tuple[nn.Module, Callable[[Tensor], Tensor]]) -> Tensor:
    for norm, step in steps:
        x = x + step(norm(x)) if norm_first else norm(x + step(x))
    return x


def _is_causal(mask: Any, told: bool | None) -> bool:
    """Torch's own rule: as told; else whether the mask hides exactly what comes later."""
    if told is not None or mask is None:
        return told is True
    mask = _value(mask) if isinstance(mask, fx.Proxy) else mask
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        return False
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill(mask, float("-inf"))
    return torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1))


def _value(proxy: fx.Proxy) -> Tensor:
    """What a proxy stands for, if that follows from the model's own tensors alone."""

    def find(node: fx.Node) -> Any:
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            owner = cast(Any, proxy.tracer).root.get_submodule(path)
            # Not by getattr, which the tracer watches.
            return next(v[name] for v in (owner._buffers, owner._parameters, owner.__dict__) if name in v).detach()
        if node.op not in ("call_function", "call_method"):
            raise fx.proxy.TraceError("an attention mask that follows from the image")
        args, kwargs = fx.map_arg((node.args, node.kwargs), find)
        call = getattr(args[0], str(node.target)) if node.op == "call_method" else cast(Any, node.target)
        return call(*args[node.op == "call_method" :], **kwargs)

    return cast(Tensor, find(proxy.node))


FORWARDS: Mapping[Any, Callable[..., Tensor]] = {
    nn.TransformerEncoder: _encoder,
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerDecoder: _decoder,
    nn.TransformerDecoderLayer: _decoder_layer,
    nn.Transformer: _transformer,
}
