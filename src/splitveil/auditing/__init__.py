"""Audits: which attacks run, with what knowledge, and what may be believed of the result."""

from splitveil.auditing.outcome import Audit
from splitveil.auditing.run import audit
from splitveil.auditing.subject import Subject
from splitveil.auditing.suites import SUITES, Suite
from splitveil.auditing.summary import summarise

__all__ = ["SUITES", "Audit", "Subject", "Suite", "audit", "summarise"]
