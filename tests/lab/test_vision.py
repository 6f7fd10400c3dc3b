import subprocess
import sys

import pytest
import torch

from splitveil.core.errors import MissingExtraError
from splitveil.lab.vision import timm, torchvision


def test_both_import_beside_any_torch() -> None:
    x = torch.rand(2, 3, 32, 32)
    assert torchvision().models.squeezenet1_1(num_classes=2)(x).shape == (2, 2)
    assert timm().create_model("test_resnet", pretrained=False, num_classes=2)(x).shape == (2, 2)
    assert torchvision() is torchvision()


def test_timm_may_come_first() -> None:
    code = "from splitveil.lab.vision import timm, torchvision; timm(); torchvision()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_missing_package_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=f"{name} is not installed; run: pip install 'splitveil\\[lab\\]'"):
        {"torchvision": torchvision, "timm": timm}[name]()
