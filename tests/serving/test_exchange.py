"""Conversations without a network: what is asked, and what is made of odd answers."""

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from splitveil.core.errors import ContractError, LinkError
from splitveil.device.breaker import Breaker
from splitveil.device.exchange import MOST_ROWS, Call, Exchange, Failed, MalformedAnswerError, OutageError, Pause
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


def logits(
    shape: tuple[int, ...] = (2, 5),
    name: str = "logits",
    datatype: str = "FP32",
    raw: bytes | None = None,
    outputs: int = 1,
) -> bytes:
    content = np.arange(10, dtype="<f4").tobytes() if raw is None else raw
    answer = service_pb2.ModelInferResponse(raw_output_contents=[content])
    for _ in range(outputs):
        answer.outputs.add(name=name, datatype=datatype, shape=shape)
    written: bytes = answer.SerializeToString()
    return written


def typed(values: list[float]) -> bytes:
    answer = service_pb2.ModelInferResponse()
    answer.outputs.add(name="logits", datatype="FP32", shape=(2, 5)).contents.fp32_contents.extend(values)
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
    for content in (logits(), typed(list(range(10)))):
        np.testing.assert_array_equal(asked(plain, content).logits, np.arange(10).reshape(2, 5))


ROW = np.arange(10, dtype="<f4").tobytes()
ODD = {
    "other rows": logits(shape=(1, 5)),
    "other classes": logits(shape=(2, 4)),
    "huge shape": logits(shape=(2**62, 2**62)),
    "another name": logits(name="other"),
    "another type": logits(datatype="FP64"),
    "a number short": logits(raw=ROW[:-4]),
    "a byte short": logits(raw=ROW[:-1]),
    "a byte long": logits(raw=ROW + b"x"),
    "no bytes": logits(raw=b""),
    "two outputs": logits(outputs=2),
    "two contents": logits() + service_pb2.ModelInferResponse(raw_output_contents=[b"x"]).SerializeToString(),
    "nan": logits(raw=np.full(10, np.nan, "<f4").tobytes()),
    "infinity": typed([float("inf")] * 10),
    "too few values": typed([0.0] * 9),
    "too many values": typed([0.0] * 11),
    "nothing": b"",
    "no message": b"\xff not protobuf",
}


@pytest.mark.parametrize("odd", ODD)
def test_an_answer_that_is_none_is_what_fallback_and_breaker_know(plain: Made, odd: str) -> None:
    with pytest.raises(MalformedAnswerError, match=r"^expected .* of host:1, got .*; .*\.$"):
        asked(plain, ODD[odd])
    found = exchange(plain)
    for i in range(found.breaker.failures):
        talk = found.ask(Z)
        next(talk)
        if i == 0:
            talk.send(metadata(plain))
            talk.throw(Failed("UNIMPLEMENTED", ""))
        with pytest.raises(OutageError):
            talk.send(ODD[odd])
    assert found.breaker.state == "open"


ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\n\u202egnp.exe"


def test_a_servers_words_are_bounded_and_obeyed_by_no_terminal(plain: Made) -> None:
    talk = exchange(plain).ask(Z)
    next(talk)
    with pytest.raises(LinkError) as refused:
        talk.throw(Failed("UNAUTHENTICATED", ESCAPES + "x" * 10**6))
    answer = service_pb2.ModelMetadataResponse()
    answer.inputs.add(name=ESCAPES + "y" * 10**6, datatype=ESCAPES, shape=[1])
    met = exchange(plain).meet(5)
    next(met)
    next_call = met.send(answer.SerializeToString())
    assert isinstance(next_call, Call)
    config = service_pb2.ModelConfigResponse()
    config.config.parameters["contract"].string_value = ESCAPES * 1000
    with pytest.raises(ContractError) as described:
        met.send(config.SerializeToString())
    met = exchange(plain).meet(5)
    next(met)
    met.send(metadata(plain))
    with pytest.raises(ContractError) as other:
        met.send(config.SerializeToString())
    for caught in (refused, described, other):
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


def test_a_server_does_not_say_how_large_a_request_may_grow(plain: Made) -> None:
    config = service_pb2.ModelConfigResponse()
    for said, taken in ((2**31 - 1, MOST_ROWS), (-5, 1)):
        config.config.max_batch_size = said
        found = exchange(plain)
        talk = found.meet(5)
        next(talk)
        talk.send(metadata(plain))
        with pytest.raises(StopIteration):
            talk.send(config.SerializeToString())
        assert found.max_batch == taken


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
