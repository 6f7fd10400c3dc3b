"""How well a protected split still finds an identity in the images of other cameras: the task of re-identification."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.proportions import wilson
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.data import Dataset, Images
from splitveil.lab.data.base import Array
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.metrics.reidentification import identify
from splitveil.lab.seeds import derive
from splitveil.lab.tensors import classes_of

CHUNK = 256


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Utility, not leakage: larger is better.

    Attributes:
        map: mean average precision.
        rank1: share of queries whose first find is right.
        rank5: share of queries with a right find among the first five.
        chance: rank 1 of a random order of the gallery.
        n_queries: queries with an answer in the gallery.
        n_gallery: images searched.
        rank1_interval: 95 % over the queries (Wilson).
        rank5_interval: the same.
    """

    map: float
    rank1: float
    rank5: float
    chance: float
    n_queries: int
    n_gallery: int
    rank1_interval: tuple[float, float]
    rank5_interval: tuple[float, float]


class Noiseless(Protected):
    """A protected split that sends its features as they are before the noise: never what is deployed."""

    @classmethod
    def of(cls, protected: Protected) -> "Noiseless":
        """With the halves, defence and codec of `protected`, in eval mode as it is."""
        return cls(protected.split, protected.defense, protected.codec).eval()

    def observe(self, z: Tensor) -> Tensor:
        seen: Tensor = self.codec.decode(self.codec.encode(self.defense.mean(z)))
        return seen


def embeddings(protected: Protected, x: Tensor, classes: Tensor | None = None) -> Tensor:
    """The logits that the cloud answers through defence and codec, less their mean, at unit length (our reading).

    A split ends in logits over the training identities; what stood before them does not leave its graph. Identities
    that were not trained are told apart by how much they look like each that was. The mean goes because softmax does
    not see it. Of a model that ends in an embedding it is that embedding.

    Args:
        protected: see `splitveil.lab.protection.protect`; draws from torch's generator where its noise is random.
        x: (N, C, H, W) uint8.
        classes: (k,) int64, the logits to use, those that were trained; None for all.

    Returns:
        (N, k) float32 of unit length.
    """
    protected.eval()
    with Accelerator.chosen().used(protected) as where, torch.inference_mode():
        parts = (as_floats(part.to(where.device)) for part in x.split(CHUNK))
        answers = torch.cat([protected(part).float().cpu() for part in parts])
    classes_of(answers, "the split")  # refuses NaN, which would sort anyhow
    answers = answers if classes is None else answers[:, classes]
    return F.normalize(answers - answers.mean(1, keepdim=True), dim=1)


def retrieval(protected: Protected, data: Dataset, *, seed: int) -> Retrieval:
    """Mean average precision and ranks on the test part, by the protocol of Market-1501 (Zheng et al. 2015, section 5).

    Queries are the test images whose attribute ``query`` is 1; without it one image of each pair of identity and
    camera, drawn by `seed`. All others are the gallery, of which those of the query's identity from its own camera are
    left out. Images with attribute ``identity`` go by that, else by their class; -1 is a distractor, in the gallery
    only. The model ends in one logit a class, of which those of training identities are used.

    Raises:
        InputError: no attribute ``camera``, or no query with an answer.
    """
    test = data.test
    if "camera" not in test.attributes:
        raise InputError(f"expected images with the attribute camera, got {data.name}; use vehicles or reid:PATH.")
    who = test.attributes.get("identity", test.y)
    cameras = test.attributes["camera"]
    asked = queries_of(test, who, cameras, seed)
    gallery = ~asked
    if not asked.any() or not gallery.any():
        raise InputError(f"expected queries and a gallery in {data.name}, got one of them only; take more test images.")
    torch.manual_seed(derive(seed, "retrieval"))
    trained = torch.from_numpy(np.unique(data.train.y))
    found = embeddings(protected, torch.from_numpy(test.x), trained)
    chosen, rest = torch.from_numpy(asked), torch.from_numpy(gallery)
    ids, seen_by = torch.from_numpy(who), torch.from_numpy(cameras)
    result = identify(
        found[chosen], found[rest], query_ids=ids[chosen], gallery_ids=ids[rest],
        query_cameras=seen_by[chosen], gallery_cameras=seen_by[rest],
    )  # fmt: skip
    n = len(result.kept)
    return Retrieval(
        result.mean_average_precision, result.rank(1), result.rank(5), result.chance, n, int(gallery.sum()),
        *(wilson(round(result.rank(k) * n, 3), n) for k in (1, 5)),
    )  # fmt: skip


def queries_of(test: Images, who: Array, cameras: Array, seed: int) -> Array:
    """(N,) bool, which of the test images ask; `who` and `cameras`: (N,) int64."""
    if "query" in test.attributes:
        marked: Array = (test.attributes["query"] == 1) & (who >= 0)
        return marked
    order = np.random.default_rng(derive(seed, "queries")).permutation(len(who))
    _, first = np.unique(np.stack([who[order], cameras[order]]), axis=1, return_index=True)
    asked = np.zeros(len(who), dtype=bool)
    asked[order[first]] = True
    return asked & (who >= 0)
