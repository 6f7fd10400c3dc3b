import argparse
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from splitveil.core.errors import WeightsError
from splitveil.lab.models.weights import read_weights, save_weights


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4))


def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.rand_like(tensor.float()) for name, tensor in net().state_dict().items()}


def loaded(path: Path) -> nn.Sequential:
    model = net()
    read_weights(path).load_into(model, "the net")
    return model


def test_saving_and_reading_are_inverse(tmp_path: Path) -> None:
    model = net()
    save_weights(model, tmp_path / "w.safetensors")
    again = loaded(tmp_path / "w.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_shared_weights_are_saved(tmp_path: Path) -> None:
    tied = nn.ModuleDict({"a": nn.Linear(3, 3)})
    tied["b"] = tied["a"]
    save_weights(tied, tmp_path / "w.safetensors")
    assert set(load_file(tmp_path / "w.safetensors")) == {"a.weight", "a.bias", "b.weight", "b.bias"}


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_torch_files_are_unwrapped(tmp_path: Path, suffix: str, wrapper: str | None, prefix: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in state().items()}
    torch.save({wrapper: tensors, "epoch": 3} if wrapper else tensors, tmp_path / f"w{suffix}")
    assert torch.equal(loaded(tmp_path / f"w{suffix}").get_parameter("3.weight"), state()["3.weight"])


def test_batch_counts_may_be_missing_or_extra(tmp_path: Path) -> None:
    some = state()
    del some["1.num_batches_tracked"]
    some["0.num_batches_tracked"] = torch.zeros(1)
    save_file(some, tmp_path / "w.safetensors")
    assert torch.equal(loaded(tmp_path / "w.safetensors").get_parameter("1.bias"), some["1.bias"])


def test_all_misfits_are_counted_and_a_few_are_named(tmp_path: Path) -> None:
    some = state()
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        some["old." + name] = some.pop(name)
    some["3.weight"] = torch.zeros(4, 9)
    save_file(some, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        loaded(tmp_path / "w.safetensors")
    name = read_weights(tmp_path / "w.safetensors").name
    assert str(caught.value) == (
        f"{name} does not fit the net: 4 missing (0.weight, 0.bias, 1.weight, ...); "
        "4 unexpected (old.0.bias, old.0.weight, old.1.bias, ...); "
        "1 of another shape (3.weight: expected (4, 8), got (4, 9)); give weights of this very model."
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    some = state()
    some["3.bias"][1] = value
    save_file(some, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"holds NaN or Inf in 1 tensors \(3.bias\); train it anew\."):
        loaded(tmp_path / "w.safetensors")


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return print, ("must never run",)


def test_python_objects_are_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": state(), "extra": Payload()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w.pth is damaged or holds Python objects, .* never run .*save_weights"):
        read_weights(tmp_path / "w.pth")
    torch.save(net(), tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match=r"whole.pt is damaged or holds Python objects, which are never run"):
        read_weights(tmp_path / "whole.pt")
    assert "must never run" not in capsys.readouterr().out


@pytest.mark.parametrize("value", [torch.zeros(3), [1, 2], {}, {"a": 1}, {"model": 3}])
def test_torch_files_without_a_dictionary_of_tensors(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"expected a dictionary of tensors in w.pth, alone or as 'state_dict' or"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("keep", [0, 5, 40, 300])
def test_damaged_files(tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    save_file(state(), path) if path.suffix == ".safetensors" else torch.save(state(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"is not a whole (safetensors )?file|is damaged or holds Python objects"):
        read_weights(path)


def test_missing_files_and_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read the weights .*w.pt: No such file or directory; check"):
        read_weights(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"expected weights in .safetensors, .pth, .pt, .ckpt.* got w.pkl;"):
        read_weights(tmp_path / "w.pkl")


def value() -> Tensor:
    return state()["3.weight"]


@pytest.mark.parametrize("file", ["w.pt", "w.pth", "w.ckpt", "w.pth.tar", "w.bin", "w.PTH", "w.th"])
def test_torch_files_of_every_name(tmp_path: Path, file: str) -> None:
    torch.save(state(), tmp_path / file)
    assert torch.equal(loaded(tmp_path / file).get_parameter("3.weight"), value())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "place",
    ["state_dict", "model", "net", "model_state_dict", "ema", "model_ema", "state_dict_ema", "module", "ema.module",
     "weights.net", "anything.at.all"],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod.", "net.module."])
def test_nestings_and_prefixes_are_found_by_what_fits(tmp_path: Path, place: str, prefix: str, zipped: bool) -> None:
    whole: Any = {prefix + name: tensor for name, tensor in state().items()}
    for key in reversed(place.split(".")):
        whole = {"epoch": 3, key: whole, "config": {"lr": 0.1, "sizes": [1, 2]}}
    torch.save(whole, tmp_path / "w.ckpt", _use_new_zipfile_serialization=zipped)
    assert torch.equal(loaded(tmp_path / "w.ckpt").get_parameter("3.weight"), value())


def test_a_real_training_checkpoint_with_optimizer_options_and_numpy_numbers(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    options = argparse.Namespace(lr=0.1, names=["a"], nested=argparse.Namespace(x=None))
    best = {"loss": np.float64(0.5), "top1": np.float32(0.5), "at": np.int64(3), "new": np.bool_(True)}
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "args": options, "best": best, "epoch": 1,
         "rng": torch.get_rng_state(), "scheduler": {"_last_lr": [0.1]}},
        tmp_path / "w.pth.tar",
    )  # fmt: skip
    assert torch.equal(loaded(tmp_path / "w.pth.tar").get_parameter("3.weight"), model.get_parameter("3.weight"))


def test_misfits_are_told_of_the_weights_and_not_of_the_optimizer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2), nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 8)).sum().backward()
    optimizer.step()
    others = {f"layer.{name}": tensor for name, tensor in model.state_dict().items() if not name.startswith("0")}
    torch.save({"optimizer": optimizer.state_dict(), "model": others}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"4 unexpected \(layer.1.weight, layer.1.bias, layer.2.weight, ...\)"):
        read_weights(tmp_path / "w.pt").load_into(nn.Sequential(nn.Conv2d(1, 1, 1)), "it")


def test_a_key_that_fits_wins_over_a_key_that_is_found_first(tmp_path: Path) -> None:
    torch.save({"state_dict": {"other.weight": torch.zeros(2)}, "model": state()}, tmp_path / "w.pt")
    assert torch.equal(loaded(tmp_path / "w.pt").get_parameter("3.weight"), value())


def test_prefixes_within_one_dictionary_as_lightning_writes_them(tmp_path: Path) -> None:
    tensors = {f"model.{n}": t for n, t in state().items()} | {"loss.weight": torch.ones(4)}
    torch.save({"state_dict": tensors, "hyper_parameters": {"lr": 1}}, tmp_path / "w.ckpt")
    model = net()
    remarks = read_weights(tmp_path / "w.ckpt").load_into(model, "the net")
    assert torch.equal(model.get_parameter("3.weight"), value())
    assert remarks == ("w.ckpt: weights under 'state_dict.model'; 1 other tensors beside them are left out",)


def test_parts_that_were_compiled_or_checkpointed_alone(tmp_path: Path) -> None:
    tensors = {
        n.replace("1.", "1._orig_mod.").replace("3.", "3._checkpoint_wrapped_module."): t for n, t in state().items()
    }
    save_file(tensors, tmp_path / "w.safetensors")
    assert torch.equal(loaded(tmp_path / "w.safetensors").get_parameter("3.weight"), value())


def test_files_of_the_inner_model_fit_a_wrapped_one(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    model = nn.DataParallel(net())
    read_weights(tmp_path / "w.safetensors").load_into(model, "the net")
    assert torch.equal(model.get_parameter("module.3.weight"), value())


def test_tied_weights_that_a_file_holds_once(tmp_path: Path) -> None:
    tied = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    tied["b"].weight = tied["a"].weight
    tensors = {"a.weight": torch.rand(3, 3), "a.bias": torch.rand(3), "b.bias": torch.rand(3)}
    save_file(tensors, tmp_path / "w.safetensors")
    read_weights(tmp_path / "w.safetensors").load_into(tied, "it")
    assert torch.equal(tied.get_parameter("b.weight"), tensors["a.weight"])


@pytest.mark.parametrize(
    ("whole", "places"),
    [
        (lambda a, b: {"model": a, "model_ema": b}, ["model", "model_ema"]),
        (lambda a, b: {"state_dict": a, "ema": {"module": b, "updates": 3}}, ["state_dict", "ema.module"]),
        (
            lambda a, b: {"state_dict": {f"{k}.{n}": t for k, s in (("net", a), ("net_ema", b)) for n, t in s.items()}},
            ["state_dict.net", "state_dict.net_ema"],
        ),
        (lambda a, b: a | {"ema": b}, [".", "ema"]),
        (lambda a, b: [a, b], ["0", "1"]),
    ],
)  # fmt: skip
def test_several_that_fit_are_a_question(tmp_path: Path, whole: Any, places: list[str]) -> None:
    first, second = state(), {n: t + 1 for n, t in state().items()}
    path = tmp_path / "w.pt"
    torch.save(whole(first, second), path)
    with pytest.raises(WeightsError) as caught:
        loaded(path)
    assert str(caught.value) == (
        f"w.pt holds 2 sets of weights that fit the net: {', '.join(places)}; choose one, such as w.pt#{places[1]}."
    )
    for place, expected in zip(places, (first, second), strict=True):
        model = loaded(Path(f"{path}#{place}"))
        assert torch.equal(model.get_parameter("3.weight"), expected["3.weight"])
        assert read_weights(Path(f"{path}#{place}")).name.startswith(f"w.pt#{place} sha256:")
    with pytest.raises(
        WeightsError, match=r"w.pt has no weights at 'emma', it has .*; choose one of these after the #"
    ):
        loaded(Path(f"{path}#emma"))


def test_copies_of_one_set_are_no_question(tmp_path: Path) -> None:
    torch.save({"model": state(), "model_ema": state(), "best": state()}, tmp_path / "w.pt")
    assert torch.equal(loaded(tmp_path / "w.pt").get_parameter("3.weight"), value())


def test_a_file_may_have_the_sign_in_its_name(tmp_path: Path) -> None:
    torch.save({"model": state(), "ema": {n: t + 1 for n, t in state().items()}}, tmp_path / "run#3.pt")
    assert torch.equal(loaded(tmp_path / "run#3.pt#model").get_parameter("3.weight"), value())
    torch.save(state(), tmp_path / "w#model.pt")
    assert torch.equal(loaded(tmp_path / "w#model.pt").get_parameter("3.weight"), value())


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "float8_e5m2": lambda t: t.to(torch.float8_e5m2),
    "int8": lambda t: t.to(torch.int8),
    "int64": lambda t: t.to(torch.int64),
    "complex64": lambda t: t.to(torch.complex64),
    "bool": lambda t: t.bool(),
}
ONLY_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse float32": lambda t: t.to_sparse(),
    "meta float32": lambda t: t.to("meta"),
    "qint8": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore:.*(uantiz|TypedStorage).*")
@pytest.mark.parametrize(
    ("file", "kind"),
    [*(("w.safetensors", kind) for kind in ODD), *(("w.pt", kind) for kind in (ODD | ONLY_TORCH))],
)
def test_tensors_of_other_types_are_named_with_their_type(tmp_path: Path, file: str, kind: str) -> None:
    tensors = state()
    tensors["3.weight"] = (ODD | ONLY_TORCH)[kind](tensors["3.weight"])
    (save_file if file.endswith("s") else torch.save)(tensors, tmp_path / file)
    with pytest.raises(WeightsError, match=rf"1 tensors of types .* \(3.weight: expected float32, got {kind}\); write"):
        loaded(tmp_path / file)


def test_integers_that_the_model_has_as_integers_are_read(tmp_path: Path) -> None:
    model = net()
    model.register_buffer("relative_position_index", torch.arange(6))
    model.register_buffer("mask", torch.zeros(3, dtype=torch.bool))
    tensors = state() | {
        "relative_position_index": torch.arange(6).flip(0).int(),
        "mask": torch.tensor([1, 0, 1]).byte(),
    }
    save_file(tensors, tmp_path / "w.safetensors")
    read_weights(tmp_path / "w.safetensors").load_into(model, "the net")
    assert model.get_buffer("relative_position_index").tolist() == [5, 4, 3, 2, 1, 0]
    assert model.get_buffer("mask").tolist() == [True, False, True]
    save_file(tensors | {"relative_position_index": torch.rand(6)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"\(relative_position_index: expected int64, got float32\)"):
        read_weights(tmp_path / "w.safetensors").load_into(model, "the net")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_converted_and_said(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({n: t.to(dtype) for n, t in state().items()}, tmp_path / "w.safetensors")
    model = net()
    name = str(dtype).removeprefix("torch.")
    assert read_weights(tmp_path / "w.safetensors").load_into(model, "the net") == (
        f"w.safetensors: 8 tensors converted from {name} to float32",
    )
    assert torch.equal(model.get_parameter("3.weight"), value().to(dtype).float())
    save_file({n: t.double() * 1e300 for n, t in state().items()}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="holds NaN or Inf in"):
        read_weights(tmp_path / "w.safetensors").load_into(model, "the net")


def test_what_is_no_file_of_weights_gets_a_sentence_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "model.safetensors").write_bytes(b"")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    (tmp_path / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.save(torch.jit.script(net()), tmp_path / "script.pt")
    with tarfile.open(tmp_path / "real.tar", "w") as archive:
        archive.add(tmp_path / "lfs.pth")
    for file, sentence in {
        "hub": "expected a file of weights, got the folder .*hub; give a file in it, such as .*hub/model.safetensors",
        "model.safetensors.index.json": "only lists the parts of weights that lie in several files; join them",
        "lfs.pth": "lfs.pth is a pointer of Git LFS, not the weights themselves; run git lfs pull",
        "script.pt": r"script.pt is a TorchScript archive; write its tensors alone: torch.save\(torch.jit.load",
        "real.tar": "real.tar is an archive of files, or in torch's oldest format; unpack it",
    }.items():
        with pytest.raises(WeightsError, match=sentence):
            read_weights(tmp_path / file)


def test_a_file_is_read_as_what_it_is(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.pth")
    torch.save(state(), tmp_path / "w.safetensors")
    for file in ("w.pth", "w.safetensors"):
        assert torch.equal(loaded(tmp_path / file).get_parameter("3.weight"), value())


def test_objects_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "args": argparse.Namespace(out=Path("x"))}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"never run \(pathlib.\w+\); where you trust the file, write its tensors"):
        read_weights(tmp_path / "w.pth")


def test_lists_that_hold_themselves_end(tmp_path: Path) -> None:
    ring: dict[str, Any] = {"state_dict": state()}
    ring["self"] = [ring, ring]
    torch.save(ring, tmp_path / "w.pth")
    assert torch.equal(loaded(tmp_path / "w.pth").get_parameter("3.weight"), value())
