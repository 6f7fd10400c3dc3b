import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from splitveil.lab.data import Images, load_data
from splitveil.lab.models.loader import load_model


def tensors(images: Images) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.x).float() / 255, torch.from_numpy(images.y)


def test_small_learns_the_digits_in_a_few_epochs() -> None:
    data = load_data("digits")
    model = load_model("small", shape=data.shape, classes=10, weights=None).model.train()
    x, y = tensors(data.train)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    shuffle = torch.Generator().manual_seed(0)
    for _ in range(5):
        for batch in torch.split(torch.randperm(len(x), generator=shuffle), 64):
            optimiser.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    x, y = tensors(data.test)
    with torch.inference_mode():
        assert (model.eval()(x).argmax(1) == y).float().mean() > 0.95
