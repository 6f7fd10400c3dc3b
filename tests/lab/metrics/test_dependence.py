import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import pairwise_distances
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from splitveil.core.errors import InputError
from splitveil.lab.metrics import dependence
from splitveil.lab.metrics.dependence import (
    distance_correlation,
    distance_correlation_unbiased,
    hsic,
    hsic_unbiased,
    linear_cka,
    linear_cka_debiased,
)

Measure = Callable[[Tensor, Tensor], Tensor]
ALL: tuple[Measure, ...] = (
    distance_correlation, distance_correlation_unbiased, hsic, hsic_unbiased, linear_cka, linear_cka_debiased,
)  # fmt: skip
UNBIASED = (distance_correlation_unbiased, hsic_unbiased, linear_cka_debiased)
BIASED = (distance_correlation, linear_cka)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(n: int = 40) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, 8, 8, generator=draws())
    z = torch.nn.functional.avg_pool2d(x, 2).repeat(1, 2, 1, 1)
    return x, (z - 0.5 + 0.1 * torch.randn(n, 6, 4, 4, generator=draws(1))).relu()


def distances(t: Tensor) -> Tensor:
    """By SciPy, from differences (its name here is minkowski; scikit-learn's euclidean goes by the Gram matrix)."""
    return torch.from_numpy(pairwise_distances(t.flatten(1).double().numpy(), metric="minkowski", p=2))


def broadcast(t: Tensor) -> Tensor:
    """The plain form of published code, in the precision of `t`."""
    t = t.flatten(1)
    return ((t[:, None] - t[None, :]).square().sum(2) + 1e-10).sqrt()


def v_statistic(a: Tensor, b: Tensor) -> Tensor:
    a, b = (d - d.mean(0) - d.mean(1, keepdim=True) + d.mean() for d in (a, b))
    return (a * b).mean() / ((a * a).mean() * (b * b).mean()).sqrt()


def song(k: Tensor, l: Tensor) -> float:  # noqa: E741
    """Unbiased HSIC as Song et al. 2012 print it, three sums."""
    n = len(k)
    k, l = (m - torch.diag(m.diagonal()) for m in (k, l))  # noqa: E741
    total = (k @ l).trace() + k.sum() * l.sum() / (n - 1) / (n - 2) - 2 * (k @ l).sum() / (n - 2)
    return float(total) / (n * (n - 3))


def gaussian(t: Tensor) -> Tensor:
    d = distances(t)
    width = d[d > 0].median()
    return (-d.square() / (2 * width**2)).exp()


def test_distance_correlation_is_the_broadcast_form() -> None:
    x, z = pair()
    assert float(distance_correlation(x, z)) == pytest.approx(float(v_statistic(distances(x), distances(z))), abs=1e-6)
    assert float(distance_correlation(x, z)) == pytest.approx(float(v_statistic(broadcast(x), broadcast(z))), abs=1e-4)


def test_the_gradient_is_that_of_the_broadcast_form() -> None:
    x, z = pair()
    slopes = []
    for value in (distance_correlation, lambda a, b: v_statistic(broadcast(a), broadcast(b))):
        leaf = z.clone().requires_grad_(True)
        value(x, leaf).backward()
        slopes.append(leaf.grad)
    assert slopes[0] is not None
    assert slopes[1] is not None
    assert (slopes[0] - slopes[1]).norm() < 1e-4 * slopes[1].norm()


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_correlated_gaussians_have_the_known_value(rho: float) -> None:
    """Szekely, Rizzo and Bakirov 2007, theorem 7."""
    x = torch.randn(1500, 1, generator=draws())
    z = rho * x + math.sqrt(1 - rho**2) * torch.randn(1500, 1, generator=draws(1))
    top = rho * math.asin(rho) + math.sqrt(1 - rho**2) - rho * math.asin(rho / 2) - math.sqrt(4 - rho**2) + 1
    known = top / (1 + math.pi / 3 - math.sqrt(3))
    assert float(distance_correlation_unbiased(x, z)) == pytest.approx(known, abs=0.03)


def test_hsic_is_the_trace_form() -> None:
    x, z = pair()
    n = len(x)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    k, l = gaussian(x), gaussian(z)  # noqa: E741
    assert float(hsic(x, z)) == pytest.approx(float((k @ h @ l @ h).trace()) / (n - 1) ** 2, rel=1e-5)
    assert float(hsic_unbiased(x, z)) == pytest.approx(song(k, l), rel=1e-4)


def test_cka_is_the_feature_form_and_its_debiased_form_songs() -> None:
    x, z = pair()
    a, b = (t.flatten(1).double() - t.flatten(1).double().mean(0) for t in (x, z))
    known = (b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert float(linear_cka(x, z)) == pytest.approx(float(known), abs=1e-6)
    k, l = a @ a.T, b @ b.T  # noqa: E741
    assert float(linear_cka_debiased(x, z)) == pytest.approx(song(k, l) / math.sqrt(song(k, k) * song(l, l)), abs=1e-6)


def test_an_orthogonal_map_is_complete_dependence() -> None:
    x = torch.randn(60, 10, generator=draws())
    turned = 3 * x @ torch.linalg.qr(torch.randn(10, 10, generator=draws(1))).Q + 5
    for measure in (*BIASED, distance_correlation_unbiased, linear_cka_debiased):
        assert float(measure(x, turned)) == pytest.approx(1, abs=1e-5)


def test_only_the_unbiased_forms_see_that_wide_noise_is_independent() -> None:
    x, z = torch.randn(128, 3000, generator=draws()), torch.randn(128, 3000, generator=draws(1))
    assert all(float(measure(x, z)) > 0.9 for measure in BIASED)
    assert all(abs(float(measure(x, z))) < 0.03 for measure in UNBIASED)


def test_the_unbiased_forms_are_zero_on_average() -> None:
    for measure in UNBIASED:
        wide = torch.randn(200, 12, 9, generator=draws())
        values = torch.stack([measure(rows[:, :5], rows[:, 5:]) for rows in wide])
        assert abs(values.mean()) < 3.5 * values.std() / math.sqrt(200)


@pytest.mark.parametrize("measure", ALL)
def test_invariances(measure: Measure) -> None:
    x, z = pair()
    value = float(measure(x, z))
    order = torch.randperm(len(x), generator=draws(2))
    rotation = torch.linalg.qr(torch.randn(96, 96, generator=draws(3))).Q
    same = {
        "order": measure(x[order], z[order]),
        "scale": measure(x, 10 * z),
        "tiny": measure(x, 1e-6 * z),
        "channels": measure(x, z[:, torch.randperm(6, generator=draws(4))]),
        "rotation": measure(x, z.flatten(1) @ rotation),
        "offset": measure(x, z + 1),
        "sides": measure(z, x),
    }
    for name, other in same.items():
        assert float(other) == pytest.approx(value, rel=1e-4), name
    assert abs(float(measure(x[order], z)) - value) > 1e-2 * abs(value)


@pytest.mark.parametrize("measure", ALL)
def test_gradients_are_exact(measure: Measure) -> None:
    x = torch.randn(7, 3, dtype=torch.float64, generator=draws()).requires_grad_(True)
    z = torch.randn(7, 2, 2, dtype=torch.float64, generator=draws(1)).requires_grad_(True)
    assert torch.autograd.gradcheck(measure, (x, z))


@pytest.mark.parametrize("measure", ALL)
def test_scaling_z_earns_nothing(measure: Measure) -> None:
    """The gradient has no part along z: a loss cannot be lowered by growing or shrinking z."""
    x, z = pair()
    z.requires_grad_(True)
    measure(x, z).backward()
    assert z.grad is not None
    assert abs((z.grad * z).sum()) < 1e-4 * z.grad.norm() * z.norm()


@pytest.mark.parametrize("measure", ALL)
def test_equal_and_constant_rows_are_safe(measure: Measure) -> None:
    x, z = pair(30)
    z[1] = z[0]
    z.requires_grad_(True)
    measure(x, z).backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())
    flat = torch.full((30, 6, 4, 4), 0.1, requires_grad=True)
    value = measure(x, flat)
    value.backward()
    assert abs(value.item()) < 1e-12
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())


@pytest.mark.parametrize("measure", ALL)
def test_what_is_not_a_number_is_not_hidden(measure: Measure) -> None:
    x, z = pair()
    z[3, 0, 0, 0] = torch.nan
    assert math.isnan(float(measure(x, z)))


def test_near_duplicates_far_from_the_origin_keep_their_distance() -> None:
    """In float32 the Gram matrix of these rows holds no trace of their distances."""
    z = 1000 + torch.randn(30, 50, generator=draws())
    z[1] = z[0] + 1e-2
    found = dependence.distances(z)
    assert torch.allclose(found, distances(z), rtol=1e-6, atol=1e-12)


def test_columns_in_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, z = pair()
    whole, slopes = distance_correlation(x, z), []
    for narrowest in (dependence.NARROWEST, 7):
        monkeypatch.setattr(dependence, "CHUNK", 1)
        monkeypatch.setattr(dependence, "NARROWEST", narrowest)
        leaf = z.clone().requires_grad_(True)
        value = distance_correlation(x, leaf)
        value.backward()
        slopes.append(leaf.grad)
        assert value.item() == pytest.approx(float(whole), abs=1e-7)
    assert slopes[0] is not None
    assert slopes[1] is not None
    assert torch.allclose(slopes[0], slopes[1], rtol=1e-4, atol=1e-9)


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.size = max(self.size, out.numel() * out.element_size())
        return out


def test_memory_does_not_grow_with_pairs_times_features() -> None:
    """The broadcast form makes 805 MB at this size."""
    x, z = torch.rand(128, 3, 64, 64, generator=draws()), torch.rand(128, 12, 16, 16, generator=draws(1))
    z.requires_grad_(True)
    with Largest() as seen:
        distance_correlation(x, z).backward()
    assert 1e6 < seen.size < 20e6


def test_features_of_half_precision_and_of_inference_are_read() -> None:
    x, z = pair()
    with torch.inference_mode():
        frozen = x.clone()
    value = distance_correlation(frozen, z.clone().requires_grad_(True))
    value.backward()
    half = distance_correlation(x, z.bfloat16())
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(value.item(), abs=1e-3)


@pytest.mark.parametrize("measure", ALL)
def test_bad_input_names_the_remedy(measure: Measure) -> None:
    for x, z in (
        (torch.rand(5, 2), torch.rand(6, 2)),
        (torch.rand(1, 2), torch.rand(1, 2)),
        (torch.rand(9), torch.rand(9)),
    ):
        with pytest.raises(InputError, match="; give pairs"):
            measure(x, z)
