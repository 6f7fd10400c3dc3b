"""What the commands say of the images and weights that they were given."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from splitveil.lab.models.loader import load_model
from tests.cli.conftest import Command

RNG = np.random.default_rng(0)


def saved(folder: Path) -> None:
    """Images of classes 0 and 1 for training, 0 to 2 for tests, and a net of 3 classes with an average beside it."""
    x = RNG.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    y = np.arange(60)
    np.savez(folder / "toy.npz", x_train=x, y_train=y % 2, x_test=x[::-1], y_test=y % 3)
    net = load_model("small", shape=(1, 8, 8), classes=3, weights=None).model.state_dict()
    averaged = {name: tensor.float() + 1 for name, tensor in net.items()}
    torch.save({"model": net, "model_ema": averaged, "epoch": 3}, folder / "w.ckpt")
    save_file(
        {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in net.items()},
        folder / "h.safetensors",
    )


def test_weights_are_chosen_in_a_file_and_remarks_reach_the_screen_and_the_card(
    splitveil: Command, tmp_path: Path
) -> None:
    saved(tmp_path)
    asked = splitveil("cuts", "small", "--input", "1x8x8", "--weights", "w.ckpt")
    assert asked.code == 2
    assert "w.ckpt holds 2 sets of weights that fit small: model, model_ema; choose one, such as" in asked.err
    assert splitveil("cuts", "small", "--input", "1x8x8", "--weights", "w.ckpt#model_ema").code == 0
    done = splitveil(
        "audit", "small", "--data", "npz:toy.npz", "--weights", "h.safetensors", "--attack", "linear", "-n", "10",
        "--samples", "0", "--out", "a",
    )  # fmt: skip
    assert done.code in (0, 3), done.err
    said = "20 of 60 test images have labels that no training image has (2): a model trained on these images cannot"
    assert f"note: {said}" in done.err
    assert "tensors converted from float16 to float32" in done.err
    notes = json.loads((tmp_path / "a" / "card.json").read_text())["notes"]
    assert any(note.startswith(said) for note in notes)
    done = splitveil(
        "fit", "small", "--data", "npz:toy.npz", "--at", "pool1", "--weights", "w.ckpt#model", "--epochs", "0",
        "--out", "b", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["weights"].startswith("w.ckpt#model sha256:")
    assert done.json["remarks"][0].startswith(said)


def test_pretrained_is_no_file(splitveil: Command) -> None:
    done = splitveil("cuts", "small", "--weights", "pretrained")
    assert done.code == 2
    assert "small has no weights to download; give a .safetensors file or leave the weights out." in done.err
