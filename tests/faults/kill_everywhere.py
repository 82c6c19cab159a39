"""Run the small stages, killed by SIGKILL at the n-th file operation or piece of work, for every
STRIDE-th n; then run again and compare.

A script of its own, because it forks: `python kill_everywhere.py FOLDER STRIDE` (1: every moment).
Prints how many moments it killed at.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pandas  # noqa: F401  # pyarrow imports it at its first table; once here saves it in every child
import pyarrow.compute  # noqa: F401  # likewise

from glore.config import RunConfig
from glore.pipeline import run_stages
from support.small_stages import contents, small_config, small_stages


class Countdown:
    """Kills the process at the n-th call (n < 0: never)."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def in_child(config: RunConfig, kill_at: int) -> int:
    """Run in a forked child with every file operation counted; its exit code, negative for a
    signal.
    """
    pid = os.fork()
    if pid == 0:
        tick = Countdown(kill_at)

        def counted(operation: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                result = operation(*args, **kwargs)
                tick()
                return result

            return call

        # SIGKILL takes no page cache away, so syncing would only slow this down.
        os.fsync = lambda fd: tick()
        for holder, name in (
            (os, "unlink"),
            (os, "rmdir"),
            (Path, "replace"),
            (Path, "mkdir"),
            (shutil, "rmtree"),
        ):
            setattr(holder, name, counted(getattr(holder, name)))
        run_stages(small_stages(tick), config, redo=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: Path, stride: int) -> None:
    changed = {"student": {"sft": {"learning_rate": 0.5}}}
    whole = small_config(folder / "whole", **changed)
    assert in_child(whole, -1) == 0
    expected = contents(whole.run_dir)
    del expected["config.yaml"]
    old = small_config(folder / "old")
    assert in_child(old, -1) == 0
    moments = 0
    # From an empty folder, and from one whose models are stale and have to be cleared first.
    for start in (None, old.run_dir):
        for moment in range(0, 10_000, stride):
            config = small_config(folder / "cut", **changed)
            shutil.rmtree(folder / "cut", ignore_errors=True)
            if start:
                shutil.copytree(start, config.run_dir)
            code = in_child(config, moment)
            if code == 0:
                break
            assert code == -signal.SIGKILL, code
            moments += 1
            assert in_child(config, -1) == 0, moment
            got = contents(config.run_dir)
            del got["config.yaml"]
            leftovers = [name for name in got if name.endswith(".tmp")]
            assert not [name for name in leftovers if name.startswith("stages/")], leftovers
            assert {k: v for k, v in got.items() if k not in leftovers} == expected, (
                start,
                moment,
                got.items() ^ expected.items(),
            )
    print(moments)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
