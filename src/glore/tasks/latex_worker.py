"""The process behind `glore.tasks.latex`: JSON questions in, one verdict a line out. Started as a script, never imported.

Imports nothing of glore, so that it starts in well under a second. Before every question it asks the kernel to kill it after the limit
plus a second: even a parent that was itself killed leaves nothing running.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys


def main() -> None:
    limit_seconds, memory_mib = float(sys.argv[1]), int(sys.argv[2])
    _limit_memory(memory_mib)
    logging.disable(logging.CRITICAL)
    # Anything a library prints must not be taken for a verdict.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    import math_verify  # noqa: F401  (imported before the limit runs)

    print("ready", file=out, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, limit_seconds + 1)
        verdict = _verdict(question["gold"], question["found"])
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(verdict, file=out, flush=True)


def _limit_memory(memory_mib: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_mib * 2**20, memory_mib * 2**20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # no such limit on this system; the time limit still holds


def _verdict(gold: str, found: str) -> str:
    from math_verify import parse, verify

    try:
        # No timeout of the library's: it is a SIGALRM handler, which would replace the kernel's own kill.
        golds, founds = (parse(f"\\boxed{{{_undress(text)}}}", fallback_mode="no_fallback", parsing_timeout=None) for text in (gold, found))
        if not golds or not founds:
            return "unknown"
        return "right" if verify(golds, founds, timeout_seconds=None) else "wrong"
    except (Exception, RecursionError, MemoryError):
        return "unknown"


def _undress(text: str) -> str:
    text = text.strip().replace("\u2212", "-")
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(left) and text.endswith(right) and len(text) > len(left + right):
            text = text[len(left) : -len(right)].strip()
    return text


if __name__ == "__main__":
    main()
