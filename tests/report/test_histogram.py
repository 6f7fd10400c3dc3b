"""Histograms of per-image scores."""

import numpy as np

from splitveil.report.configuration import Metric, configurations
from splitveil.report.folder import Folder
from splitveil.report.histogram import axis, spread

from .conftest import MakeAudit


def test_one_row_for_each_attack_and_only_its_own_envelope(make_audit: MakeAudit) -> None:
    folder = Folder.load(make_audit(samples=0))
    config = configurations(folder.card)[0]
    metrics: tuple[Metric, ...] = ("psnr", "ssim")
    for metric in metrics:
        found = spread(folder, config, metric, 0, axis(folder, metric))
        assert [r.label for r in found.rows] == [
            "mean image", "class mean", "nearest image", "decoder", "mle", "worst case",
        ]  # fmt: skip
        assert [r.is_floor for r in found.rows] == [True] * 3 + [False] * 3


def test_bars_cover_all_images_even_beyond_the_axis_or_not_finite(make_audit: MakeAudit) -> None:
    folder = Folder.load(make_audit(samples=0, cuts=("layer1",)))
    values = np.full(40, 5.0, np.float32)
    values[:3] = np.nan, np.inf, 500.0
    scores = dict(folder.scores) | {(3, "psnr"): values}
    changed = Folder(folder.name, folder.card, scores, None)
    x = axis(changed, "psnr")
    row = spread(changed, configurations(folder.card)[0], "psnr", 0, x).rows[3]
    assert row.path.count("M") == 2
    assert row.path.count("nan") == 0
    assert x.start <= row.mean <= x.end


def test_one_value_for_all_images_is_one_bar(make_audit: MakeAudit) -> None:
    folder = Folder.load(make_audit(samples=0, cuts=("layer1",)))
    scores = {key: np.ones(40, np.float32) for key in folder.scores}
    same = Folder(folder.name, folder.card, scores, None)
    found = spread(same, configurations(folder.card)[0], "ssim", 0, axis(same, "ssim"))
    assert all(r.path.count("M") == 1 for r in found.rows)
