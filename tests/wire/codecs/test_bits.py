"""Packing against NumPy's own bits, and both halves' graphs against the codec, bit for bit."""

import io
import warnings
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitveil.wire.codecs import CODECS, Codec
from splitveil.wire.codecs.bits import pack_codes, packed_length, unpack_codes


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("count", [1, 7, 8, 24, 51])
def test_packed_as_numpy_packs_bits(bits: int, count: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, (3, count))
    planes = np.unpackbits(codes.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    expected = np.packbits(planes.reshape(3, -1), axis=-1)
    ours = pack_codes(codes.astype(np.float32), bits)
    assert ours.dtype == np.uint8
    assert ours.shape == (3, packed_length(count, bits))
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(unpack_codes(ours, bits, count), codes)
    theirs = pack_codes(torch.from_numpy(codes).float(), bits)
    np.testing.assert_array_equal(theirs.numpy(), expected)
    np.testing.assert_array_equal(unpack_codes(theirs, bits, count).numpy(), codes)


class Sends(nn.Module):
    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, z: Tensor) -> Tensor:
        packed: Tensor = self.codec.pack(self.codec.encode(z))
        return packed


class Receives(nn.Module):
    def __init__(self, codec: Codec, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.codec, self.shape = codec, shape

    def forward(self, packed: Tensor) -> Tensor:
        z: Tensor = self.codec.decode(self.codec.unpack(packed, self.shape))
        return z


@pytest.mark.parametrize("spec", ["half", "uniform:bits=6", "uniform:bits=4", "uniform:bits=3,clip=0.99"])
def test_the_graphs_do_what_the_codec_does_at_any_batch(spec: str) -> None:
    shape = (17, 3)
    z = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    codec = CODECS.build(spec).calibrate(z)
    sends, receives = exported(Sends(codec), z), exported(Receives(codec, shape), codec.pack(codec.encode(z)))
    for batch in (1, 3, 5):
        packed = sends(2 * z[:batch].numpy())
        assert packed.shape == (batch, *codec.wire_shape(shape))
        assert packed[0].nbytes == codec.payload_bytes(51)
        np.testing.assert_array_equal(packed, codec.pack(codec.encode(2 * z[:batch].numpy())))
        np.testing.assert_array_equal(packed, codec.pack(codec.encode(2 * z[:batch])).numpy())
        codes = codec.unpack(packed, shape)
        np.testing.assert_array_equal(codes, codec.encode(2 * z[:batch].numpy()))
        np.testing.assert_array_equal(receives(packed), codec.decode(codes))


def exported(module: nn.Module, example: Tensor) -> Any:
    """A function that runs the module's ONNX graph."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), (example,), dynamo=True, verbose=False, input_names=["z"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )  # fmt: skip
    assert program is not None
    file.write(program.model_proto.SerializeToString())
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])

    def run(values: NDArray[Any]) -> Any:
        return session.run(None, {"z": values})[0]

    return run
