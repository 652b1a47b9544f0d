"""Memory of this machine, or of its container, that a process may have."""

import math
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def container_limit() -> float:
    """The memory limit of the container (cgroup v2) in bytes, infinite without one."""
    try:
        return float((CGROUP / "memory.max").read_text())
    except (OSError, ValueError):  # no cgroup v2, or the word "max"
        return math.inf


def free_memory() -> int:
    """Bytes that could still be taken: of the machine, and of the container's limit."""
    return int(min(psutil.virtual_memory().available, container_limit() - _container_used()))


def _container_used() -> float:
    """Without the page cache, which gives way."""
    try:
        used = float((CGROUP / "memory.current").read_text())
        lines = (CGROUP / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return 0.0
    cached = dict(line.split() for line in lines)
    return used - float(cached.get("inactive_file", 0)) - float(cached.get("active_file", 0))
