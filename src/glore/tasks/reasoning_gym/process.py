"""reasoning-gym in a process of its own: bounded in time, and without effect on this one."""

from __future__ import annotations

import contextlib
import json

from glore.errors import DataError
from glore.tasks.line_worker import end_worker, killed_after, receive, send, start_worker

__all__ = ["GymProcess"]

_WORKER = "glore.tasks.reasoning_gym.worker"


class GymProcess:
    """One worker. `hash_seed`: Python's for sets of texts, so that an order that hangs on it shows
    when two processes differ.
    """

    def __init__(self, hash_seed: int = 0) -> None:
        try:
            self._process = start_worker(_WORKER, variables={"PYTHONHASHSEED": str(hash_seed)})
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
            send(self._process, json.dumps(request))

    def reply(self, seconds: float) -> dict[str, object] | None:
        """The reply to the request that was sent; none as in `ask`."""
        try:
            with killed_after(self._process, seconds):
                line = receive(self._process)
            found = json.loads(line) if line.endswith("\n") else None
        except (OSError, ValueError):
            found = None
        return found if isinstance(found, dict) else None

    def close(self) -> None:
        """End the process."""
        end_worker(self._process)
