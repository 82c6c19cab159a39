"""Where problems come from and what counts as right: `open_task(settings, seed)` gives a `Task`."""

from glore.tasks.open import open_task
from glore.tasks.protocol import Grade, OracleTask, ScratchTask, Task

__all__ = ["Grade", "OracleTask", "ScratchTask", "Task", "open_task"]
