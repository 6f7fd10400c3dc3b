from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from splitveil.core.errors import BundleError, ContractError
from splitveil.core.records import Tensor
from splitveil.wire import compression
from splitveil.wire.contract import PARAMETER, BrokenRuleError, RequestRules
from splitveil.wire.datatypes import wire_dtype

from .conftest import Made

ROW = 8 * 16 * 16


def request(datatype: str = "FP32", rows: int = 2) -> Any:
    made = service_pb2.ModelInferRequest(model_name="tiny")
    made.inputs.add(name="z", datatype=datatype, shape=[rows, 8, 16, 16])
    content = np.arange(rows * ROW) % 251
    made.raw_input_contents.append(content.astype(np.uint8 if datatype == "UINT8" else "<f4").tobytes())
    return made


def change(name: str) -> Callable[[Any], None]:
    def apply(r: Any) -> None:
        match name:
            case "datatype":
                r.inputs[0].datatype = "UINT8"
            case "axes":
                r.inputs[0].shape[:] = [2, ROW]
            case "size":
                r.inputs[0].shape[2] = 17
            case "negative":
                r.inputs[0].shape[0] = -1
            case "none":
                r.inputs[0].shape[0] = 0
            case "many":
                r.inputs[0].shape[0] = 2**40
            case "short":
                r.raw_input_contents[0] = r.raw_input_contents[0][:-1]
            case "no content":
                del r.raw_input_contents[:]
            case "two contents":
                r.raw_input_contents.append(b"")
            case "nan":
                r.raw_input_contents[0] = b"\xff\xff\xff\x7f" + r.raw_input_contents[0][4:]
            case "infinity":
                r.raw_input_contents[0] = b"\x00\x00\x80\x7f" + r.raw_input_contents[0][4:]
            case "name":
                r.inputs[0].name = "x"
            case "two inputs":
                r.inputs.add(name="z")
            case "no input":
                del r.inputs[:]
            case "output":
                r.outputs.add(name="features")
            case "contract":
                r.parameters[PARAMETER].string_param = "0" * 32
            case "contract type":
                r.parameters[PARAMETER].int64_param = 1

    return apply


BAD = {
    "datatype": "expected datatype FP32",
    "axes": "expected shape",
    "size": "expected shape",
    "negative": "expected 1 to 64 rows",
    "none": "expected 1 to 64 rows",
    "many": "expected 1 to 64 rows",
    "short": "bytes",
    "no content": "values",
    "two contents": "one raw content",
    "nan": "NaN",
    "infinity": "infinity",
    "name": "input 'z'",
    "two inputs": "exactly one input",
    "no input": "exactly one input",
    "output": "only output is 'logits'",
    "contract": "expected contract",
    "contract type": "expected contract",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_named(plain: Made, name: str) -> None:
    bad = request()
    change(name)(bad)
    with pytest.raises(ContractError, match=BAD[name]) as caught:
        RequestRules(plain.bundle.manifest, 64).read(bad)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_good_requests_are_read_exactly(plain: Made, noisy: Made) -> None:
    for made, datatype in ((plain, "FP32"), (noisy, "UINT8")):
        good = request(datatype)
        good.parameters[PARAMETER].string_param = made.bundle.manifest.contract
        good.outputs.add(name="logits")
        z = RequestRules(made.bundle.manifest, 64).read(good)
        assert z.dtype == (np.uint8 if datatype == "UINT8" else np.float32)
        np.testing.assert_array_equal(z.ravel(), np.arange(2 * ROW) % 251)


def test_a_defence_asks_for_the_contract_unless_told_otherwise(plain: Made, noisy: Made) -> None:
    silent = request("UINT8")
    with pytest.raises(ContractError, match=r"'contract'.*defence noise:.*--allow-missing-contract") as caught:
        RequestRules(noisy.bundle.manifest, 64).read(silent)
    assert isinstance(caught.value, BrokenRuleError)
    assert caught.value.rule == "contract"
    assert len(RequestRules(noisy.bundle.manifest, 64, contract_required=False).read(silent)) == 2
    assert len(RequestRules(plain.bundle.manifest, 64).read(request())) == 2
    silent.parameters[PARAMETER].string_param = "0" * 32
    with pytest.raises(ContractError, match="expected contract"):
        RequestRules(noisy.bundle.manifest, 64, contract_required=False).read(silent)


def test_packed_contents_are_unpacked_within_their_size(plain: Made) -> None:
    good = request()
    z = np.frombuffer(good.raw_input_contents[0], "<f4")
    good.raw_input_contents[0] = compression.pack(z.tobytes(), compression.ZSTD)
    good.parameters[compression.PARAMETER].string_param = compression.ZSTD
    rules = RequestRules(plain.bundle.manifest, 64)
    np.testing.assert_array_equal(rules.read(good).ravel(), z)
    good.raw_input_contents[0] = compression.pack(bytes(10**7), compression.ZSTD)
    with pytest.raises(BrokenRuleError) as caught:
        rules.read(good)
    assert caught.value.rule == "encoding"


def test_typed_contents_are_read_too(plain: Made, noisy: Made) -> None:
    for made, datatype, field in ((plain, "FP32", "fp32_contents"), (noisy, "UINT8", "uint_contents")):
        rules = RequestRules(made.bundle.manifest, 64)
        typed = request(datatype, rows=1)
        typed.parameters[PARAMETER].string_param = made.bundle.manifest.contract
        del typed.raw_input_contents[:]
        getattr(typed.inputs[0].contents, field).extend([7] * ROW)
        assert (rules.read(typed) == 7).all()
    typed.inputs[0].contents.uint_contents[0] = 256
    with pytest.raises(ContractError, match="exceed 255"):
        rules.read(typed)


def test_the_largest_right_message_fits_and_not_much_more(plain: Made) -> None:
    rules = RequestRules(plain.bundle.manifest, 64)
    largest = request(rows=64).ByteSize()
    assert largest < rules.max_message < 1.2 * largest


def test_an_unknown_datatype_is_refused() -> None:
    with pytest.raises(BundleError, match="FP8"):
        wire_dtype(Tensor(name="z", datatype="FP8", shape=(-1, 2)))
