"""Tasks: problems, and what counts as right. `open_task(settings, seed)` returns a `Task`.

Names are imported at first use, so the process that compares LaTeX starts without the rest of
glore.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glore.tasks.open import open_task
    from glore.tasks.protocol import Grade, OracleTask, ScratchTask, Task

__all__ = ["Grade", "OracleTask", "ScratchTask", "Task", "open_task"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'glore.tasks' has no attribute {name!r}")
    home = "open" if name == "open_task" else "protocol"
    value: object = getattr(importlib.import_module(f"glore.tasks.{home}"), name)
    globals()[name] = value
    return value
