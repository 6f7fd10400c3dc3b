"""The floors: what an adversary guesses without inverting anything. A defence can do no better than reach them."""

from typing import ClassVar

import torch
from torch import Tensor

from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.view import Knows, View


class MeanImage(Attack):
    """Floor. The average of the adversary's own images, whatever was sent."""

    name: ClassVar[str] = "mean"
    needs = Knows.AUX
    scale_free: ClassVar[bool] = True

    def run(self, view: View) -> Tensor:
        return view.aux.images().mean(0).expand(len(view.z), -1, -1, -1)


class ClassMean(Attack):
    """Floor. The average of the adversary's own images of the class that the model answers.

    So it is what the cloud half's answer alone gives.
    """

    name: ClassVar[str] = "class_mean"
    needs = Knows.AUX | Knows.CLOUD
    scale_free: ClassVar[bool] = True

    def run(self, view: View) -> Tensor:
        aux = view.aux
        with torch.inference_mode():
            answers = torch.cat([view.cloud(part).argmax(1) for part in view.z.split(256)])
        images = aux.images()
        means = images.mean(0).repeat(int(max(answers.max(), aux.y.max())) + 1, 1, 1, 1)
        for label in answers.unique():
            members = images[aux.y == label]
            if len(members):
                means[label] = members.mean(0)
        return means[answers]


class NearestAux(Attack):
    """Floor. That one of the adversary's own images whose features are most like those sent.

    Each feature counts in units of its spread over the adversary's images.
    """

    name: ClassVar[str] = "nearest"
    needs = Knows.AUX | Knows.QUERIES
    scale_free: ClassVar[bool] = True

    def run(self, view: View) -> Tensor:
        count = len(view.aux)
        parts = torch.arange(count).split(512)
        spread = view.observe(parts[0]).flatten(1).std(0)
        spread[spread < 1e-3 * spread.max()] = torch.inf
        target = view.z.flatten(1) / spread
        best = torch.full((len(target),), torch.inf, device=target.device)
        chosen = torch.zeros(len(target), dtype=torch.long, device=target.device)
        for part in parts:
            distance = torch.cdist(target, view.observe(part).flatten(1) / spread)
            nearest, at = distance.min(1)
            nearer = nearest < best
            best, chosen = torch.where(nearer, nearest, best), torch.where(nearer, part.to(at.device)[at], chosen)
        return view.aux.images(chosen)
