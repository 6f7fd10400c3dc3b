"""Every result as a typed, frozen record that goes to JSON and back.

No torch and nothing that trains: a device reads these too.
"""

from splitveil.records.base import SCHEMA_VERSION, Document, Record, dumps, write_atomically
from splitveil.records.card import Card, Cut, Extra, LabelRow, Row
from splitveil.records.comparison import Comparison, Contender, Floor, Measured, Trial
from splitveil.records.criterion import Correlation, Cost, Criterion, CutNumbers, Number
from splitveil.records.manifest import Manifest, Tensor
from splitveil.records.summary import Estimate, Summary, SummaryRow

__all__ = [
    "SCHEMA_VERSION",
    "Card",
    "Comparison",
    "Contender",
    "Correlation",
    "Cost",
    "Criterion",
    "Cut",
    "CutNumbers",
    "Document",
    "Estimate",
    "Extra",
    "Floor",
    "LabelRow",
    "Manifest",
    "Measured",
    "Number",
    "Record",
    "Row",
    "Summary",
    "SummaryRow",
    "Tensor",
    "Trial",
    "dumps",
    "write_atomically",
]
