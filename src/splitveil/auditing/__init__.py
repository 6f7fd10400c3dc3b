"""Audits: which attacks run, with what knowledge, and what may be believed of the result."""

from splitveil.auditing.run import Audit, audit
from splitveil.auditing.subject import Subject
from splitveil.auditing.suites import SUITES, Suite

__all__ = ["SUITES", "Audit", "Subject", "Suite", "audit"]
