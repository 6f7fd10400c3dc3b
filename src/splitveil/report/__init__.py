"""What an audit found, for people: one self-contained HTML page, and one picture. Nothing here imports torch."""

from splitveil.report.comparison import render_comparison, render_picture
from splitveil.report.criterion import render_criterion
from splitveil.report.document import render_document
from splitveil.report.findings import render_findings
from splitveil.report.page import render
from splitveil.report.plan import render_plan
from splitveil.report.strip import samples_picture
from splitveil.report.templates import check_extras

__all__ = [
    "check_extras",
    "render",
    "render_comparison",
    "render_criterion",
    "render_document",
    "render_findings",
    "render_picture",
    "render_plan",
    "samples_picture",
]
