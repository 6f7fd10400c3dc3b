"""scikit-learn's handwritten digits (UCI, Alpaydin and Kaynak 1998): 1,797 real 8x8 grey images, no download."""

import numpy as np

from splitveil.core.errors import MissingExtraError
from splitveil.lab.data.base import Dataset, Images
from splitveil.lab.data.sampling import split_images
from splitveil.lab.data.spec import DataSpec

TEST, LEVELS = 600, 16


def sklearn_digits(spec: DataSpec) -> Dataset:
    """Real 8x8 grey digits that come with scikit-learn: 1,197 train, 600 test.

    Their grey values, 0 to 16, are spread over 0 to 255.

    Raises:
        DataError: a path was given.
        MissingExtraError: scikit-learn is not installed.
    """
    spec.refuse_path()
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("digits needs scikit-learn; install splitveil[lab].") from None
    bunch = load_digits()
    x = np.round(bunch.images * 255 / LEVELS).astype(np.uint8)[:, None]
    train, test = split_images(Images(x, bunch.target.astype(np.int64)), str(spec), TEST)
    return Dataset(str(spec), train, test, tuple(str(i) for i in range(10)))
