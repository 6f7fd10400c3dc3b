import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from splitveil.core.errors import InputError, SplitVeilError, UnknownNameError, WeightsError
from splitveil.lab.data import load_data
from splitveil.lab.models import hub
from splitveil.lab.models.loader import Loaded, load_model, save_weights
from splitveil.lab.vision import timm, torchvision

TOY = """
from torch import nn
from neighbour import WIDTH

def make(shape=(3, 16, 16), classes=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], WIDTH), nn.Linear(WIDTH, classes))

def fixed():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(6))

def wrong():
    return "no module"

def broken(classes):
    raise KeyError("width")

def image(shape):
    return nn.Identity()
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(TOY)
    (tmp_path / "neighbour.py").write_text("WIDTH = 12\n")
    return tmp_path / "net.py"


def load(
    spec: str,
    shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    weights: Path | str | None = None,
    seed: int = 0,
) -> Loaded:
    return load_model(spec, shape=shape, classes=classes, weights=weights, seed=seed)


def logits(loaded: Loaded) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = loaded.model(torch.linspace(0, 1, 2 * int(np.prod(loaded.shape))).reshape(2, *loaded.shape))
    return out


def test_random_weights_depend_on_the_seed_alone_and_leave_the_generators() -> None:
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    one = load("small", (1, 8, 8), seed=1)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    torch.rand(3)
    assert torch.equal(logits(one), logits(load("small", (1, 8, 8), seed=1)))
    assert not torch.equal(logits(one), logits(load("small", (1, 8, 8), seed=2)))
    assert (one.weights, one.name, one.shape, one.classes) == ("random (seed 1)", "small", (1, 8, 8), 10)
    assert not one.model.training


def test_default_shapes() -> None:
    assert load("resnet20").shape == (3, 32, 32)
    assert load("lenet5").shape == (1, 28, 28)


def test_saved_weights_come_back_with_their_classes(tmp_path: Path) -> None:
    first = load("small", (1, 8, 8), classes=7)
    save_weights(first.model, tmp_path / "new" / "w.safetensors")
    again = load("small", (1, 8, 8), weights=tmp_path / "new" / "w.safetensors", seed=9)
    assert again.classes == 7
    assert torch.equal(logits(first), logits(again))
    assert again.weights.startswith("w.safetensors sha256:")
    assert len(again.weights) == len("w.safetensors sha256:") + 12
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["w.safetensors"]


def test_classes_of_weights_and_data_must_agree(tmp_path: Path) -> None:
    save_weights(load("small", (1, 8, 8), classes=7).model, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"has 7 classes, expected 10; choose data with 7 classes or other"):
        load("small", (1, 8, 8), classes=10, weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("resnet21", "unknown model 'resnet21'. Did you mean 'resnet20'?"),
        (
            "tim:resnet18",
            "unknown model source 'tim'. Did you mean 'timm'? Or give timm:NAME, torchvision:NAME",
        ),
        ("timm:resnet19", "timm has no model 'resnet19'. Did you mean 'resnet"),
        ("timm:resnet18.nowhere", "timm has no weights 'resnet18.nowhere'"),
        ("torchvision:resnet19", "torchvision has no classifier 'resnet19'. Did you mean 'resnet"),
        ("torchvision:fasterrcnn_resnet50_fpn", "torchvision has no classifier"),
    ],
)
def test_unknown_names_give_the_nearest(spec: str, sentence: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load(spec)
    assert sentence in str(caught.value)


def test_users_own_file(toy: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    loaded = load(f"{toy}:make")
    assert sys.path == path
    assert "net" not in set(sys.modules) - modules
    assert (loaded.shape, loaded.classes) == ((3, 16, 16), 4)
    assert loaded.weights == "as net.py:make makes them (seed 0)"
    assert load(f"{toy}:make", (1, 8, 8), 3).classes == 3
    assert load(f"{toy}:fixed").classes == 6


@pytest.mark.parametrize(
    ("function", "classes", "sentence"),
    [
        (
            ":mak",
            None,
            "net.py has no function 'mak'. Did you mean 'make'? It defines: make, fixed, wrong",
        ),
        (":wrong", None, "expected a torch.nn.Module from net.py:wrong, got str; return the model."),
        (":broken", None, "cannot build net.py:broken (KeyError: 'width'); ask for another shape or another model."),
        (":image", None, "two images, got (2, 3, 32, 32); return one row an image."),
        (":fixed", 10, "logits from"),
        ("", None, "add the function that makes the model."),
    ],
)
def test_mistakes_in_a_users_file(toy: Path, function: str, classes: int | None, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load(f"{toy}{function}", classes=classes)
    assert sentence in str(caught.value)


def test_files_that_cannot_be_imported(tmp_path: Path) -> None:
    path = list(sys.path)
    (tmp_path / "bad.py").write_text("import torch\nx = 1 / 0\n")
    with pytest.raises(InputError, match=r"cannot import .*bad.py \(ZeroDivisionError: division by zero\); mend"):
        load(f"{tmp_path / 'bad.py'}:make")
    with pytest.raises(InputError, match=r"cannot read .*gone.py: no such file; check the path\."):
        load(f"{tmp_path / 'gone.py'}:make")
    assert sys.path == path
    assert not any(name.startswith("_splitveil_bad") for name in sys.modules)


def test_timm_nets_normalise_themselves_under_their_own_names() -> None:
    loaded = load("timm:resnet10t", (3, 64, 64), classes=5)
    reference = timm().create_model("resnet10t", num_classes=5).eval()
    assert list(loaded.model.state_dict()) == list(reference.state_dict())
    reference.load_state_dict(loaded.model.state_dict())
    x = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(reference.pretrained_cfg[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        assert torch.allclose(loaded.model(x), reference((x - mean) / std), atol=1e-5)


def test_timm_shapes() -> None:
    assert load("timm:resnet10t").shape == (3, 176, 176)
    vit = load("timm:vit_tiny_patch16_224", (3, 32, 32), classes=5)
    assert vit.model.get_parameter("pos_embed").shape[1] == 1 + 2 * 2
    assert load("timm:resnet10t", (1, 64, 64), classes=3).model.get_parameter("conv1.0.weight").shape[1] == 1


def test_torchvision_nets() -> None:
    loaded = load("torchvision:squeezenet1_1", (3, 64, 64), classes=5)
    reference = torchvision().models.squeezenet1_1(num_classes=5).eval()
    reference.load_state_dict(loaded.model.state_dict())
    x = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    with torch.inference_mode():
        expected = reference((x - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1))
        assert torch.allclose(loaded.model(x), expected, atol=1e-6)
    assert load("torchvision:vit_b_32", (3, 32, 32), classes=2).classes == 2


def test_shapes_that_a_net_cannot_take() -> None:
    with pytest.raises(InputError, match=r"torchvision:resnet18 expected 3 channels, got 1; add \?channels=3"):
        load("torchvision:resnet18", (1, 32, 32))
    with pytest.raises(
        InputError,
        match=r"torchvision:alexnet cannot take images of shape \(3, 8, 8\): .* pixels, not 8x8; add \?size=64",
    ):
        load("torchvision:alexnet", (3, 8, 8))


def test_failed_downloads_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, pretrained: bool, **__: object) -> None:
        assert pretrained
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm(), "create_model", refuse)
    monkeypatch.setattr(hub, "timm_file", lambda *_: None)
    with pytest.raises(WeightsError) as caught:
        load("timm:resnet10t", weights="pretrained")
    assert str(caught.value) == (
        "cannot download pretrained weights of timm:resnet10t (OSError: no route to host); "
        "give a .safetensors file instead."
    )


@pytest.mark.parametrize(
    ("spec", "classes", "sentence"),
    [
        ("small", None, "small has no weights to download; give a .safetensors file or leave the weights out."),
        ("timm:resnet10t", 10, "the pretrained weights of timm:resnet10t have 1000 classes, expected 10; choose data"),
    ],
)
def test_pretrained_weights_that_cannot_be_meant(spec: str, classes: int | None, sentence: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load(spec, classes=classes, weights="pretrained")
    assert sentence in str(caught.value)


def test_every_error_is_ours(toy: Path) -> None:
    for spec in ("", ":", "timm:", "torchvision:", ".py:", f"{toy}:", f"{toy.parent}:make", "x.py"):
        with pytest.raises(SplitVeilError):
            load(spec)


def test_real_resnet20_reaches_its_accuracy(real_data: Callable[[str], Path]) -> None:
    """915 of the first 1,000; all 10,000 take longer and give 0.9173."""
    loaded = load("resnet20", weights=real_data("cifar10_resnet20.safetensors"))
    data = load_data(f"npz:{real_data('cifar10.npz')}?n=10")
    assert loaded.classes == 10
    x = torch.from_numpy(data.test.x[:1000]).float() / 255
    with torch.inference_mode():
        said = torch.cat([loaded.model(batch).argmax(1) for batch in torch.split(x, 250)])
    assert int((said.numpy() == data.test.y[:1000]).sum()) == pytest.approx(915, abs=1)
