"""Every result as a typed, frozen record that goes to JSON and back.

No torch and nothing that trains: a device reads these too.
"""

from splitveil.core.records.accuracy import Accuracy, Lost
from splitveil.core.records.base import SCHEMA_VERSION, Document, Record, dumps, write_atomically
from splitveil.core.records.card import Card, Cut, LabelRow, Lead, Outsider, Row, StandIn
from splitveil.core.records.comparison import Comparison, Contender, Floor, Further, Measured, Trial
from splitveil.core.records.criterion import Correlation, Cost, Criterion, CutNumbers, Number
from splitveil.core.records.device import Device, Link, Timing
from splitveil.core.records.doubt import CHECKS, Doubt
from splitveil.core.records.finishing import Finishing, claim, resumable
from splitveil.core.records.manifest import DeviceGraph, Manifest, Picture, Quantization, Signature, Tensor
from splitveil.core.records.place import Place
from splitveil.core.records.plan import Alternative, Budget, Choice, CutCurve, Figure, Need, Plan, ProxyCheck, Zone
from splitveil.core.records.role import FLOORS, FREE, Role, chosen_by, worst_case
from splitveil.core.records.score import CHOSEN_BY, LEAKAGE, LIMITS, STANDING, Score
from splitveil.core.records.summary import Estimate, Summary, SummaryRow

__all__ = [
    "CHECKS",
    "CHOSEN_BY",
    "FLOORS",
    "FREE",
    "LEAKAGE",
    "LIMITS",
    "SCHEMA_VERSION",
    "STANDING",
    "Accuracy",
    "Alternative",
    "Budget",
    "Card",
    "Choice",
    "Comparison",
    "Contender",
    "Correlation",
    "Cost",
    "Criterion",
    "Cut",
    "CutCurve",
    "CutNumbers",
    "Device",
    "DeviceGraph",
    "Document",
    "Doubt",
    "Estimate",
    "Figure",
    "Finishing",
    "Floor",
    "Further",
    "LabelRow",
    "Lead",
    "Link",
    "Lost",
    "Manifest",
    "Measured",
    "Need",
    "Number",
    "Outsider",
    "Picture",
    "Place",
    "Plan",
    "ProxyCheck",
    "Quantization",
    "Record",
    "Role",
    "Row",
    "Score",
    "Signature",
    "StandIn",
    "Summary",
    "SummaryRow",
    "Tensor",
    "Timing",
    "Trial",
    "Zone",
    "chosen_by",
    "claim",
    "dumps",
    "resumable",
    "worst_case",
    "write_atomically",
]
