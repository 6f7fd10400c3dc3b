"""What ``splitveil cuts`` says of models whose cuts need words."""

from pathlib import Path

from .conftest import Command

FILE = """
import torch
from torch import nn
from torch.nn import functional as F


class Scales(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.pa, self.pb, self.pc = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1)
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        print("forward")
        a = F.relu(self.a(x))
        b = F.relu(self.b(a))
        c = F.relu(self.c(b))
        return self.fc(torch.cat([p(t).mean((2, 3)) for p, t in ((self.pa, a), (self.pb, b), (self.pc, c))], 1))


def scales():
    return Scales()


class Tables(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.linspace(0.5, 1.5, 4).view(1, 4, 1, 1))
        self.stem, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))

    def forward(self, x):
        z = self.stem(x)
        for block in self.blocks:
            z = block(z * self.table).relu()
        return self.fc(z.mean((2, 3)))


def tables():
    return Tables()
"""


def test_stretches_without_a_cut_are_explained(splitveil: Command, tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text(FILE)
    words = ("cuts", f"{file}:scales", "--input", "3x8x8")
    found = splitveil(*words, "--json").json
    assert [c["name"] for c in found["cuts"]] == ["a", "a+relu", "pc+mean+cat"]
    assert found["copied"] == {}
    (gap,) = found["gaps"]
    assert (gap["after"], gap["before"]) == ("a+relu", "pc+mean+cat")
    assert gap["share"] > 0.5
    assert gap["why"] == "'a+relu', 'b+relu' and 'c' would cross together"
    shown = splitveil(*words).out
    assert f"No cut between a+relu and pc+mean+cat ({gap['share']:.0%} of the MACs): {gap['why']}." in shown
    assert "forward" not in shown


def test_constants_in_both_halves_are_named(splitveil: Command, tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text(FILE)
    words = ("cuts", f"{file}:tables", "--input", "3x8x8")
    found = splitveil(*words, "--json").json
    assert found["copied"]["blocks.0"] == ["table"]
    assert "stem" not in found["copied"]
    assert "Both halves get a copy of constants that blocks on both sides read: table." in splitveil(*words).out
