"""Conditional entropy maximisation (CEM, CVPR 2025, arXiv 2503.00383): little variance within clusters, under noise."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Batch, Sample
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.metrics.bounds.cem import CLUSTERS, clusters
from splitveil.lab.training import infer

STEADY = 0.01
"""Added to variances before the logarithm, as published; here in units of the features' mean square."""
PULL, MOST = 10.0, 0.99
"""Weight of a batch's variance beside the remembered one: ten times its share of the cluster, at most 0.99."""
FORMS = ("isotropic", "per_dimension")


class ConditionalEntropy(GaussianNoise):
    """Gaussian noise, and a price on what varies within the clusters of a class: that is what the noise must hide.

    With h clipped as in ``noise``, before its noise, and c the nearest of five k-means centres of its own class,

        ``L_C = mean over classes of sum_k pi_k ReLU(log(v_k + 0.01) - log(threshold * sigma^2 + 0.01))``

    v_k the mean of (h - c)^2 over the batch's members and over elements, blended with the remembered one. That is the
    loss of the released code (``isotropic``); it can be met while a few elements vary much. ``per_dimension`` takes
    ReLU of the logarithm for every element and their mean: the log-determinant of the bound behind it, which is
    `metrics.bounds.cem.information_bound` (our reading).

    The code pins the range with a sigmoid. Here h, v and sigma are in units of the batch's root mean square, so that
    neither scale nor offset gains what the noise would not get too. Where the code finds the clusters again every
    epoch, ours are found once, before training, and follow the batches: a centre is the mean of about as many samples
    as its cluster had (our reading). Centres are kept while training only and never leave with the edge half.

    Args:
        sigma: noise-to-signal ratio at the clip, see ``noise``.
        weight: of L_C beside the cross-entropy. Published 8 and 16, on the encoder's gradient times 0.001 / lr, 0.02
            for most of the training.
        form: isotropic or per_dimension.
        threshold: variance that costs nothing, in units of the noise's.
        count: clusters of each class.
        clip: bound of the L2 norm of one sample's z, in median norms.

    Raises:
        InputError: an option out of range.
    """

    name: ClassVar[str] = "cem"
    measures: ClassVar[bool] = True
    centres: Tensor | None
    variances: Tensor | None
    sizes: Tensor | None

    def __init__(
        self,
        *,
        sigma: float = 0.5,
        weight: float = 0.3,
        form: str = "isotropic",
        threshold: float = 0.125,
        count: int = CLUSTERS,
        clip: float = 1.0,
    ) -> None:
        super().__init__(sigma=sigma, clip=clip)
        if form not in FORMS:
            raise InputError(f"expected form isotropic or per_dimension, got {form!r}; use cem:form=isotropic.")
        if not (weight >= 0 and threshold > 0 and count >= 1):
            raise InputError(
                f"expected weight >= 0, threshold > 0 and count >= 1, got {weight}, {threshold}, {count}; "
                "use cem:weight=0.3."
            )
        self.weight, self.threshold, self.count, self.form = float(weight), float(threshold), count, form
        for name in ("centres", "variances", "sizes"):
            self.register_buffer(name, None)

    def study(self, split: Split, sample: Sample) -> None:
        features = infer(split.edge, sample.x.split(250))
        self.calibrate(features)
        classes = infer(split.cloud, [features[:2]]).shape[1]
        self.begin(self._units(features), sample.y, max(classes, int(sample.y.max()) + 1), sample.seed)

    def begin(self, u: Tensor, y: Tensor, classes: int, seed: int = 0) -> None:
        """Find the clusters of each class. u: (M, D), in units of the root mean square; y: (M,)."""
        groups, seen = clusters(u, labels=y, count=self.count, seed=seed % 2**32).to(u.device), y.unique()
        groups = seen[groups // self.count].long() * self.count + groups % self.count
        sizes = torch.bincount(groups, minlength=classes * self.count).float()
        total = sizes[:, None].clamp_min(1)
        centres = u.new_zeros(len(sizes), u.shape[1]).index_add_(0, groups, u) / total
        squares = self._squares(u - centres[groups])
        self.centres, self.sizes = centres, sizes
        self.variances = u.new_zeros(len(sizes), squares.shape[1]).index_add_(0, groups, squares) / total

    def penalty(self, batch: Batch) -> Tensor:
        with torch.autocast(batch.h.device.type, enabled=False):
            return self.weight * self.conditional_entropy(self._units(batch.h), batch.y)

    def conditional_entropy(self, u: Tensor, y: Tensor) -> Tensor:
        """L_C, scalar; the clusters follow. u: (N, D), in units of the root mean square; y: (N,)."""
        if self.centres is None or self.variances is None or self.sizes is None:
            return u.new_zeros(())
        group, known = self._nearest(u.detach(), y, self.centres, self.sizes)
        u, group, classes = u[known], group[known], len(y[known].unique())
        if not classes:
            return u.new_zeros(())
        with torch.no_grad():
            found, member = group.unique(return_inverse=True)
            members = torch.bincount(member, minlength=len(found)).to(u)[:, None]
            size = self.sizes[found][:, None]
            pull = (PULL * members / size).clamp(max=MOST)
            share = size[:, 0] / self.sizes.reshape(-1, self.count).sum(1)[found // self.count]
        squares = self._squares(u - self.centres[group])
        inside = squares.new_zeros(len(found), squares.shape[1]).index_add(0, member, squares) / members
        v = pull * inside + (1 - pull) * self.variances[found]
        excess = F.relu((v + STEADY).log() - (v.new_tensor(self.threshold * self.sigma**2) + STEADY).log()).mean(1)
        with torch.no_grad():
            mean = torch.zeros(len(found), u.shape[1]).to(u).index_add_(0, member, u) / members
            followed = self.centres[found]
            self.centres[found] = followed + (members / size).clamp(max=0.5) * (mean - followed)
            self.variances[found] = v
        return (share * excess).sum() / classes

    def finish(self, split: Split) -> Split:
        """The clusters are means of training features and no business of a device."""
        self.centres = self.variances = self.sizes = None
        return split

    def _units(self, h: Tensor) -> Tensor:
        """Clipped features without noise, in units of their root mean square: (N, D), float32."""
        flat = self.mean(h.float()).flatten(1)
        unit: Tensor = flat / flat.square().mean().clamp_min(1e-24).sqrt()
        return unit

    def _squares(self, away: Tensor) -> Tensor:
        """(N, D) -> (N, 1) for the isotropic form, else (N, D)."""
        return away.square().mean(1, keepdim=True) if self.form == "isotropic" else away.square()

    def _nearest(self, u: Tensor, y: Tensor, centres: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest cluster of each sample's own class, and whether it has one: (N,) each."""
        own = torch.arange(len(centres), device=u.device) // self.count
        open_ = (own[None] == y[:, None]) & (sizes > 0)
        away = centres.square().sum(1) - 2 * u @ centres.T
        return away.masked_fill(~open_, torch.inf).argmin(1), open_.any(1)
