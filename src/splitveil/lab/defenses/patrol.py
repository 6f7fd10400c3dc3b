"""PATROL (Ding et al. 2024, WACV, arXiv 2307.10981): a deeper edge half, pruned to pay for it, amplifying little."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.adversarial import TERMS, fooled
from splitveil.lab.defenses.base import Adversary, Batch, Defense, Stage
from splitveil.lab.defenses.parts.budget import Costs, recounted
from splitveil.lab.defenses.parts.lipschitz import MODES, Blocks, local_constants
from splitveil.lab.defenses.parts.pruning import Group, attach, fold, prunable, remove, reshape, shrunk, weight_ranks
from splitveil.lab.defenses.parts.rival import Rival
from splitveil.lab.defenses.parts.triplet import batch_hard_triplet

MASKS, TUNE = "masks", "tune"
MARGIN = 0.3
"""Of the triplet loss, between embeddings of unit length."""


class Patrol(Defense):
    """Cut deeper than the device can afford, prune the edge half until it can, and train it to be hard to invert.

    ``task + sparsity * ||m||_1 + lipschitz * mean_i k_i - adversarial * (the rival's error, up to a bound)``. Every
    group of coupled channels inside the edge half has one soft mask m, 1 at first, behind its BatchNorm. The paper
    gives neither the mask loss nor its weights; ours is GAL's (Lin et al. 2019): a gradient step of size `step` on m,
    then ``m <- sign(m) * max(|m| - step * sparsity, 0)``, right after each backward pass and not by the optimiser.
    Our readings: the pull to zero rests while what is zero meets the budget, so that long training cannot empty the
    edge; alpha_i = 1 / blocks; k as in `splitveil.lab.defenses.parts.lipschitz`, so that scaling the features buys
    nothing; the adversarial term is a hinge as in ``adversarial``.

    Two stages: with masks; then without, on what is left, all other terms still on. Between them, or without training,
    channels go for good: those of mask 0, then the smallest until the budgets are met. Nothing that crosses the cut is
    pruned, nor what is added to it, so of a residual net only the insides of the blocks in the cut's stage.

    Args:
        budget: share of the edge half's multiply-accumulates that stays at most.
        parameters: share of its parameters that stays at most.
        least: channels that stay in every group.
        sparsity: weight of the L1 norm of the masks.
        step: of the masks.
        tune: share of the epochs for the second stage.
        lipschitz: weight of the mean k of all blocks; 0 leaves the term out.
        blocks: pieces of the edge half, evenly by multiply-accumulates; fewer where it has not so many cuts.
        mode: ``mean`` or ``max`` over images of a Gaussian change, or ``power`` for the worst change.
        sigma: of the Gaussian change, in units of x.
        probe: images of each batch that k is measured on.
        adversarial: weight of the adversarial term; 0 leaves it out.
        term: ``ssim`` or ``mse``, see ``adversarial``.
        aim: where its reward ends; by default 0.3 for SSIM and 0.05 for MSE.
        triplet: weight of a triplet loss beside the cross entropy: identity + triplet loss, the task loss of re-ID;
            see `task_loss`.

    Raises:
        InputError: an option out of range; when installed, an edge half that cannot be pruned to the budget.
    """

    name: ClassVar[str] = "patrol"

    kept_as: ClassVar[Mapping[str, str]] = {"parameters": "parameters_left"}

    def __init__(
        self,
        *,
        budget: float = 0.5,
        parameters: float = 1.0,
        least: int = 2,
        sparsity: float = 5e-3,
        step: float = 0.5,
        tune: float = 0.5,
        lipschitz: float = 0.05,
        blocks: int = 3,
        mode: str = "mean",
        sigma: float = 0.02,
        probe: int = 16,
        adversarial: float = 1.0,
        term: str = "ssim",
        aim: float | None = None,
        triplet: float = 0.0,
    ) -> None:
        super().__init__()
        if not (0 < budget <= 1 and 0 < parameters <= 1 and 0 < tune < 1 and least >= 1):
            raise InputError(
                f"expected budget and parameters in (0, 1], tune in (0, 1), least >= 1, got {budget}, {parameters}, "
                f"{tune}, {least}; use patrol:budget=0.5."
            )
        if min(sparsity, step, lipschitz, adversarial, triplet) < 0 or sigma <= 0 or blocks < 1 or probe < 2:
            raise InputError(
                "expected weights of at least 0, sigma > 0, blocks >= 1 and probe >= 2; use patrol:lipschitz=0.05."
            )
        if term not in TERMS or mode not in MODES:
            raise InputError(
                f"expected term of {', '.join(TERMS)} and mode of {', '.join(MODES)}, got {term!r}, {mode!r}; "
                "use patrol:term=ssim,mode=mean."
            )
        self.budget, self.parameters_left, self.least = float(budget), float(parameters), least
        self.sparsity, self.step, self.tune = float(sparsity), float(step), float(tune)
        self.lipschitz, self.blocks, self.mode, self.sigma = float(lipschitz), blocks, mode, float(sigma)
        self.probe, self.adversarial, self.term = probe, float(adversarial), term
        self.aim = float(aim) if aim is not None else 0.3 if term == "ssim" else 0.05
        self.triplet = float(triplet)
        self.masks = nn.ParameterList()
        self._groups: tuple[Group, ...] = ()
        self._costs: Costs | None = None
        self._pieces: Blocks | None = None
        self._pull = True

    def install(self, split: Split) -> Split:
        x = _example(split)
        self._groups = prunable(split.edge.eval(), x)
        if not self._groups:
            raise InputError(f"no channel before {split.cut.name!r} can be removed; cut deeper or use adversarial.")
        self._costs = Costs(split.edge, x, self._groups, split.cut.edge_macs)
        self._costs.require(self.budget, self.parameters_left, self.least)
        return split

    def restored(self, split: Split, weights: dict[str, Tensor]) -> Split:
        reshape(split.edge, weights)
        return recounted(split)

    def stages(self) -> tuple[Stage, ...]:
        return Stage(MASKS, 1 - self.tune, last=True), Stage(TUNE, self.tune)

    def enter(self, split: Split, stage: Stage) -> Split:
        if stage.name == MASKS:
            self._begin(split)
        else:
            split = self._pruned(split)
        self._pieces = Blocks(split.edge, _example(split), self.blocks) if self.lipschitz else None
        if stage.name == MASKS:
            attach(split.edge, self._groups, list(self.masks))
        return split

    def finish(self, split: Split) -> Split:
        self._pieces = None
        return self._pruned(split)

    def task_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Cross entropy over identities, and `triplet` times the batch-hard triplet loss with a margin of 0.3.

        Its embedding is that of `splitveil retrieve`: the logits less their mean, at unit length (our reading), so
        that logits that grow do not meet the margin for nothing. logits: (N, K); y: (N,).
        """
        found = super().task_loss(logits, y)
        if self.triplet:
            with torch.autocast(logits.device.type, enabled=False):
                wide = logits.float()
                unit = F.normalize(wide - wide.mean(1, keepdim=True), dim=1)
                found = found + self.triplet * batch_hard_triplet(unit, y, margin=MARGIN)
        return found

    def penalty(self, batch: Batch) -> Tensor:
        found = super().penalty(batch)
        if self._costs is not None and len(self.masks):
            left = [int(m.detach().count_nonzero()) for m in self.masks]
            self._pull = not self._costs.met(left, self.budget, self.parameters_left)
        if self._pieces is not None and len(batch.x) > 1:
            with torch.autocast(batch.x.device.type, enabled=False):
                k = local_constants(
                    self._pieces.of(batch.edge), batch.x[: self.probe].float(), mode=self.mode, sigma=self.sigma
                )
            found = found + self.lipschitz * k.mean()
        if self.adversarial and batch.guess is not None:
            found = found + self.adversarial * fooled(batch.x, batch.guess(batch.z).image, self.term, self.aim)
        return found

    def adversary(self, cut: tuple[int, ...], image: tuple[int, int, int], classes: int) -> Adversary | None:
        return Rival(cut, image) if self.adversarial else None

    def _begin(self, split: Split) -> None:
        device = _example(split).device
        self.masks = nn.ParameterList(nn.Parameter(torch.ones(g.width, device=device)) for g in self._groups)
        for mask in self.masks:
            mask.register_post_accumulate_grad_hook(self._proximal)

    def _proximal(self, mask: Tensor) -> None:
        """After the backward pass: the masks' own step; without a gradient the optimiser passes them over."""
        if mask.grad is not None:
            moved = mask.detach() - self.step * mask.grad
            mask.data.copy_(shrunk(moved, self.step * self.sparsity if self._pull else 0.0))
            mask.grad = None

    def _pruned(self, split: Split) -> Split:
        """Without the channels that the budgets leave no room for; once done, nothing more."""
        if self._costs is None:
            return split
        if not len(self.masks):
            self._begin(split)
        fold(split.edge, self._groups)
        dead = self._costs.choose(
            [mask.detach() for mask in self.masks],
            weight_ranks(split.edge, self._groups),
            macs=self.budget,
            parameters=self.parameters_left,
            least=self.least,
        )
        remove(split.edge, _example(split), self._groups, dead)
        self.masks, self._groups, self._costs = nn.ParameterList(), (), None
        return recounted(split)


def _example(split: Split) -> Tensor:
    """One image, blank, where the edge half is."""
    if not split.image:
        raise InputError("expected a split that knows the shape of its images; make it by splitveil.split or halves.")
    like = next(split.edge.parameters(), torch.zeros(()))
    return torch.zeros(1, *split.image, device=like.device)
