"""Who is it: re-identification of reconstructions against a gallery of known identities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError

RANKS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Identified:
    """What a search found, one value for each query that has an answer in the gallery.

    Attributes:
        place: (q,) int64, how many wrong entries stand before the first right one; 0 is rank 1.
        precision: (q,) float64, average precision.
        kept: (q,) int64, which queries these are.
        chance: rank 1 of a random order of the gallery, mean over queries.
    """

    place: Tensor
    precision: Tensor
    kept: Tensor
    chance: float

    def rank(self, k: int) -> float:
        """Share of queries with a right entry among the first k: the cumulative match characteristic (CMC)."""
        return (self.place < k).double().mean().item()

    def ranks(self, at: Sequence[int] = RANKS) -> Mapping[int, float]:
        """`rank` at several k."""
        return {k: self.rank(k) for k in at}

    @property
    def mean_average_precision(self) -> float:
        """Mean average precision, mAP."""
        return self.precision.mean().item()


def identify(
    queries: Tensor,
    gallery: Tensor,
    *,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cameras: Tensor | None = None,
    gallery_cameras: Tensor | None = None,
) -> Identified:
    """Rank the gallery by cosine for each query and see where its identity stands.

    The protocol is that of Market-1501 (Zheng et al. 2015, section 5): with cameras, entries of the same identity from
    the same camera are left out, as finding them is no feat; queries without a right entry left are not counted.
    Average precision is the mean of the precision at each right entry, without interpolation (our reading; the
    published code takes trapezoids, which differ in the third digit). Equal similarities keep the gallery's order.

    Args:
        queries: (Q, D), embeddings of reconstructions.
        gallery: (G, D), embeddings of clean images.
        query_ids: (Q,) int64.
        gallery_ids: (G,) int64.
        query_cameras: (Q,) int64, or None.
        gallery_cameras: (G,) int64, or None.

    Raises:
        InputError: shapes that do not fit, cameras of one side only, or no query with an answer.
    """
    q, g = len(queries), len(gallery)
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"expected embeddings (Q, D) and (G, D), got {tuple(queries.shape)} and {tuple(gallery.shape)}; "
            "use one embedder for both."
        )
    if query_ids.shape != (q,) or gallery_ids.shape != (g,):
        raise InputError(
            f"expected identities ({q},) and ({g},), got {tuple(query_ids.shape)} and {tuple(gallery_ids.shape)}; "
            "give one an embedding."
        )
    right = query_ids[:, None] == gallery_ids[None]
    allowed = ~(right & _same_camera(q, g, query_cameras, gallery_cameras))
    right &= allowed
    kept = right.any(1).nonzero()[:, 0]
    if not len(kept):
        raise InputError("expected an entry of the same identity for a query, got none; widen the gallery.")
    near = F.normalize(queries.double(), dim=1) @ F.normalize(gallery.double(), dim=1).T
    # What is left out goes to the end, where it is neither right nor before anything right.
    order = near.masked_fill(~allowed, -torch.inf)[kept].argsort(dim=1, descending=True, stable=True)
    hits = right[kept].gather(1, order)
    counted = hits.double().cumsum(1)
    precision = counted / torch.arange(1, g + 1)
    average = (precision * hits).sum(1) / hits.sum(1)
    chance = (right[kept].sum(1).double() / allowed[kept].sum(1)).mean().item()
    return Identified(hits.double().argmax(1), average, kept, chance)


def _same_camera(q: int, g: int, queries: Tensor | None, gallery: Tensor | None) -> Tensor:
    """(Q, G) bool."""
    if queries is None and gallery is None:
        return torch.zeros(q, g, dtype=torch.bool)
    if queries is None or gallery is None or queries.shape != (q,) or gallery.shape != (g,):
        raise InputError(f"expected cameras ({q},) of queries and ({g},) of the gallery; give both or neither.")
    return queries[:, None] == gallery[None]
