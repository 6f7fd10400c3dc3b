"""Reference nets, one file a family, and the loader for other people's nets and weights."""

from typing import TYPE_CHECKING

from splitveil.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS"]

MODELS: "Registry[nn.Module]" = Registry(
    "model",
    {
        "small": "splitveil.lab.models.small:small_net",
        "lenet5": "splitveil.lab.models.lenet:lenet5",
        "cnn6": "splitveil.lab.models.he:cnn6",
        "resnet18": "splitveil.lab.models.resnet:resnet18",
        "resnet20": "splitveil.lab.models.resnet:resnet20",
        "resnet56": "splitveil.lab.models.resnet:resnet56",
        "vgg11": "splitveil.lab.models.vgg:vgg11",
        "vgg16": "splitveil.lab.models.vgg:vgg16",
        "alexnet": "splitveil.lab.models.alexnet:alex_net",
        "mobilenetv2": "splitveil.lab.models.mobilenet:mobilenetv2",
        "whitenet": "splitveil.lab.models.whitenet:white_net",
        "whitenet_wide": "splitveil.lab.models.whitenet:wide_white_net",
        "vit_tiny32": "splitveil.lab.models.vit:vit_tiny32",
    },
)
"""Factories ``name(shape, classes)``; every net takes images in [0, 1] and normalises them itself."""
