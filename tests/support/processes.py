"""What this process has started, from /proc (Linux), and a launcher of two processes."""

from __future__ import annotations

import os
from pathlib import Path

TWO_PROCESSES = "torchrun --standalone --local_addr 127.0.0.1 --nproc_per_node 2"
"""A launcher of two processes on this machine. It takes a port that the system chooses and holds it
from then on: a port that is chosen before it starts may be taken by then.
"""


def descendants() -> dict[int, str]:
    """Processes below this one: id → command line. Ended ones and Python's own helper are left
    out.
    """
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # ended meanwhile
            continue
        if state != "Z":
            parents[int(folder.name)], lines[int(folder.name)] = int(parent), line
    found: dict[int, str] = {}
    below = {os.getpid()}
    while below:
        below = {pid for pid, parent in parents.items() if parent in below}
        found |= {pid: lines[pid] for pid in below}
    return {pid: line for pid, line in found.items() if "resource_tracker" not in line}
