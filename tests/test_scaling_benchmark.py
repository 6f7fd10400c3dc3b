"""The page of times with workers says what its records say."""

from pathlib import Path

from benchmarks.page import Page
from benchmarks.scaling import Overhead, Run, text


def test_ratios_records_and_projection(tmp_path: Path) -> None:
    def run(workers: str, threads: int, seconds: float, processor: float, records: str) -> Run:
        return Run(
            task="compare", workers=workers, threads=threads, seconds=seconds, processor=processor, longest=20.0,
            jobs=10, records=records, busy=0.5, words="resnet20", hardware="a processor", versions={"torch": "2"},
        )  # fmt: skip

    page = Page("scaling", tmp_path)
    page.archive.put(
        {
            "compare 1x1": run("1", 1, 100.0, 96.0, "a"),
            "compare 2x1": run("2", 1, 55.0, 104.0, "a"),
            "compare 3x1": run("3", 1, 40.0, 104.0, "b"),
            "compare 1x2": run("1", 2, 70.0, 110.0, "c"),
            "two workers": Overhead(begin=4.0, each=0.01, hardware="a processor"),
        }
    )
    told = text(page)
    assert "| 2 x 1 | 55.0 | 0.55 | 104.0 | 1.08 | the same | 0.5 |" in told
    assert "| 3 x 1 | 40.0 | 0.40 | 104.0 | 1.08 | others | 0.5 |" in told
    assert "(other threads)" in told
    assert "| compare | 96.0 | 20.0 | 10 | 24.1 | 4.0 |" in told, "no faster than the longest chain"
