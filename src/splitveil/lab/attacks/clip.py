"""Attacks on a short clip: nearly the same picture again and again, as a camera that stands still sends it."""

from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.parts.frames import Camera, laid_over
from splitveil.lab.attacks.parts.inner import image_attack
from splitveil.lab.attacks.parts.trust import Trust
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.seeds import derive
from splitveil.lab.tensors import psnr

OWN = 32
"""Clips of its own images on which the adversary tries how to put frames together."""


class Clip(Attack):
    """Another attack on every frame of a short clip, the guesses laid over each other.

    What crosses are frames of one scene, each with noise of its own: the private image, then versions of it that are
    shifted by a few pixels, in another light and with other sensor noise. The audit makes them of the private image;
    the adversary knows how such frames differ but not by how much these do. Each guess is moved to where it fits that
    of the first frame best. On clips of its own images it tries whether to keep the first guess, to take the mean of
    all, or that mean with each spatial frequency weighed by how far it is right. Scored is the first frame.

    Args:
        attack: spec of the inner attack, in square brackets where it has options.
        frames: of the clip, the first included.
        shift: most pixels along each axis.
        light: most relative change of brightness.
        noise: standard deviation of the sensor noise, pixels in [0, 1].

    Raises:
        InputError: the inner attack gives no images or repeats by itself, or an option is out of range.
    """

    name: ClassVar[str] = "clip"

    def __init__(
        self, *, attack: str = "decoder", frames: int = 8, shift: int = 2, light: float = 0.1, noise: float = 0.01
    ) -> None:
        inner = image_attack(attack, self.name)
        if inner.crossings > 1:
            raise InputError(f"clip cannot hold {inner.name!r}, which repeats by itself; raise its frames instead.")
        if frames < 2 or shift < 0 or not 0 <= light < 1 or noise < 0:
            raise InputError(
                f"expected frames of at least 2, shift and noise of at least 0 and light in [0, 1), got {frames}, "
                f"{shift}, {noise}, {light}; use clip:frames=8."
            )
        self.attack, self.frames, self.shift, self.light, self.noise = inner, frames, shift, float(light), float(noise)
        self.needs, self.crossings = inner.needs, frames
        self.scale_free = inner.scale_free  # type: ignore[misc]
        self.camera = Camera(shift, self.light, self.noise)

    def run(self, view: View) -> Tensor:
        view.record(crossings=float(self.frames))
        crossings, private = view.crossings[: self.frames], len(view.z)
        tried = Knows.AUX | Knows.QUERIES in view.knows
        own = view.aux.held_out[:OWN] if tried else torch.arange(0)
        if tried:
            clean, seed = view.aux.images(own), derive(view.seed, self.name)
            camera = Camera(self.shift, self.light, self.noise)
            clips = torch.stack([view.query(camera.frame(clean, k, seed)) for k in range(self.frames)])
            crossings = torch.cat([crossings, clips], 1)
        guess = self.attack.run(view.within(self.name, view.knows, z=crossings.flatten(0, 1)))
        first, *others = guess.detach().clamp(0, 1).unflatten(0, tuple(crossings.shape[:2]))
        mean = torch.stack([first, *(laid_over(frame, first, self.shift) for frame in others)]).mean(0)
        if not tried:
            return mean
        truth = view.aux.images(own)
        trust = Trust.learned(mean[private:], truth, view.aux.images().mean(0))
        ways = (first, mean, trust(mean))
        gained = [float(psnr(way[private:], truth).mean()) for way in ways]
        best: Tensor = ways[gained.index(max(gained))]
        return best[:private]
