"""Independent pieces of work, done by this process, by others of this machine or by a Ray cluster."""

from splitveil.lab.jobs.job import Job, Leaving, Left, Shared
from splitveil.lab.jobs.workers import Workers

__all__ = ["Job", "Leaving", "Left", "Shared", "Workers"]
