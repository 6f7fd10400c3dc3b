"""Renders a record in a file (a plan, a comparison or a criterion) as one HTML page."""

import json
from pathlib import Path

from splitveil.core.errors import InputError
from splitveil.core.records import Comparison, Criterion, Plan
from splitveil.report.comparison import render_comparison
from splitveil.report.criterion import render_criterion
from splitveil.report.plan import render_plan


def render_document(source: Path, out: Path) -> Path:
    """Write the page of a plan, a comparison or a criterion card again, from its JSON; the answer is `out`.

    Raises:
        InputError: no such record can be read from `source`, or `out` cannot be written.
        MissingExtraError: jinja2 or plotly is not installed.
    """
    try:
        keys = json.loads(source.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}; check the path.") from None
    except ValueError:
        raise InputError(
            f"expected JSON in {source}, got something else; give a record that SplitVeil wrote."
        ) from None
    if isinstance(keys, dict) and "choices" in keys:
        return render_plan(Plan.load(source), out)
    if isinstance(keys, dict) and "contenders" in keys:
        return render_comparison(Comparison.load(source), out)
    if isinstance(keys, dict) and "correlations" in keys:
        return render_criterion(Criterion.load(source), out)
    raise InputError(
        f"expected a plan, a comparison or a criterion card in {source}, got another document; "
        "for an audit give its folder."
    )
