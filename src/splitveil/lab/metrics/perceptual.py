"""How near a guess is to the input for a network that looks at it: LPIPS, and the same with any classifier."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.metrics.base import Metric

DEPTHS = 5
EPSILON = 1e-10
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""LPIPS's normalisation of images in [-1, 1]: ImageNet's statistics in those units."""
ALEX_DEPTHS = (1, 4, 7, 9, 11)
"""The five rectified convolutions of AlexNet's ``features``."""
ALEX_WIDTHS = (64, 192, 384, 256, 256)
ALEX_LEAST = 31
"""Shorter side that AlexNet's strides leave something of."""


class FeatureMaps:
    """Activations of a network at several depths.

    Args:
        net: (N, C, H, W) -> anything; put in eval mode.
        at: names of modules that give maps (N, D, h, w). None for the last map of each spatial size, up to `depths` of
            them spread evenly (our choice: the ends of the stages, which every classifier has, whatever its modules).
        depths: how many at most.

    Raises:
        InputError: no such module, or (when called) none that gives a map.
    """

    def __init__(self, net: nn.Module, *, at: Sequence[str] | None = None, depths: int = DEPTHS) -> None:
        known = dict(net.named_modules())
        if missing := [name for name in at or () if name not in known]:
            raise InputError(f"expected names of modules, got {', '.join(missing)}; choose from net.named_modules().")
        self.net, self.at, self.depths = net.eval(), None if at is None else tuple(at), depths

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The maps, shallowest first, without gradients. x: (N, C, H, W) -> [(N, D, h, w), ...]."""
        names = self.at or self.chosen(x[:1])
        found = self._seen(x, set(names))
        return [found[name] for name in names]

    def chosen(self, x: Tensor) -> tuple[str, ...]:
        """Names of the modules that are looked at without `at`. x: (1, C, H, W)."""
        seen = self._seen(x, {name for name, _ in self.net.named_modules() if name})
        names = list({tuple(z.shape[2:]): name for name, z in seen.items()}.values())
        if not names:
            raise InputError("expected a network with convolutions, got one without any map; take another judge.")
        if len(names) > self.depths:
            last = len(names) - 1
            names = [names[round(last * k / self.depths)] for k in range(1, self.depths + 1)]
        return tuple(names)

    def _seen(self, x: Tensor, names: set[str]) -> dict[str, Tensor]:
        """Maps by module, in the order in which these finish, from the first one with weights on."""
        seen: dict[str, Tensor] = {}
        learnt = False

        def look(name: str, module: nn.Module, out: object) -> None:
            nonlocal learnt
            learnt = learnt or any(True for _ in module.parameters())
            # What comes before any weight is the image itself, normalised.
            if learnt and name in names and isinstance(out, Tensor) and out.ndim == 4:
                seen.pop(name, None)
                seen[name] = out

        hooks = [
            module.register_forward_hook(lambda m, _, out, name=name: look(name, m, out))
            for name, module in self.net.named_modules()
        ]
        try:
            with Accelerator.chosen().used(self.net) as where, torch.no_grad():
                self.net(x.to(where.device))
        finally:
            for hook in hooks:
                hook.remove()
        if self.at is not None and (silent := names - set(seen)):
            raise InputError(f"expected maps (N, D, h, w), got none from {', '.join(sorted(silent))}; name others.")
        return seen


def deep_distance(
    net: nn.Module, name: str, *, at: Sequence[str] | None = None, depths: int = DEPTHS, state: str = ""
) -> Metric:
    """Distance in the features of any classifier, ``deep@NAME``: LPIPS's arithmetic with equal weights (our reading).

    Mean over depths and positions of the squared distance of unit-length channel vectors: 0 for equal images, at most 4
    (2 after rectifiers). It is as good as the network: compare values of the same one only.

    Args:
        net: (N, C, H, W) in [0, 1] -> anything; put in eval mode.
        name: of the network.
        at: modules to look at; see `FeatureMaps`.
        depths: how many at most.
        state: hash of its weights.

    Raises:
        InputError: no such module, or (when called) none that gives a map.
    """
    maps = FeatureMaps(net, at=at, depths=depths)

    def distance(x: Tensor, x_hat: Tensor) -> Tensor:
        found = [_unit_distance(a, b).sum(1).mean((1, 2)) for a, b in zip(maps(x), maps(x_hat), strict=True)]
        return torch.stack(found).mean(0).to(x.device)

    return Metric(f"deep@{name}", "1", higher_leaks=False, fn=distance, state=state)


def deep_embedding(net: nn.Module, x: Tensor) -> Tensor:
    """The deepest map as a vector: the squared distance of two is what `deep_distance` has there.

    Args:
        net: a classifier.
        x: (N, C, H, W) in [0, 1].

    Returns:
        (N, D h w).
    """
    maps = FeatureMaps(net)
    name = maps.chosen(x[:1])[-1:]
    maps = FeatureMaps(net, at=name)
    z = torch.cat([_unit(maps(part)[0]).to(x.device) for part in x.split(256)])
    return z.flatten(1) / math.sqrt(z.shape[2] * z.shape[3])


class LPIPS:
    """Learned perceptual distance on an AlexNet (Zhang et al. 2018, equation 1).

    ``sum over l of mean over positions of || w_l * (phi_l(x) - phi_l(x_hat)) ||^2``, phi_l the unit-length rectified
    maps of the five convolutions. The files of the heads hold w_l squared, as the authors publish them.

    Args:
        trunk: ``features.*`` of torchvision's AlexNet.
        heads: the five ``linL.model.1.weight`` (1, D, 1, 1), with ``alex.`` before them or without.

    Raises:
        InputError: a tensor is missing or has another shape.
    """

    def __init__(self, trunk: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
        self.trunk = _alexnet()
        own = self.trunk.state_dict()
        expected = {f"features.{k}": v for k, v in own.items()}
        self.trunk.load_state_dict({k: _take(trunk, f"features.{k}", tuple(v.shape)) for k, v in own.items()})
        if unknown := [k for k in trunk if k.startswith("features.") and k not in expected]:
            raise InputError(
                f"expected the trunk of AlexNet, got {unknown[0]} too; give torchvision's alexnet weights."
            )
        self.trunk.requires_grad_(False).eval()
        bare = {k.removeprefix("alex."): v for k, v in heads.items()}
        self.heads = [_take(bare, f"lin{i}.model.1.weight", (1, w, 1, 1)) for i, w in enumerate(ALEX_WIDTHS)]

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """(N,), from (N, C, H, W) twice in [0, 1]; one channel is taken as three equal ones."""
        if min(x.shape[2:]) < ALEX_LEAST:
            raise InputError(
                f"lpips expected images of at least {ALEX_LEAST} pixels a side, got {tuple(x.shape[2:])}; "
                "enlarge them with ?size= after the data's name."
            )
        with Accelerator.chosen().used(self.trunk) as where:
            heads = [head.to(where.device) for head in self.heads]
            pairs = zip(self.maps(x.to(where.device)), self.maps(x_hat.to(where.device)), heads, strict=True)
            each = [(_unit_distance(a, b) * head).sum(1).mean((1, 2)) for a, b, head in pairs]
        return torch.stack(each).sum(0).to(x.device)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The five maps. x: (N, C, H, W) in [0, 1]."""
        z = (2 * x.expand(-1, 3, -1, -1) - 1 - x.new_tensor(SHIFT).reshape(1, 3, 1, 1)) / x.new_tensor(SCALE).reshape(
            1, 3, 1, 1
        )
        found = []
        for place, layer in enumerate(self.trunk):
            z = layer(z)
            if place in ALEX_DEPTHS:
                found.append(z)
        return found


def lpips(backbone_weights: str | Path, lin_weights: str | Path) -> Metric:
    """Perceptual distance in the features of AlexNet (Zhang et al. 2018). Less leaks more.

    LPIPS on AlexNet from files of yours: lpips:backbone_weights=FILE,lin_weights=FILE; nothing is downloaded.

    Args:
        backbone_weights: torchvision's AlexNet (ImageNet), .safetensors or .pth.
        lin_weights: the heads that the authors publish (version 0.1), .safetensors or .pth.

    Raises:
        InputError: a file that is missing, damaged, holds Python objects, or is not of AlexNet.
    """
    (trunk, first), (heads, second) = (_read(Path(p)) for p in (backbone_weights, lin_weights))
    return Metric("lpips", "1", higher_leaks=False, fn=LPIPS(trunk, heads), state=f"{first} {second}")


def _unit(z: Tensor) -> Tensor:
    return z / (z.square().sum(1, keepdim=True).sqrt() + EPSILON)


def _unit_distance(a: Tensor, b: Tensor) -> Tensor:
    return (_unit(a) - _unit(b)).square()


def _alexnet() -> nn.Sequential:
    with torch.random.fork_rng(devices=()):
        return nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip


def _take(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    got = tuple(tensors[name].shape) if name in tensors else "none"
    if got != shape:
        raise InputError(f"lpips expected {name} {shape}, got {got}; give AlexNet's trunk and the heads of alex.")
    return tensors[name].float()


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    remedy = "give torchvision's alexnet weights and the heads of LPIPS for alex as files of tensors"
    try:
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"lpips cannot read {path}: {error.strerror}; {remedy}.") from None
    except (SafetensorError, ValueError, RuntimeError, EOFError, KeyError) as error:
        raise InputError(f"lpips cannot use {path} ({type(error).__name__}); {remedy}.") from None
    except Exception as error:  # torch's unpickler raises kinds of its own
        raise InputError(f"{path} is damaged or holds Python objects ({type(error).__name__}); {remedy}.") from None
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise InputError(f"lpips expected tensors by name in {path}, got {type(found).__name__}; {remedy}.")
    return found, hashlib.blake2b(content, digest_size=8).hexdigest()
