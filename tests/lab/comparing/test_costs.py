from collections.abc import Callable

import pytest

from splitveil.lab.comparing.costs import edge_cost
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset
from splitveil.lab.protection import protect


@pytest.mark.parametrize("defense", ["none", "noise"])
def test_a_defence_without_modules_costs_what_the_cut_does(
    defense: str, data: Dataset, fresh: Callable[[int], Split]
) -> None:
    split = fresh(0)
    cost = edge_cost(protect(split, defense, "raw", data)[0], data.shape)
    elements = split.cut.bytes_u8
    assert (cost.macs, cost.params) == (split.cut.edge_macs, split.cut.edge_params)
    assert cost.payload == 4 * elements


def test_a_funnel_is_paid_for_on_the_device_and_saves_bytes(data: Dataset, fresh: Callable[[int], Split]) -> None:
    plain = fresh(0).cut
    protected = protect(fresh(0), "siftfunnel:channels=2", "uniform:bits=3", data)[0]
    cost = edge_cost(protected, data.shape)
    assert cost.macs > plain.edge_macs
    assert cost.params > plain.edge_params
    elements = 2 * plain.shape[1] * plain.shape[2]
    assert cost.payload == -(-elements * 3 // 8)


def test_what_a_defence_computes_itself_counts(data: Dataset, fresh: Callable[[int], Split]) -> None:
    """The bottleneck's heads are modules of the defence, not of the edge half."""
    split = fresh(0)
    protected = protect(split, "vib", "raw", data)[0]
    cost = edge_cost(protected, data.shape)
    own = sum(p.numel() for p in protected.defense.parameters())
    assert own
    assert cost.params == split.cut.edge_params + own
    assert cost.macs > split.cut.edge_macs
