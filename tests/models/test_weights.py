from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from splitveil.errors import WeightsError
from splitveil.models.weights import read_weights, save_weights


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
    with pytest.raises(WeightsError, match=r"is not a whole safetensors file|is damaged or holds Python objects"):
        read_weights(path)


def test_missing_files_and_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read the weights .*w.pt: No such file or directory; check"):
        read_weights(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"expected weights in .safetensors, .pth, .pt, got w.pkl;"):
        read_weights(tmp_path / "w.pkl")
