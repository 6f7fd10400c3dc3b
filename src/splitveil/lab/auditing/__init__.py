"""Audits: which attacks run, with what knowledge, and what may be believed of the result."""

from splitveil.lab.auditing.outcome import Audit
from splitveil.lab.auditing.run import audit
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.suites import SUITES, Suite
from splitveil.lab.auditing.summary import summarise

__all__ = ["SUITES", "Audit", "Subject", "Suite", "audit", "summarise"]
