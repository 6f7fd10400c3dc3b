import numpy as np
import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.lab.cut import trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses.base import Protected
from splitveil.lab.models.loader import load_model
from splitveil.lab.planning.proxies import NAMES, proxy, tails
from splitveil.lab.protection import protect


@pytest.fixture(scope="module")
def data() -> Dataset:
    digits = load_data("digits")
    return Dataset("digits", digits.train.take(np.arange(200)), digits.test.take(np.arange(150)), digits.classes)


def installed(data: Dataset, at: str, defense: str) -> Protected:
    model = load_model("small", shape=data.shape, classes=10, weights=None).model
    return protect(trace(model, torch.zeros(2, *data.shape)).split(at), defense, "raw", data, epochs=0)[0]


def test_a_shallow_edge_is_nearly_undone_and_loud_noise_is_not(data: Dataset) -> None:
    clear = proxy(installed(data, "relu1", "none"), ["raw", "uniform:bits=2"], data.test, 0)
    assert set(clear["raw"]) == set(NAMES)
    assert clear["raw"]["psnr"] > 25
    assert clear["uniform:bits=2"]["ssim"] < clear["raw"]["ssim"] - 0.01
    loud = proxy(installed(data, "relu1", "noise:sigma=30.0"), ["raw"], data.test, 0)["raw"]
    assert loud["ssim"] < clear["raw"]["ssim"] - 0.1
    assert loud["accuracy"] < clear["raw"]["accuracy"] - 0.3, "what passes too little teaches no classifier"


def test_deeper_features_leak_less(data: Dataset) -> None:
    found = [proxy(installed(data, at, "none"), ["raw"], data.test, 0)["raw"]["psnr"] for at in ("relu1", "pool2")]
    assert found[0] > found[1] + 3


def test_the_same_seed_gives_the_same_numbers(data: Dataset) -> None:
    protected = installed(data, "pool1", "noise")
    assert proxy(protected, ["raw"], data.test, 1) == proxy(protected, ["raw"], data.test, 1)


def test_tails_are_means_of_the_images_that_leak_most() -> None:
    scores = {"ssim": torch.arange(40.0) / 40, "psnr": torch.arange(40.0)}
    assert tails(scores) == pytest.approx({"ssim": 0.4875, "ssim_worst": 38.5 / 40, "psnr": 19.5, "psnr_worst": 38.5})


def test_too_few_images_are_refused(data: Dataset) -> None:
    with pytest.raises(InputError, match="set more aside"):
        proxy(installed(data, "pool1", "none"), ["raw"], data.test.take(np.arange(20)), 0)
