from collections.abc import Callable
from inspect import signature

import cloudpickle
import pytest
import torch
from torch import nn

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import VARIABLE, VISIBLE, Accelerator, computing
from splitveil.lab.auditing import audit
from splitveil.lab.auditing.criterion import criterion
from splitveil.lab.comparing import compare
from splitveil.lab.jobs.arrival import arrived
from splitveil.lab.jobs.choice import Choice
from splitveil.lab.planning import plan
from splitveil.lab.protection import protect
from splitveil.lab.seeds import hardware
from splitveil.lab.store import Kept
from splitveil.lab.training import native_precision
from tests.lab.pretending import DEVICE, pretending

CPU = Accelerator(torch.device("cpu"), "cpu")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_auto_is_the_processor_where_there_is_nothing_else() -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    assert Accelerator.chosen() == Accelerator.chosen("cpu") == CPU


@pytest.mark.usefixtures("two_gpus")
def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert Accelerator.chosen() == Accelerator.chosen("cuda") == Accelerator(torch.device("cuda", 0), "cuda")
    assert Accelerator.chosen("cuda:1").device == torch.device("cuda", 1)


@pytest.mark.usefixtures("two_gpus")
def test_auto_is_what_is_in_use_and_else_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with CPU.used():
        assert Accelerator.chosen() == CPU
    monkeypatch.setenv(VARIABLE, "cuda:1")
    assert Accelerator.chosen().device == torch.device("cuda", 1)
    assert Accelerator.chosen("cpu") == CPU
    monkeypatch.setenv(VARIABLE, "gpu")
    with pytest.raises(InputError, match=f"expected auto, cpu, cuda, cuda:1 or mps for {VARIABLE}, got 'gpu'"):
        Accelerator.chosen()


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "cpu:1", ""])
def test_a_word_that_is_none_is_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match=r"^expected auto, cpu, cuda, cuda:1 or mps for --accelerator, got .*; use "):
        Accelerator.chosen(name)


def test_a_device_that_is_not_here_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^expected an Apple GPU for --accelerator mps, got none here; use "):
        Accelerator.chosen("mps")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=r"^expected a GPU for --accelerator cuda:1, got .*; use --accelerator auto"):
        Accelerator.chosen("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"^expected one of cuda:0, cuda:1 for --accelerator cuda:2, got no such"):
        Accelerator.chosen("cuda:2")


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "bf16-mixed"), ((8, 0), "bf16-mixed"), ((7, 5), "16-mixed"), ((6, 1), "32-true")],
)
def test_precision_is_what_the_device_multiplies(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    gpu = Accelerator(torch.device("cuda", 0))
    assert gpu.precision == precision
    assert gpu.bf16 == (precision == "bf16-mixed")
    with CPU.used():
        assert native_precision() == CPU.precision


def test_modules_are_on_the_device_meanwhile() -> None:
    net = nn.Linear(2, 2)
    with pretending() as there, Accelerator(there).used(net, None) as where:
        assert where.device == net.weight.device == DEVICE
        assert "pretend:0" in hardware()
        with CPU.used():
            assert "pretend:0" not in hardware()
    assert net.weight.device.type == "cpu"
    assert "pretend:0" not in hardware()


def test_apple_gpus_have_no_float64() -> None:
    apple = Accelerator(torch.device("mps"), "mps")
    assert apple.exact == torch.float32
    assert apple.with_doubles() == CPU
    assert CPU.with_doubles() is CPU
    assert apple.precision == "32-true"


@pytest.mark.usefixtures("two_gpus")
def test_workers_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    every, second = Accelerator.chosen("cuda"), Accelerator.chosen("cuda:1")
    assert (CPU.gpus, every.gpus, second.gpus) == (0, 2, 1)
    assert [every.environment(k)[VISIBLE] for k in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv(VISIBLE, "4, 7")
    assert every.environment(1) == {VARIABLE: "cuda", VISIBLE: "7"}
    assert second.environment(1) == {VARIABLE: "cuda:1"}
    assert CPU.environment(1) == {VARIABLE: "cpu"}
    monkeypatch.setattr("splitveil.lab.jobs.choice.cores", lambda: 64)
    monkeypatch.setattr("splitveil.lab.jobs.choice.memory", lambda: 2**40)
    with every.used():
        assert Choice.of("auto").workers == 2
    with CPU.used():
        assert Choice.of("auto").workers == 64


def test_a_job_elsewhere_computes_on_what_was_asked_for() -> None:
    def told(_: object) -> Kept:
        return Accelerator.chosen().name, {}

    (kind, content), _ = arrived(torch.get_num_threads(), cloudpickle.dumps((told, (), None, [], "cpu")), ())
    assert kind == "done"
    assert cloudpickle.loads(content)[0] == ("cpu", {})


def test_what_computes_asks_first() -> None:
    @computing
    def asked(*, accelerator: str = "auto") -> Accelerator:
        return Accelerator.chosen()

    assert asked(accelerator="cpu") == CPU
    with pytest.raises(InputError, match="--accelerator"):
        asked(accelerator="gpu")


@pytest.mark.parametrize("function", [audit, compare, plan, protect, criterion])
def test_every_way_in_takes_one(function: Callable[..., object]) -> None:
    assert signature(function).parameters["accelerator"].default == "auto"
