import torch

from splitveil.lab.attacks.parts.perceptual import trained_eye
from splitveil.lab.attacks.view import Aux

from .conftest import images, labels


def test_an_eye_sees_shifts_of_content_and_not_nothing() -> None:
    x = images(256, 0)
    eye = trained_eye(Aux(x, labels(x)), 0)
    a = x[:16].float() / 255
    assert eye.distance(a, a) == 0
    near, far = eye.distance(a, (a + 0.02).clamp(0, 1)), eye.distance(a, a.flip(0))
    assert 0 < near < far
    assert not any(p.requires_grad for p in eye.parameters())


def test_without_labels_the_eye_is_random_but_there() -> None:
    x = images(64, 0)
    eye = trained_eye(Aux(x, torch.full((64,), -1)), 0)
    assert eye.distance(x[:4].float() / 255, x[4:8].float() / 255) > 0
