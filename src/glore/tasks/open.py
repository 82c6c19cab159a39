"""`open_task`: from settings to a task whose problems are read and checked."""

from __future__ import annotations

from glore.config import TaskSettings
from glore.tasks.protocol import Task

__all__ = ["open_task"]


def open_task(settings: TaskSettings, seed: int) -> Task:
    """Read and check all problems. `seed` draws the built-in stories; given data doesn't depend on it.

    Raises DataError where data is missing or malformed (file, line, field and mend), ConfigError where no source is named or no
    story meets the settings.
    """
    if settings.kind == "stories":
        from glore.tasks.stories import Stories

        return Stories(settings.stories, seed, merge_answer_line=settings.merge_answer_line)
    if settings.kind == "gsm8k":
        from glore.tasks.gsm8k import load_gsm8k

        return load_gsm8k(settings)
    if settings.kind == "svamp":
        from glore.tasks.svamp import load_svamp

        return load_svamp(settings)
    if settings.kind == "math":
        from glore.tasks.math import load_math

        return load_math(settings)
    from glore.tasks.jsonl import load_jsonl

    return load_jsonl(settings)
