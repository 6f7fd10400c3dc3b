import math

import pytest
import torch
import torch.nn.functional as F

from splitveil.core.errors import InputError
from splitveil.lab.defenses.parts.triplet import batch_hard_triplet

LINE = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
Y = torch.tensor([0, 0, 1, 1])
"""On a line: farthest positives 3, 3, 4, 4; nearest negatives 1, 2, 1, 2."""


def test_margin_by_hand() -> None:
    assert batch_hard_triplet(LINE, Y, margin=0.5).item() == pytest.approx((2.5 + 1.5 + 3.5 + 2.5) / 4)
    apart = torch.tensor([[0.0], [0.1], [9.0], [9.2]])
    assert batch_hard_triplet(apart, Y, margin=1.0).item() == 0


def test_soft_margin_by_hand() -> None:
    wanted = sum(math.log1p(math.exp(gap)) for gap in (2, 1, 3, 2)) / 4
    assert batch_hard_triplet(LINE, Y).item() == pytest.approx(wanted, rel=1e-6)


def test_anchors_without_a_positive_or_a_negative_do_not_count() -> None:
    alone = torch.cat([LINE, torch.tensor([[50.0, 0.0]])])
    assert batch_hard_triplet(alone, torch.tensor([0, 0, 1, 1, 2]), margin=0.5).item() == pytest.approx(2.5)
    for y in (torch.arange(4), torch.zeros(4, dtype=torch.long)):
        z = LINE.clone().requires_grad_()
        loss = batch_hard_triplet(z, y, margin=0.5)
        loss.backward()
        assert loss.item() == 0
        assert z.grad is not None
        assert not z.grad.any()


def test_gradients_are_finite_where_embeddings_are_equal_and_draw_identities_apart() -> None:
    z = torch.zeros(4, 3, requires_grad=True)
    batch_hard_triplet(z, Y, margin=0.2).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.arange(16) % 4
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        batch_hard_triplet(F.normalize(z, dim=1), y, margin=0.3).backward()
        optimizer.step()
    near = torch.cdist(F.normalize(z, dim=1), F.normalize(z, dim=1)) + 9 * torch.eye(16)
    assert (y[near.argmin(1)] == y).all()


def test_mistakes_are_explained() -> None:
    with pytest.raises(InputError, match=r"got \(4, 2\), \(3,\) and 0.3; use margin=0.3"):
        batch_hard_triplet(LINE, Y[:3], margin=0.3)
    with pytest.raises(InputError, match=r"a margin of at least 0"):
        batch_hard_triplet(LINE, Y, margin=-1.0)
