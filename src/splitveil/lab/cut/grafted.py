"""A split with something new on either side of the wire: what a funnel or a choice of channels does to both halves."""

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut.costs import FP32_BYTES, largest_step, module_macs, numel
from splitveil.lab.cut.pieces import Split


def graft(split: Split, on_edge: nn.Module, on_cloud: nn.Module, shorter: Split | None = None) -> Split:
    """Put `on_edge` behind the edge half and `on_cloud` before the cloud half; the costs of the cut follow.

    Args:
        split: its modules are used, not copied.
        on_edge: (N, *cut) -> (N, *new); of the shorter edge's features where there is one.
        on_cloud: (N, *new) -> (N, *cut).
        shorter: the edge half cut again; its edge takes the place of the split's, and what it cuts off is dropped.

    Raises:
        InputError: `on_cloud` does not give back the shape that the cloud half takes.
    """
    cut, edge = split.cut, split if shorter is None else shorter
    like = next(split.edge.parameters(), torch.zeros(()))
    on_edge.to(like.device).eval()
    on_cloud.to(like.device).eval()
    z = torch.zeros(2, *edge.cut.shape, device=like.device)
    with torch.no_grad():
        sent = on_edge(z)
        back = on_cloud(sent)
    if back.shape[1:] != cut.shape:
        raise InputError(
            f"expected the cloud's part to give {cut.shape}, got {tuple(back.shape[1:])}; let it end where the cut did."
        )
    shape = tuple(sent.shape[1:])
    edge_macs = edge.cut.edge_macs + module_macs(on_edge, edge.cut.shape, z)
    cloud_macs = cut.cloud_macs + module_macs(on_cloud, shape, z)
    changed = cut.model_copy(
        update={
            "shape": shape,
            "bytes_fp32": FP32_BYTES * numel(shape),
            "bytes_u8": numel(shape),
            "edge_macs": edge_macs,
            "cloud_macs": cloud_macs,
            "edge_params": edge.cut.edge_params + _parameters(on_edge),
            "cloud_params": cut.cloud_params + _parameters(on_cloud),
            "edge_share": edge_macs / max(1, edge_macs + cloud_macs),
            "edge_peak_bytes": max(edge.cut.edge_peak_bytes, largest_step(on_edge, z[:1])),
        }
    )
    return Split(nn.Sequential(edge.edge, on_edge), nn.Sequential(on_cloud, split.cloud), changed, split.image)


def _parameters(module: nn.Module) -> int:
    counted: list[Tensor] = list(module.parameters())
    return sum(p.numel() for p in counted)
