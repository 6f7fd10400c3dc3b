"""`Wire`: what crossed at one configuration, drawn once for all attacks, and the `View` that an adversary gets."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.parts.frames import Camera
from splitveil.lab.attacks.view import Aux, Knows, Shared, View
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.images import as_floats
from splitveil.lab.seeds import derive

BATCH = 250


class Wire:
    """The crossings of the private images at one configuration, drawn once for all attacks.

    Everything lies on the accelerator in use; the nets are there as well while it is `placed`.

    Args:
        configuration: cut, defence and codec.
        private: clean features of the private images, (N, *cut), or whatever `Protected.observe` begins with; they
            enter no view.
        known: the same of the adversary's images, (M, *cut).
        aux: the adversary's images.
        knows: its grants.
        seed: of the audit.
        workdir: for what attacks share; None for nowhere.
        images: the private images, (N, C, H, W) uint8, for an edge half that draws at random and so must see them for
            every crossing, and for clips; they enter no view.
    """

    def __init__(
        self,
        configuration: Configuration,
        private: Tensor,
        known: Tensor,
        aux: Aux,
        knows: Knows,
        seed: int,
        workdir: Path | None,
        images: Tensor | None = None,
    ) -> None:
        where = Accelerator.chosen()
        self.images = None if images is None else images.to(where.device)
        private, known, aux = private.to(where.device), known.to(where.device), aux.to(where.device)
        self.c, self.private, self.aux, self.knows, self.seed = configuration, private, aux, knows, seed
        self.stochastic, self.rest = configuration.stochastic, configuration.protected.defense.rest()
        if not self.stochastic and (not configuration.plain or self.rest is not None):
            with torch.no_grad(), where.used(configuration.protected):
                known = torch.cat([configuration.protected.observe(part) for part in known.split(1024)])
        self.known = known
        self.shared = Shared(derive(seed, configuration.label, "shared"), workdir)
        self.foreign = frozenset[str]()

    def holding(self, made: Mapping[str, object], foreign: frozenset[str]) -> "Wire":
        """The same for another attack.

        Args:
            made: what attacks before it made to be shared, by key; see `View.once`.
            foreign: keys whose making is another attack's affair; see `View.foreign`.
        """
        other = copy.copy(self)
        other.shared, other.foreign = Shared(self.shared.seed, self.shared.workdir), foreign
        other.shared.made |= made
        return other

    def placed(self) -> AbstractContextManager[object]:
        """While attacks run."""
        return Accelerator(self.private.device).used(self.c.protected)

    def crossing(self, k: int, camera: Camera | None = None) -> Tensor:
        """What crosses when the private images, or the k-th frames of them, are sent for the k-th time, (N, *cut)."""
        if camera is not None and k:
            return self._filmed(k, camera)
        torch.manual_seed(derive(self.seed, self.c.label, "crossing", k))
        with torch.no_grad():
            private = self.private
            if self.c.random and self.images is not None:
                private = torch.cat([self.c.split.edge(as_floats(part)) for part in self.images.split(BATCH)])
            return self.c.protected.observe(private).clone()

    def _filmed(self, k: int, camera: Camera) -> Tensor:
        if self.images is None:
            raise TypeError("clips need the private images")
        frames = camera.frame(as_floats(self.images), k, derive(self.seed, "clip"))
        torch.manual_seed(derive(self.seed, self.c.label, "frame", k))
        with torch.no_grad():
            return torch.cat([self.c.protected.sent(part) for part in frames.split(BATCH)])

    def _architecture(self) -> nn.Module | None:
        """Whose architecture is public, where it is not just the edge that the view holds."""
        protected = self.c.protected
        if self.rest is not None:
            return nn.Sequential(protected.twin, self.rest)
        return None if protected.twin is self.c.split.edge else protected.twin

    def view(self, seed: int, crossings: int, workdir: Path | None, camera: Camera | None = None) -> View:
        """What the adversary holds; nothing in it leads to a private image or to its clean features."""
        return self._view([self.crossing(k, camera) for k in range(crossings)], seed, workdir=workdir)

    def own(self, seed: int, crossings: int, index: Tensor, camera: Camera | None = None) -> View:
        """The same were these of the adversary's own images the private ones. index: (n,) into `aux`."""
        observe, query = _channel(self.c, self.known, self.aux)
        torch.manual_seed(derive(seed, self.c.label, "own"))

        def sent(k: int) -> Tensor:
            if camera is None or not k:
                return observe(index)
            return query(camera.frame(self.aux.images(index), k, derive(seed, "own clip")))

        return self._view([sent(k) for k in range(crossings)], seed, label=" on own images")

    def rescaled(self, seed: int, crossings: int, factor: float, most: int, camera: Camera | None = None) -> View:
        """The view of the first `most` private images were all features `factor` times as large, and nothing shared."""
        z = [factor * self.crossing(k, camera)[:most] for k in range(crossings)]
        return self._view(z, seed, factor=factor, label=f" times {factor:g}")

    def _view(
        self,
        z: Sequence[Tensor],
        seed: int,
        *,
        workdir: Path | None = None,
        factor: float | None = None,
        label: str = "",
    ) -> View:
        """z: (N, *cut) of each crossing, times `factor`."""
        observe, query = _channel(self.c, self.known, self.aux)
        edge, defense, cloud = self.c.split.edge, self.c.protected.defense, self.c.split.cloud
        view = View(
            z[0],
            self._shape(),
            knows=self.knows,
            aux=self.aux,
            observe=observe if factor is None else lambda index: factor * observe(index),
            query=query if factor is None else lambda x: factor * query(x),
            edge_draws=self.c.random,
            edge=edge if factor is None else Times(edge, 1, factor),
            defense=defense if factor is None else Times(defense, 1 / factor, factor),
            cloud=cloud if factor is None else Times(cloud, 1 / factor, 1),
            again=torch.stack(list(z[1:])) if len(z) > 1 else None,
            stochastic=self.stochastic,
            seed=seed,
            workdir=workdir,
            label=f"{self.c.label}{label}",
            shared=self.shared if factor is None else Shared(self.shared.seed),
            architecture=self._architecture(),
            codec=self.c.protected.codec if factor is None else None,
        )
        view.foreign = self.foreign
        return view

    def _shape(self) -> tuple[int, int, int]:
        channels, height, width = self.aux.x.shape[1:]
        return channels, height, width


class Times(nn.Module):
    """A module that lives among features of another scale."""

    def __init__(self, inner: nn.Module, before: float, after: float) -> None:
        super().__init__()
        self.inner, self.before, self.after = inner, before, after

    def forward(self, x: Tensor) -> Tensor:
        """The inner module's answer to ``before * x``, times `after`."""
        out: Tensor = self.inner(x * self.before) * self.after
        return out


def _channel(
    c: Configuration, known: Tensor, aux: Aux
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """`observe` and `query` of a view. They hold nothing but `c`, `known` and `aux`: no private features."""

    def observe(index: Tensor) -> Tensor:
        with torch.no_grad():
            if c.random:
                return c.protected.sent(aux.images(index))
            return c.protected.observe(known[index]) if c.stochastic else known[index]

    def query(x: Tensor) -> Tensor:
        with torch.no_grad():
            return c.protected.sent(x)

    return observe, query
