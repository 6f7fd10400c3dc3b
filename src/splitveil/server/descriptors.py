"""How many connections this process can hold: each takes a descriptor, and a server without one accepts nothing."""

import resource

OTHERS = 256
"""Descriptors for files, threads and libraries."""


def affordable(wanted: int) -> int:
    """Of so many connections those that there are descriptors for; the soft limit is raised for them where it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
        except (OSError, ValueError):  # macOS has a bound of its own
            pass
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - OTHERS))
