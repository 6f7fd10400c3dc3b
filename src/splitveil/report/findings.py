"""What a folder that SplitVeil wrote holds, and its page."""

from collections.abc import Sequence
from pathlib import Path

from splitveil.core.errors import InputError
from splitveil.report.document import render_document
from splitveil.report.page import render

RECORDS = ("comparison.json", "plan.json")
"""A folder with one of these is that one's, whatever audits lie beneath it."""
CARD, CRITERION, MANIFEST = "card.json", "criterion.json", "manifest.json"
KINDS = (
    "an audit (card.json) or folders of audits, a comparison (comparison.json), a plan (plan.json), "
    "a criterion (criterion.json) or a bundle with a card"
)


def render_findings(sources: Sequence[Path | str], out: Path | str) -> Path:
    """Write the page of whatever the folders or files hold; the answer is `out`.

    Args:
        sources: folders that audits wrote, several of which are compared, or one folder or record of another kind.
        out: the page.

    Raises:
        InputError: nothing that SplitVeil wrote, a damaged one, or kinds that share no page; nothing is written then.
        MissingExtraError: jinja2 or plotly is not installed.
    """
    paths, out = [Path(source) for source in sources], Path(out)
    audits, records = list[Path](), list[Path]()
    for path in paths:
        found = _held(path)
        (audits if found[0].is_dir() else records).extend(found)
    if not records:
        return render(audits, out)
    if len(paths) > 1:
        raise InputError(f"expected audit folders or one record, got {records[0]} among others; give it alone.")
    return render_document(records[0], out)


def _held(path: Path) -> list[Path]:
    """Audit folders, or one record.

    Raises:
        InputError: neither.
    """
    if not path.is_dir():
        if path.suffix == ".json":
            return [path.parent] if path.name == CARD else [path]
        raise InputError(f"there is no folder {path}; give one that holds {KINDS}.")
    for name in RECORDS:
        if (path / name).is_file():
            return [path / name]
    if (path / CARD).is_file():
        return [path]
    below = [card.parent for card in path.glob(f"*/{CARD}") if not (card.parent / MANIFEST).exists()]
    if below:
        return sorted(below, key=lambda folder: (len(folder.name), folder.name))
    if (path / CRITERION).is_file():
        return [path / CRITERION]
    if (path / MANIFEST).is_file():
        raise InputError(f"{path} is a bundle without a leakage card; run `splitveil audit {path}` first.")
    if (path / "run.json").is_file() or (path / "trials").is_dir():
        raise InputError(f"{path} holds work that was not finished; go on with it by --resume.")
    raise InputError(f"{path} holds nothing to report; give a folder that holds {KINDS}.")
