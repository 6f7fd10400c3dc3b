"""A bundle whose edge half is an ONNX graph that torch cannot train: read by running the graph itself."""

import hashlib
from typing import Any, Literal

import onnxruntime
import torch
from torch import Tensor, nn

from splitveil.core.errors import BundleError
from splitveil.core.records import StandIn
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.restoring.weights import rebuilt
from splitveil.lab.seeds import generator
from splitveil.wire.bundle import EDGE, FLOAT_EDGE, Bundle

COMPARED, AT_ONCE = 256, 64
"""Images on which the float edge half is held against the graph."""


class Graph:
    """The edge graph of a bundle in ONNX Runtime: images, and noise if it takes any, to codes and what they stand for.

    Args:
        content: of ``edge.onnx``.
        protected: has the codec and the shape of the features.
        noise: shape of one sample's noise; None where the graph takes none.
    """

    def __init__(self, content: bytes, protected: Protected, noise: tuple[int, ...] | None) -> None:
        self._content, self._session = content, _session(content)
        self._codec, self.noise, self._shape = protected.codec, noise, protected.split.cut.shape
        self.sha256, self.bytes = hashlib.sha256(content).hexdigest(), len(content)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_session": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _session=_session(state["_content"]))

    def codes(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """As the codec has them. x: (N, C, H, W) in [0, 1]; noise: standard normal -> (N, *cut)."""
        given = {"x": x} if noise is None else {"x": x, "noise": noise}
        inputs = {name: value.detach().float().cpu().contiguous().numpy() for name, value in given.items()}
        packed = torch.from_numpy(self._session.run(None, inputs)[0])
        found: Tensor = self._codec.unpack(packed, self._shape)
        return found

    def read(self, x: Tensor) -> Tensor:
        """What an adversary reads: (N, C, H, W) -> (N, *cut). Noise afresh from torch's generator."""
        noise = None if self.noise is None else torch.randn(len(x), *self.noise)
        z: Tensor = self._codec.decode(self.codes(x, noise))
        return z.to(x.device)


def _session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"], enable_fallback=0)


class StraightThrough(nn.Module):
    """An edge half with the graph's values and the slope of the floats that the graph was made from.

    Bengio, Léonard & Courville 2013 (arXiv 1308.3432), section 4, around the whole half instead of each rounding.
    """

    def __init__(self, floats: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.floats, self.graph = floats, graph

    def extra_repr(self) -> str:
        """The graph, so that another one is another module."""
        return self.graph.sha256

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> (N, *cut)."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.graph.read(x)
        smooth: Tensor = self.floats(x)
        return smooth + (self.graph.read(x).to(smooth) - smooth).detach()


class Shipped(Protected):
    """A protected split whose features come out of the graph that ships, and nowhere else.

    `observe` begins with images, for inside the graph no features can be told from what follows. An adversary who knows
    the weights and searches through the edge half descends on a stand-in: where the defence does nothing between the
    halves, values are the graph's own (`StraightThrough`); else it is the float edge half with the defence after it.

    Attributes:
        graph: what ships.
        floats: the protected split that was quantised.
        straight: the stand-in has the graph's values.
    """

    def __init__(self, floats: Protected, graph: Graph) -> None:
        split, straight = floats.split, not floats.defense.acts
        edge = StraightThrough(split.edge, graph) if straight else split.edge
        super().__init__(Split(edge, split.cloud, split.cut, split.image), floats.defense, floats.codec)
        self.graph, self.straight, self.epochs = graph, straight, floats.epochs
        # In a list, so that no weight is listed twice.
        self._floats = [floats]

    @property
    def floats(self) -> Protected:
        """The float twin whole."""
        return self._floats[0]

    @property
    def twin(self) -> nn.Module:
        """The float edge half: no value of the graph can be read through it."""
        return self.floats.split.edge

    @property
    def graph_sha256(self) -> str:
        return self.graph.sha256

    def features(self, x: Tensor) -> Tensor:
        """The images themselves."""
        return x

    def observe(self, z: Tensor) -> Tensor:
        """What an adversary reads when the device is given z: (N, C, H, W), images -> (N, *cut)."""
        return self.graph.read(z)

    def bare(self, z: Tensor) -> Tensor:
        """As the float edge half has it; z: (N, C, H, W), images."""
        return self.floats.bare(self.twin(z))

    def compared(self, x: Tensor) -> StandIn:
        """The float edge half held against the graph on the same images and noise, drawn from seed 0.

        x: (n, C, H, W) uint8; the first 256 are enough.
        """
        draws, codec, told = generator(0, "stand-in"), self.codec, list[tuple[Tensor, Tensor]]()
        with torch.inference_mode():
            for part in x[:COMPARED].split(AT_ONCE):
                images = as_floats(part)
                shape = self.graph.noise
                noise = None if shape is None else torch.randn(len(part), *shape, generator=draws)
                codes = codec.encode(self.defense.apply_noise(self.twin(images), noise))
                told.append((self.graph.codes(images, noise), codes))
        ours, theirs = (torch.cat(codes) for codes in zip(*told, strict=True))
        shipped, floats = (codec.decode(codes).double() for codes in (ours, theirs))
        spread = (shipped - shipped.mean(0)).square().mean().sqrt().clamp_min(1e-12)
        error = float((shipped - floats).square().mean().sqrt() / spread)
        equal = None if codec.wire_dtype == "FP32" else float((ours == theirs).float().mean())
        codes_said = "" if equal is None else f", {equal:.1%} of its codes are the same"
        kind: Literal["straight-through", "float"] = "straight-through" if self.straight else "float"
        what = "the graph's values with the slope of the" if self.straight else "a stand-in, the"
        return StandIn(
            kind=kind, n=len(ours), relative_error=error, equal_codes=equal,
            words="all features, of private images, of the adversary's and of its queries, come from the shipped "
            f"8-bit ONNX graph; searches through the edge half descend on {what} float edge half that was "
            f"quantised, which is {error:.1%} of the features' deviation away from the graph{codes_said} "
            f"({len(ours)} images)",
        )  # fmt: skip


def restore_shipped(bundle: Bundle, *, model: str | None = None) -> Shipped:
    """A quantised bundle to be audited: its graph, with the floats that it was made from as a stand-in.

    model: as of `restore`.

    Raises:
        BundleError: one half alone, an altered file, or written before bundles kept these floats.
        InputError: the model that the manifest names cannot be built here.
    """
    bundle.require_edge()
    bundle.require_cloud()
    manifest = bundle.manifest
    if FLOAT_EDGE not in manifest.files:
        source = f" {manifest.quantization.source[:12]}" if manifest.quantization else ""
        raise BundleError(
            f"{bundle.folder} has no {FLOAT_EDGE}, which an audit's searches need; run `splitveil bundle quantize` "
            f"again on the bundle{source} that it was made from."
        )
    floats = rebuilt(bundle, FLOAT_EDGE, model)
    noise = tuple(manifest.noise.shape[1:]) if manifest.noise else None
    return Shipped(floats, Graph(bundle.graph(EDGE), floats, noise)).eval()
