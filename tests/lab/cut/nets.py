"""Nets with one difficulty each, and weights that let no comparison pass by being zero."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def lively(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Random scales, biases, heads and BatchNorm statistics that fit what arrives; in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            weight.data = noise / 5 + (0.0 if name.endswith("bias") else 1.0)
        elif weight.abs().max() < 1e-3:
            weight.data = noise / 5
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(4, *shape, generator=generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


class Plain(nn.Module):
    """Convolution, BatchNorm, no-ops, head; `spare` is never used, `twice` is called by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.same = nn.Identity()
        self.twice = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.flat = nn.Flatten()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, 5)
        self.spare = nn.Linear(3, 3)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        out = self.same(self.relu(self.bn(self.conv(x if scale is None else x * scale))))
        for layer in self.twice:
            out = self.relu(layer(out))
        logits: Tensor = self.head(self.drop(self.flat(self.pool(out))))
        return logits


class Overwriting(nn.Module):
    """Writes into its features in the way that `how` says; every other use of `out` then sees the new values."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.mix = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        match self.how:
            case "module":
                self.relu(out)
            case "function":
                F.relu(out, inplace=True)
            case "underscore":
                torch.relu_(out)
            case "method":
                out.clamp_(min=0).mul_(2)
            case "operator":
                out += 1
                out *= out
            case "view":
                out[:, 0] = 0.5
        out = self.mix(out) + out
        logits: Tensor = self.head(self.relu(out).mean((2, 3)))
        return logits


class LateInput(nn.Module):
    """Needs its input again at the end, as a tensor or only for its size."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        logits: Tensor = self.head((out + x if self.whole else out).view(x.shape[0], -1))
        return logits


class Shared(nn.Module):
    """One convolution called twice, or two that hold one weight."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.second = nn.Conv2d(3, 3, 1) if tied else self.first
        self.second.weight = self.first.weight
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(torch.relu(self.first(x))).mean((2, 3)))
        return logits


class Folded(nn.Module):
    """Works on quarters of the image as if they were images, as windowed attention does; token from a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, 4, 1)
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        n, c, h, w = out.shape
        quarters = out.view(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).reshape(n * 4, c, h // 2, w // 2)
        quarters = self.inner(quarters)
        out = quarters.view(n, 2, 2, c, h // 2, w // 2).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)
        tokens = self.outer(out).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(n, -1, -1), tokens], 1)
        logits: Tensor = self.head(tokens.mean(1))
        return logits


class Branching(nn.Module):
    """Control flow on shapes, which fx cannot follow; or on values, which nothing can."""

    def __init__(self, *, values: bool) -> None:
        super().__init__()
        self.values = values
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if (x.sum() > 0) if self.values else (x.shape[2] % 2 == 0):
            x = x + 1
        logits: Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return logits


class SquaredBatch(nn.Module):
    """Divides by the square of the batch size behind a head that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(x).mean((2, 3)) / x.shape[0] ** 2)
        return logits


TABLES = ("buffer", "frozen", "embedding")


class Tables(nn.Module):
    """Blocks that read one constant: a buffer, a parameter that does not train, a frozen layer."""

    table: Tensor | nn.Module

    def __init__(self, how: str, *, trained: bool = False) -> None:
        super().__init__()
        values = torch.linspace(0.5, 1.5, 8)
        match how:
            case "buffer":
                self.register_buffer("table", values)
            case "frozen":
                self.table = nn.Parameter(values, requires_grad=trained)
            case "embedding":
                self.table = nn.Embedding.from_pretrained(values[:, None], freeze=not trained)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.stem(x))
        for block in self.blocks:
            table = self.table if isinstance(self.table, Tensor) else self.table(torch.arange(8, device=x.device))
            z = F.relu(block(z * table.view(1, 8, 1, 1)))
        logits: Tensor = self.head(z.mean((2, 3)))
        return logits
