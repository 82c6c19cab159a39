"""The checker of answers that aren't plain numbers: math-verify in a bounded worker process.

math-verify parses with sympy, and a hostile answer can make that run forever or use up all memory.
Its own time limit is a signal, which works only in the main thread. So it runs in a process of its
own (`latex_worker`, which compares with `latex_compare`), one question at a time. At a hard
wall-clock limit the process is killed, the verdict is `unknown`, and the next question starts a new
process. The process also ends itself, by the kernel's alarm and when its input closes, so none is
left behind. Threads may share a checker. A forked process starts a worker of its own.
"""

from __future__ import annotations

import json
import os
import threading
import weakref

from glore.errors import DataError
from glore.tasks.line_worker import Worker, end_worker, killed_after, receive, send, start_worker

__all__ = ["LatexChecker"]

_WORKER = "glore.tasks.grading.latex_worker"
_START_SECONDS = 120.0
_MAX_CACHED = 20_000


class LatexChecker:
    """Compares two LaTeX answers: `check(gold, found)` → `right`, `wrong` or `unknown`. Symmetric.

    The worker starts with the first question. `close()`, garbage collection and the end of the
    program end it.
    """

    def __init__(self, limit_seconds: float = 5.0, memory_mib: int = 2048) -> None:
        self._limit_seconds = limit_seconds
        self._memory_mib = memory_mib
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._owner_pid = os.getpid()
        self._finalizer: weakref.finalize[[Worker, int], LatexChecker] | None = None
        self._cached: dict[tuple[str, str], str] = {}

    def check(self, gold: str, found: str) -> str:
        """The verdict on `found`; `unknown` if either can't be parsed or a limit of time or memory
        is reached.
        """
        if os.getpid() != self._owner_pid:
            self._forget_parent()
        with self._lock:
            key = (gold, found) if gold <= found else (found, gold)
            if key not in self._cached:
                if len(self._cached) >= _MAX_CACHED:
                    self._cached.clear()
                self._cached[key] = self._ask(*key)
            return self._cached[key]

    def close(self) -> None:
        """End the worker, if one runs. The checker may be used again afterwards."""
        if self._finalizer is not None and os.getpid() == self._owner_pid:
            self._finalizer()
        self._worker = self._finalizer = None

    def _ask(self, gold: str, found: str) -> str:
        worker = self._worker or self._start()
        line = json.dumps({"gold": gold, "found": found})
        answer = _exchange(worker, line, self._limit_seconds)
        if answer not in ("right", "wrong", "unknown"):
            self.close()
            return "unknown"
        return answer

    def _start(self) -> Worker:
        try:
            worker = start_worker(_WORKER, (str(self._limit_seconds), str(self._memory_mib)))
        except OSError as error:
            raise DataError(
                f"can't start the LaTeX checker: {error.strerror or error}; free memory or "
                "processes and run again"
            ) from error
        self._worker = worker
        self._finalizer = weakref.finalize(self, _end, worker, os.getpid())
        if _exchange(worker, None, _START_SECONDS) != "ready":
            self.close()
            raise DataError(
                "the LaTeX checker doesn't start; check that `python -c 'import math_verify'` "
                "works in this environment"
            )
        return worker

    def _forget_parent(self) -> None:
        """After a fork: the worker, its pipes and perhaps a held lock belong to the parent."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._lock = threading.Lock()
        self._worker = self._finalizer = None
        self._owner_pid = os.getpid()


def _exchange(worker: Worker, line: str | None, limit_seconds: float) -> str:
    """Send a line (if any) and read one; empty if the worker died or was killed at the limit."""
    try:
        with killed_after(worker, limit_seconds):
            if line is not None:
                send(worker, line)
            return receive(worker).strip()
    except OSError:
        return ""


def _end(worker: Worker, owner_pid: int) -> None:
    if os.getpid() != owner_pid:
        return
    end_worker(worker)
