"""Rising functions of channels are undone, whatever they are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.attacks.parts.curves import Curves, informative_curves
from splitveil.lab.attacks.parts.places import Places, parts_of, places_of
from splitveil.lab.attacks.view import Aux

from .conftest import images, labels

KNOWN = images(256, 2)


def places(function: Callable[[Tensor], Tensor]) -> Places:
    torch.manual_seed(0)
    with torch.no_grad():
        h = nn.Conv2d(3, 8, 3, 2, 1)(KNOWN.float() / 255)
        z = function(h / h.std())
    return places_of(lambda index: z[index], Aux(KNOWN, labels(KNOWN)), 0)


BENT: dict[str, Callable[[Tensor], Tensor]] = {
    "straight": lambda h: 5 - h,
    "exp": lambda h: torch.exp(2 * h),
    "falling": lambda h: -torch.exp(-h),
    "cube": lambda h: h**3,
    "sinh": lambda h: torch.sinh(2 * h),
    "log": lambda h: h.sign() * torch.log1p(3 * h.abs()),
    "softplus": lambda h: nn.functional.softplus(2 * h),
    "sigmoid": torch.sigmoid,
    "no known family": lambda h: h + 0.9 * torch.sin(h) + torch.relu(h) ** 2,
}


@pytest.mark.parametrize("name", BENT)
def test_a_rising_function_is_undone(name: str) -> None:
    plain, bent = places(lambda h: h), places(BENT[name])
    found = informative_curves(bent)(bent.z)
    alike = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(found.T, plain.z.T, strict=True)])
    assert alike.abs().mean() > 0.96


def test_what_is_straight_stays_and_zeros_of_a_relu_are_one_value() -> None:
    assert torch.equal(informative_curves(places(lambda h: h)).knots, informative_curves(places(lambda h: h)).values)
    rectified = places(lambda h: torch.exp(torch.relu(h)))
    u = informative_curves(rectified)(rectified.z)
    assert u.isfinite().all()
    assert u[rectified.z == 1].reshape(-1).unique().numel() <= rectified.z.shape[1]


def test_a_curve_goes_through_its_knots_on_beyond_them_and_back() -> None:
    curve = Curves(torch.tensor([[0.0, 0.0, 1.0, 3.0]]), torch.tensor([[-1.0, -1.0, 0.0, 4.0]]))
    z = torch.tensor([[0.0], [0.5], [1.0], [2.0], [4.0]], requires_grad=True)
    u = curve(z)
    assert u.flatten().tolist() == [-1, -0.5, 0, 2, 6]
    assert torch.autograd.grad(u.sum(), z)[0].flatten().tolist() == [1, 1, 2, 2, 2]
    assert torch.allclose(curve.inverse()(u), z)


def test_parts_of_the_image_lie_where_the_features_do() -> None:
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(parts_of(x, (8, 16, 16)).reshape(2, 16, 16, 3, 25)[:, 4, 7, :, 12], x[:, :, 4, 7])
    assert parts_of(x, (8, 4, 4)).shape == (2, 16, 3 * 4 * 25)
    assert parts_of(x, (16, 24)).shape == (2, 16, 300), "tokens in a square"
    assert parts_of(x, (17, 24)).shape[1] == 17, "with a class token"
    assert parts_of(x, (100,)).shape == (2, 1, 192)
    assert parts_of(x, (5, 24)).shape[:2] == (2, 5), "tokens in no order"
