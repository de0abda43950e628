"""How busy others kept the cores while something was measured: what was measured then is not worth quoting."""
from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

TOLERATED = 0.15  # cores
LOOK = 0.5  # seconds: how long to look before anything is started


class Load:
    """The mean number of cores that other processes use from when this is made.

    Own are this process, the children it has waited for, and those still running, whose ids `running` returns. Where
    there is no /proc, the system's load average from before the start stands in."""

    def __init__(self, running: Callable[[], Collection[int]] = tuple):
        self.running = running
        self.began, self.before = time.monotonic(), _used(running())
        self.average = os.getloadavg()[0] if self.before is None and hasattr(os, "getloadavg") else 0.0

    def others(self) -> float:
        """Return the cores in use by others until now."""
        now = _used(self.running())
        if now is None or self.before is None:
            return self.average
        return max(0.0, (now - self.before) / (time.monotonic() - self.began))


def before_start() -> float:
    """Return the cores in use by others in this moment, before there are children."""
    load = Load()
    time.sleep(LOOK)
    return load.others()


def _used(children: Collection[int]) -> float | None:
    """Return the seconds of CPU time that all others have used since the machine started; None without /proc."""
    try:
        user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        ticks = user + nice + system + irq + soft + steal - sum(map(_ticks, children))
        return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
    except (OSError, ValueError):
        return None


def _ticks(process: int) -> int:
    """Return the CPU time of a process and of its children that have ended, in ticks of the clock."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0  # ended meanwhile
    return sum(map(int, fields[11:15]))
