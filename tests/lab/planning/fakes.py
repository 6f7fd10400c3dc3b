"""Tables in place of trainings and attacks."""

from collections.abc import Mapping

from splitveil.core.records import Figure
from splitveil.lab.planning.search import Known, Search
from splitveil.lab.planning.space import Option


def option(depth: int, strength: float = 0.5, family: str = "noise") -> Option:
    spec = "none" if family == "none" else f"{family}:sigma={strength}"
    return Option(depth, f"cut{depth}", spec, "raw", family, 0.0 if family == "none" else strength)


def counted(values: Mapping[str, float]) -> dict[str, Figure]:
    return {name: Figure(value=float(v), measured=True, source="counted") for name, v in values.items()}


def measured(accuracy: float, ssim: float, half: float = 0.0) -> dict[str, Figure]:
    """An undefended model has accuracy 1."""
    found = counted(
        {"accuracy": accuracy, "accuracy_drop": 100 * (1 - accuracy), "ssim_worst": ssim, "psnr": 40 * ssim}
    )
    interval = (ssim - half, ssim + half)
    return {**found, "ssim": Figure(value=ssim, measured=True, source="attack", interval=interval)}


def known(o: Option, *, proxy: float = 0.5, accuracy: float = 0.9) -> Known:
    costs = counted({"edge_macs": 1000.0 * (1 + o.depth), "payload": 64, "edge_bytes": 400, "edge_memory": 256})
    return Known(o, costs, proxy={"accuracy": accuracy, "ssim": proxy, "ssim_worst": proxy, "psnr": 40 * proxy})


def search_of(all_known: list[Known], limits: Mapping[str, float]) -> Search:
    return Search(all_known, limits, 1.0)
