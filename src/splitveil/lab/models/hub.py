"""Downloads of pretrained weights: what is here already, and whether the rest can be had."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from splitveil.core.errors import WeightsError

PATIENCE = 8.0
"""Seconds that a server may take to answer at all; the hub's own client asks it five times and waits in between."""
TORCH_FILE, SAFE_FILE = "pytorch_model.bin", "model.safetensors"


def timm_file(config: Any, spec: str) -> Path | None:
    """The file that timm's `config` names, where the hub's cache has it as safetensors; None when it can be fetched.

    Raises:
        WeightsError: it is not here, and its server does not answer.
    """
    if not config.hf_hub_id:
        if config.url and not (Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name).is_file():
            check_reachable(config.url, spec)
        return None
    from huggingface_hub import constants, try_to_load_from_cache

    repository, _, revision = config.hf_hub_id.partition("@")
    wanted = config.hf_hub_filename or TORCH_FILE
    safe = SAFE_FILE if wanted == TORCH_FILE else wanted.removesuffix(".bin") + ".safetensors"
    here = try_to_load_from_cache(repository, safe, revision=revision or None)
    if isinstance(here, str):
        return Path(here)
    check_reachable(constants.ENDPOINT, spec)
    return None


def check_torchvision(url: str, spec: str) -> None:
    """Whether torchvision's file is here or can be fetched.

    Raises:
        WeightsError: it is not here, and its server does not answer.
    """
    if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name).is_file():
        check_reachable(url, spec)


def check_reachable(url: str, spec: str) -> None:
    """Whether the server of `url` answers, whatever it says.

    Raises:
        WeightsError: it does not.
    """
    place = urlsplit(url)
    if place.scheme not in ("http", "https"):
        return
    asked = urllib.request.Request(f"{place.scheme}://{place.netloc}/", method="HEAD")  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE):  # noqa: S310
            return
    except urllib.error.HTTPError:
        return
    except OSError as error:
        why = getattr(error, "reason", error)
        raise WeightsError(
            f"cannot download pretrained weights of {spec}: {place.hostname} cannot be reached ({why}); connect this "
            "machine to it, or load them where it can be and give the file."
        ) from None
