"""reasoning-gym in a process of its own: bounded in time, and without effect on this one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TextIO, cast

from glore.errors import DataError

__all__ = ["GymProcess"]

_WORKER = "glore.tasks.reasoning_gym.worker"
_SOURCE = str(Path(__file__).parents[3])


class GymProcess:
    """One worker. `hash_seed`: Python's for sets of texts, so that an order that hangs on it shows
    when two processes differ.
    """

    def __init__(self, hash_seed: int = 0) -> None:
        paths = filter(None, (_SOURCE, os.environ.get("PYTHONPATH")))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONHASHSEED": str(hash_seed),
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        except OSError as error:
            raise DataError(
                f"can't start a process for reasoning-gym: {error.strerror or error}; free memory "
                "or processes"
            ) from error

    def ask(self, request: dict[str, object], seconds: float) -> dict[str, object] | None:
        """The reply; none if the process died, or was ended because it took longer."""
        self.send(request)
        return self.reply(seconds)

    def send(self, request: dict[str, object]) -> None:
        """Write a request, so that several processes can work at once."""
        with contextlib.suppress(OSError, ValueError):
            stdin = cast(TextIO, self._process.stdin)
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()

    def reply(self, seconds: float) -> dict[str, object] | None:
        """The reply to the request that was sent; none as in `ask`."""
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            line = cast(TextIO, self._process.stdout).readline()
            found = json.loads(line) if line.endswith("\n") else None
        except (OSError, ValueError):
            found = None
        finally:
            timer.cancel()
        return found if isinstance(found, dict) else None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError, ValueError):
                cast(TextIO, pipe).close()
