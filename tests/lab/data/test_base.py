import subprocess
import sys

import numpy as np
import pytest

from splitveil.core.errors import DataError
from splitveil.lab.data import Dataset, Images


def images(n: int = 6, shape: tuple[int, int, int] = (1, 4, 4), classes: int = 3) -> Images:
    x = np.arange(n * int(np.prod(shape)), dtype=np.uint8).reshape(n, *shape)
    return Images(x, np.arange(n, dtype=np.int64) % classes)


def test_take_keeps_order_and_pairs() -> None:
    some = images()
    taken = some.take(np.array([4, 1]))
    assert len(taken) == 2
    assert (taken.x == some.x[[4, 1]]).all()
    assert taken.y.tolist() == [1, 1]


def test_shape_is_that_of_one_image() -> None:
    assert Dataset("toy", images(), images(3), ("a", "b", "c")).shape == (1, 4, 4)


def test_all_problems_are_named_at_once() -> None:
    good = images()
    train = Images(good.x.astype(np.float32), good.y + 7)
    test = Images(np.zeros((2, 2, 5, 5), np.uint8), np.zeros(3, np.int64))
    with pytest.raises(DataError) as caught:
        Dataset("toy", train, test, ("a", "b", "c"))
    assert str(caught.value) == (
        "toy cannot be used: train images are float32, expected uint8; train labels run from 7 to 9, expected 0 to 2; "
        "test images have 2 channels, expected 1 or 3; test has 2 images but 3 labels; "
        "train images are (1, 4, 4), test images (2, 5, 5); mend the data."
    )


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (Images(np.zeros((0, 1, 4, 4), np.uint8), np.zeros(0, np.int64)), "test holds no images"),
        (Images(np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64)), r"shape \(2, 4, 4\), expected \(N, C, H, W\)"),
        (Images(np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, np.int32)), r"labels are int32 \(2,\), expected int64"),
        (Images(np.zeros((2, 1, 4, 4), np.uint8), np.full(2, -1)), "labels run from -1 to -1, expected 0 to 2"),
    ],
)
def test_each_problem(part: Images, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        Dataset("toy", images(), part, ("a", "b", "c"))


def labelled(n: int, **attributes: list[int]) -> Images:
    some = images(n)
    return Images(some.x, some.y, {k: np.array(v, dtype=np.int64) for k, v in attributes.items()})


def test_attributes_follow_their_images() -> None:
    one, two = labelled(3, body=[5, 6, -1], paint=[0, 1, 2]), labelled(2, body=[7, 8])
    assert one.take(np.array([2, 0])).attributes["body"].tolist() == [-1, 5]
    both = one.joined(two)
    assert (len(both), both.y.tolist(), list(both.attributes)) == (5, [0, 1, 2, 0, 1], ["body"])
    assert both.attributes["body"].tolist() == [5, 6, -1, 7, 8]
    assert (both.x[3:] == two.x).all()
    assert images().attributes == {}


def test_problems_of_attributes_are_named_at_once() -> None:
    train, test = labelled(3, body=[0, 1], paint=[0, 1, -2]), images(3)
    train.attributes["shade"] = np.zeros(3, np.float32)  # type: ignore[index]
    with pytest.raises(DataError) as caught:
        Dataset("toy", train, test, ("a", "b", "c"))
    assert str(caught.value) == (
        "toy cannot be used: train has 3 images but 2 values of attribute body; train attribute paint has -2, expected "
        "class numbers, or -1 for unknown; train attribute shade is float32 (3,), expected int64 (N,); "
        "train images have the attributes body, paint, shade, test images none; mend the data."
    )


def test_importing_and_loading_digits_leaves_torch_out() -> None:
    code = "import splitveil.lab.data.parts; from splitveil.lab.data import load_data; load_data('digits')"
    code += "; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_other_orders_of_the_same_bytes_are_made_contiguous() -> None:
    last = np.zeros((4, 6, 5, 3), np.uint8)
    labels = np.zeros((4, 2), np.int64)
    found = Images(last.transpose(0, 3, 1, 2)[:, :, ::-1], labels[:, 0], {"colour": labels[:, 1]})
    for array in (found.x, found.y, found.attributes["colour"], found.take(np.array([2, 0])).x, found.joined(found).x):
        assert array.flags.c_contiguous
    assert found.x.shape == (4, 3, 6, 5)
