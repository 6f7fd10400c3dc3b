import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.auditing.gallery import embeddings, queries_of, retrieval
from splitveil.lab.cut import trace
from splitveil.lab.data import Dataset, Images, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.wire.codecs import CODECS

IDENTITIES, CAMERAS = 6, 3


class Look(nn.Module):
    """The first pixels of a picture, through one step that can be cut."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1, bias=False)
        self.first.weight.data = torch.eye(3)[:, :, None, None]
        self.relu, self.flat = nn.ReLU(), nn.Flatten()
        self.last = nn.Linear(3 * 64, len(weight), bias=False)
        self.last.weight.data = weight

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.flat(self.relu(self.first(x))))
        return found


def protected(weight: Tensor) -> Protected:
    split = trace(Look(weight), torch.zeros(2, 3, 8, 8)).split("relu")
    return Protected(split, DEFENSES.build("none"), CODECS.build("raw")).eval()


def marked(per: int = 2, **more: list[int]) -> Dataset:
    """Pictures whose pixel at the identity's place is bright, by every camera `per` times."""
    y = np.repeat(np.arange(IDENTITIES), CAMERAS * per)
    camera = np.tile(np.arange(CAMERAS), IDENTITIES * per)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 20, (len(y), 3, 8, 8), dtype=np.uint8)
    x[np.arange(len(y)), 0, 0, y] = 255
    attributes = {"camera": camera.astype(np.int64)} | {k: np.array(v, dtype=np.int64) for k, v in more.items()}
    part = Images(x, y.astype(np.int64), attributes)
    return Dataset("marked", part, part, tuple("abcdef"))


def test_a_perfect_embedding_finds_all_and_a_random_one_about_chance() -> None:
    data = marked(per=4)
    found = retrieval(protected(torch.eye(192)[:IDENTITIES]), data, seed=0)
    assert (found.map, found.rank1, found.rank5) == (1, 1, 1)
    assert (found.n_queries, found.n_gallery) == (IDENTITIES * CAMERAS, IDENTITIES * CAMERAS * 3)
    weight = torch.randn(IDENTITIES, 192, generator=torch.Generator().manual_seed(0))
    weight[:, :8] = 0
    blind = retrieval(protected(weight), data, seed=0)
    assert blind.rank1 < 0.5
    assert blind.map < 0.45
    assert 0.1 < blind.chance < 0.2


def test_one_query_for_each_identity_and_camera() -> None:
    data = marked()
    asked = queries_of(data.test, data.test.y, data.test.attributes["camera"], 0)
    pairs = np.stack([data.test.y, data.test.attributes["camera"]], 1)[asked]
    assert len(np.unique(pairs, axis=0)) == len(pairs) == IDENTITIES * CAMERAS
    assert (asked != queries_of(data.test, data.test.y, data.test.attributes["camera"], 1)).any()


def test_a_query_flag_and_distractors_are_minded() -> None:
    n = IDENTITIES * CAMERAS * 2
    identity = np.repeat(np.arange(IDENTITIES), CAMERAS * 2)
    identity[-6:] = -1
    data = marked(query=[1, *[0] * (n - 2), 1], identity=identity.tolist())
    found = retrieval(protected(torch.eye(192)[:IDENTITIES]), data, seed=0)
    assert (found.n_queries, found.n_gallery, found.map) == (1, n - 1, 1)


def test_only_logits_of_trained_classes_speak() -> None:
    data = marked()
    known = np.flatnonzero(data.train.y < 3)
    part = Dataset("part", data.train.take(known), data.test.take(known), data.classes)
    weight = torch.eye(192)[:IDENTITIES]
    weight[3:] = 50 * torch.randn(3, 192, generator=torch.Generator().manual_seed(1))
    assert retrieval(protected(weight), part, seed=0).map == 1


def test_embeddings_have_unit_length_and_ignore_what_softmax_ignores() -> None:
    x = torch.from_numpy(marked().test.x)
    weight = torch.randn(IDENTITIES, 192, generator=torch.Generator().manual_seed(0))
    one, two = embeddings(protected(weight), x), embeddings(protected(3 * weight + 2), x)
    assert torch.allclose(one.norm(dim=1), torch.ones(len(x)))
    assert torch.allclose(one, two, atol=1e-4)


def test_vehicles_can_be_searched() -> None:
    data = load_data("vehicles?n=40&identities=4&size=16")
    weight = torch.randn(4, 3 * 256, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 256, 4))
    net[3].weight.data = weight
    split = trace(net, torch.zeros(2, 3, 16, 16)).split("1")
    found = retrieval(Protected(split, DEFENSES.build("none"), CODECS.build("raw")), data, seed=0)
    assert 0 <= found.map <= 1
    assert found.n_queries + found.n_gallery <= len(data.test)


def test_mistakes_are_explained() -> None:
    with pytest.raises(InputError, match=r"attribute camera, got digits; use vehicles or reid:PATH"):
        retrieval(protected(torch.eye(192)[:6]), load_data("digits"), seed=0)
    with pytest.raises(InputError, match=r"expected queries and a gallery in marked"):
        retrieval(protected(torch.eye(192)[:6]), marked(per=1), seed=0)
