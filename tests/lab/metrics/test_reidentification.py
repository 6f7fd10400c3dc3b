import pytest
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.reidentification import identify

DRAWS = torch.Generator().manual_seed(0)
Q, G, D, PEOPLE = 30, 80, 6, 12
QUERIES, GALLERY = torch.randn(Q, D, generator=DRAWS), torch.randn(G, D, generator=DRAWS)
QUERY_IDS, GALLERY_IDS = (torch.randint(PEOPLE, (n,), generator=DRAWS) for n in (Q, G))
QUERY_CAMERAS, GALLERY_CAMERAS = (torch.randint(2, (n,), generator=DRAWS) for n in (Q, G))


def by_brute_force(*, cameras: bool) -> tuple[list[int], list[float], list[int]]:
    """Query by query, entry by entry."""
    places, precisions, kept = [], [], []
    for q in range(Q):
        entries = []
        for g in range(G):
            same = bool(QUERY_IDS[q] == GALLERY_IDS[g])
            if cameras and same and QUERY_CAMERAS[q] == GALLERY_CAMERAS[g]:
                continue
            cosine = float(QUERIES[q].double() @ GALLERY[g].double() / GALLERY[g].double().norm())
            entries.append((-cosine, g, same))
        entries.sort()
        right = [place for place, (_, _, same) in enumerate(entries) if same]
        if right:
            kept.append(q)
            places.append(right[0])
            precisions.append(sum((i + 1) / (place + 1) for i, place in enumerate(right)) / len(right))
    return places, precisions, kept


@pytest.mark.parametrize("cameras", [False, True])
def test_equals_brute_force(cameras: bool) -> None:
    given: dict[str, Tensor] = {}
    if cameras:
        given = {"query_cameras": QUERY_CAMERAS, "gallery_cameras": GALLERY_CAMERAS}
    found = identify(QUERIES, GALLERY, query_ids=QUERY_IDS, gallery_ids=GALLERY_IDS, **given)
    places, precisions, kept = by_brute_force(cameras=cameras)
    assert found.kept.tolist() == kept
    assert found.place.tolist() == places
    assert found.precision.tolist() == pytest.approx(precisions)
    assert found.mean_average_precision == pytest.approx(sum(precisions) / len(kept))
    for k in (1, 5, 10):
        assert found.rank(k) == found.ranks()[k] == pytest.approx(sum(p < k for p in places) / len(kept))


def test_perfect_and_hopeless() -> None:
    eye, ids = torch.eye(5), torch.arange(5)
    assert identify(eye, eye, query_ids=ids, gallery_ids=ids).rank(1) == 1
    opposite = identify(-eye, eye, query_ids=ids, gallery_ids=ids)
    assert opposite.rank(1) == 0
    assert opposite.rank(5) == 1
    assert opposite.mean_average_precision == pytest.approx(1 / 5)
    assert opposite.chance == pytest.approx(1 / 5)


def test_only_the_direction_counts() -> None:
    words = {"query_ids": QUERY_IDS, "gallery_ids": GALLERY_IDS}
    assert torch.equal(identify(QUERIES, GALLERY, **words).place, identify(10 * QUERIES, 0.1 * GALLERY, **words).place)


def test_queries_without_an_answer_are_not_counted() -> None:
    eye, ids = torch.eye(3), torch.tensor([0, 1, 9])
    found = identify(eye, eye, query_ids=ids, gallery_ids=torch.tensor([0, 1, 2]))
    assert found.kept.tolist() == [0, 1]
    assert found.rank(1) == 1
    with pytest.raises(InputError, match="widen the gallery"):
        identify(eye, eye, query_ids=ids + 10, gallery_ids=ids)


def test_bad_input() -> None:
    eye, ids = torch.eye(3), torch.arange(3)
    with pytest.raises(InputError, match="one embedder for both"):
        identify(eye, torch.eye(4), query_ids=ids, gallery_ids=torch.arange(4))
    with pytest.raises(InputError, match="give one an embedding"):
        identify(eye, eye, query_ids=ids, gallery_ids=ids[:2])
    with pytest.raises(InputError, match="both or neither"):
        identify(eye, eye, query_ids=ids, gallery_ids=ids, query_cameras=ids)
