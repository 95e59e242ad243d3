"""How many threads are worth having on this machine's processors."""

from __future__ import annotations

import math
import os
from pathlib import Path

SYSTEM = Path("/sys")


def threads() -> int | None:
    """Threads for arithmetic: one for each core that this process may use, at least 1; None where the user has decided.

    A container may have less time than it sees processors (the quota of its cgroup), and the two threads of a core share the
    units that arithmetic needs. Whoever sets OMP_NUM_THREADS knows better.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return None
    return max(1, math.ceil(min(_cores(), _quota())))


def _cores() -> int:
    """Cores that this process may run on, each counted once; processors where the system does not tell them apart."""
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        import psutil

        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    places = (SYSTEM / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list" for cpu in allowed)
    try:
        return len({place.read_text().strip() for place in places})
    except OSError:
        return len(allowed)


def _quota() -> float:
    """How many processors' time the cgroup of this process may take; infinite without a limit."""
    groups = SYSTEM / "fs/cgroup"
    try:
        if (groups / "cpu.max").exists():  # version 2: "max 100000", or microseconds in so many
            most, period = (groups / "cpu.max").read_text().split()
        else:
            most, period = ((groups / "cpu" / f"cpu.cfs_{part}_us").read_text() for part in ("quota", "period"))
        return math.inf if most.strip() in ("max", "-1") else int(most) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
