import json

import numpy as np
import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.wire.codecs import CODECS

SHAPES = [(64, 8, 4, 5), (64, 17, 6), (64, 12)]
SPECS = ["raw", "half", "uniform:bits=8", "uniform:bits=4,clip=0.99", "uniform:bits=2"]


def features(shape: tuple[int, ...]) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=draws)
    return z * torch.linspace(0.1, 20, shape[2 if len(shape) == 3 else 1]).reshape(
        [-1 if i == (2 if len(shape) == 3 else 1) else 1 for i in range(len(shape))]
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spec", SPECS)
def test_numpy_and_torch_agree_and_state_goes_through_json(spec: str, shape: tuple[int, ...]) -> None:
    z = features(shape)
    codec = CODECS.build(spec).calibrate(z)
    again = CODECS.build(repr(codec)).restore(json.loads(json.dumps(codec.state())))
    ours, theirs = codec.encode(z), again.encode(z.numpy())
    assert isinstance(theirs, np.ndarray)
    assert np.array_equal(ours.numpy(), theirs)
    assert np.allclose(codec.decode(ours).numpy(), again.decode(theirs), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_uniform_errs_by_at_most_half_a_step_of_its_channel(bits: int, shape: tuple[int, ...]) -> None:
    z = features(shape)
    codec = CODECS.build(f"uniform:bits={bits}").calibrate(z)
    error = (codec.decode(codec.encode(z)) - z).abs()
    axis = 2 if len(shape) == 3 else 1
    axes = [i for i in range(len(shape)) if i != axis]
    step = (z.amax(axes) - z.amin(axes)) / (2**bits - 1)
    assert (error.amax(axes) <= 0.5 * step * 1.01).all()
    assert (error.amax(axes) > 0.2 * step).all()


def test_codes_fit_the_wire() -> None:
    z = features(SHAPES[0])
    codes = CODECS.build("uniform:bits=5").calibrate(z[:4]).encode(100 * z)
    assert codes.min() == 0
    assert codes.max() == 31
    assert torch.equal(codes, codes.round())


def test_raw_changes_nothing() -> None:
    z = features(SHAPES[0])
    codec = CODECS.build("raw")
    assert torch.equal(codec.decode(codec.encode(z)), z)
    assert (codec.payload_bytes(10), CODECS.build("uniform").payload_bytes(10)) == (40, 10)
    assert [CODECS.build(s).payload_bytes(10) for s in ("half", *(f"uniform:bits={b}" for b in (8, 4, 3, 2)))] == [
        20, 10, 5, 4, 3,
    ]  # fmt: skip


def test_dead_channels_stay_what_they_are() -> None:
    z = torch.full((16, 3, 2, 2), 1.5)
    codec = CODECS.build("uniform").calibrate(z)
    assert torch.allclose(codec.decode(codec.encode(z)), z)


def test_bad_use_says_what_to_do() -> None:
    with pytest.raises(InputError, match="from 2 to 8, got 9"):
        CODECS.build("uniform:bits=9")
    with pytest.raises(InputError, match="calibrate"):
        CODECS.build("uniform").encode(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize("spec", SPECS)
def test_scaling_the_features_scales_what_is_decoded(spec: str) -> None:
    z = features(SHAPES[0])
    one, ten = CODECS.build(spec).calibrate(z), CODECS.build(spec).calibrate(10 * z)
    difference = ten.decode(ten.encode(10 * z)) / 10 - one.decode(one.encode(z))
    assert (difference.abs() > 1e-3 * z.abs().clamp_min(1)).float().mean() < 0.01


def test_half_is_as_exact_as_its_eleven_bits_and_never_infinite() -> None:
    z = features(SHAPES[0])
    codec = CODECS.build("half")
    error = (codec.decode(codec.encode(z)) - z).abs() / z.abs()
    assert 2**-13 < error.max() <= 2**-11 * 1.001
    assert codec.encode(np.array([[1e9, -1e9]], np.float32)).tolist() == [[65504, -65504]]


def test_clip_leaves_out_the_rarest_values_at_both_ends() -> None:
    z = np.random.default_rng(0).normal(size=(4000, 3)).astype(np.float32)
    z[0] = 1000
    clipped, whole = (CODECS.build(s).calibrate(z) for s in ("uniform:bits=4,clip=0.99", "uniform:bits=4"))
    low, step = (np.array(clipped.state()[name]) for name in ("low", "step"))
    np.testing.assert_allclose((z < low).mean(0), 0.005, atol=0.0005)
    np.testing.assert_allclose((z > low + 15 * step).mean(0), 0.005, atol=0.0005)
    assert (
        np.abs(whole.decode(whole.encode(z)) - z)[1:].mean()
        > 5 * np.abs(clipped.decode(clipped.encode(z)) - z)[1:].mean()
    )
    assert repr(whole) == "uniform:bits=4", "old bundles keep their contract"
    with pytest.raises(InputError, match=r"from 0.5 to 1, got 1.5; write uniform:bits=8,clip=0.999"):
        CODECS.build("uniform:bits=8,clip=1.5")


@pytest.mark.parametrize("spec", ["raw", "half", "uniform:bits=8", "uniform:bits=2,clip=0.9"])
def test_a_cell_holds_what_was_encoded_and_no_more_than_that(spec: str) -> None:
    z = np.random.default_rng(0).normal(size=(64, 3, 4, 4)).astype(np.float32)
    codec = CODECS.build(spec).calibrate(z)
    seen = codec.decode(codec.encode(z))
    low, high = codec.cell(seen)
    assert ((low <= z + 1e-6) & (z <= high + 1e-6)).all()
    if spec != "half":  # whose steps grow with the numbers: its cells are bounds
        inside = np.isfinite(low) & np.isfinite(high)
        low_end, high_end = (np.where(inside, end, seen) for end in (low, high))
        for share in (0.02, 0.98):
            within = (low_end + share * (high_end - low_end)).astype(np.float32)
            assert np.allclose(codec.decode(codec.encode(within)), seen, atol=1e-6)
    same = codec.cell(torch.from_numpy(seen))
    assert all(np.allclose(a, b.numpy()) for a, b in zip((low, high), same, strict=True))
