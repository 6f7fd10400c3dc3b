"""Conversations without a network: what is asked, and what is made of odd answers."""

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from splitveil.core.errors import ContractError
from splitveil.device.breaker import Breaker
from splitveil.device.exchange import Call, Exchange, Failed, OutageError, Pause
from splitveil.device.retry import Retry

from .conftest import Made

Z = np.zeros((2, 8, 16, 16), np.float32)


def exchange(made: Made, rules: Retry | None = None) -> Exchange:
    return Exchange(made.bundle.manifest, "host:1", 30.0, rules or Retry(), Breaker(), None, waits=False)


def metadata(made: Made) -> bytes:
    m, answer = made.bundle.manifest, service_pb2.ModelMetadataResponse()
    answer.inputs.add(name="z", datatype="FP32", shape=m.features.shape)
    answer.outputs.add(name="logits", datatype="FP32", shape=m.output.shape)
    content: bytes = answer.SerializeToString()
    return content


def logits(shape: tuple[int, ...] = (2, 5), name: str = "logits", datatype: str = "FP32", values: int = 10) -> bytes:
    answer = service_pb2.ModelInferResponse(raw_output_contents=[np.arange(values, dtype="<f4").tobytes()])
    answer.outputs.add(name=name, datatype=datatype, shape=shape)
    content: bytes = answer.SerializeToString()
    return content


def asked(made: Made, final: bytes) -> Any:
    """The reply to a question that a server without model configuration answers with `final`."""
    talk = exchange(made).ask(Z)
    calls = [next(talk), talk.send(metadata(made)), talk.throw(Failed("UNIMPLEMENTED", "no such method"))]
    assert [c.method for c in calls if isinstance(c, Call)] == ["ModelMetadata", "ModelConfig", "ModelInfer"]
    with pytest.raises(StopIteration) as done:
        talk.send(final)
    return done.value.value


def test_a_server_without_model_configuration_takes_one_row(plain: Made) -> None:
    """Any server of the protocol will do; the largest batch and the contract are Triton's extension."""
    found = exchange(plain)
    talk = found.meet(5)
    next(talk)
    talk.send(metadata(plain))
    with pytest.raises(StopIteration):
        talk.throw(Failed("UNIMPLEMENTED", ""))
    assert found.max_batch == 1


def test_values_outside_raw_contents_are_read_too(plain: Made) -> None:
    answer = service_pb2.ModelInferResponse()
    answer.outputs.add(name="logits", datatype="FP32", shape=(2, 5)).contents.fp32_contents.extend(range(10))
    for content in (logits(), answer.SerializeToString()):
        np.testing.assert_array_equal(asked(plain, content).logits, np.arange(10).reshape(2, 5))


@pytest.mark.parametrize(
    "odd",
    [
        logits(shape=(1, 5)),
        logits(shape=(2, 4)),
        logits(name="other"),
        logits(datatype="FP64"),
        logits(values=9),
        b"",
        b"\xff not protobuf",
    ],
)
def test_odd_answers_are_contract_errors(plain: Made, odd: bytes) -> None:
    with pytest.raises(ContractError):
        asked(plain, odd)


def test_pauses_lie_between_attempts_and_the_message_stays(plain: Made) -> None:
    talk = exchange(plain, Retry(attempts=3)).ask(Z)
    messages = list[bytes]()
    step = next(talk)
    for attempt in range(3):
        assert isinstance(step, Call)
        talk.send(metadata(plain))
        infer = talk.throw(Failed("UNIMPLEMENTED", ""))
        assert isinstance(infer, Call)
        messages.append(infer.message)
        if attempt == 2:
            break
        pause = talk.throw(Failed("UNAVAILABLE", "gone"))
        assert isinstance(pause, Pause)
        assert 0 < pause.seconds <= 0.2
        step = talk.send(b"")
    with pytest.raises(OutageError, match=r"after 3 attempts \(UNAVAILABLE: gone\)"):
        talk.throw(Failed("UNAVAILABLE", "gone."))
    assert len(set(messages)) == 1
    assert Z.tobytes() in messages[0]
