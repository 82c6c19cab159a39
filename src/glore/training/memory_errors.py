"""The error for a training that ran out of memory: it names the settings to lower."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from glore.config import TrainSettings
from glore.errors import ModelError, out_of_memory, shown
from glore.training.training_setup import TrainingSetup

__all__ = ["explain_out_of_memory", "memory_error"]


@contextlib.contextmanager
def explain_out_of_memory(settings: TrainSettings, setup: TrainingSetup) -> Iterator[None]:
    """Turn an out-of-memory error of the machine or device into a ModelError that names the
    settings to lower.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise memory_error(
            " ".join(str(error).split()) or type(error).__name__, settings, setup
        ) from error


def memory_error(said: str, settings: TrainSettings, setup: TrainingSetup) -> ModelError:
    """The error for a training that ran out of memory; `said` is the system's message."""
    fixes = []
    if settings.batch_tokens:
        if settings.batch_tokens > settings.max_length:
            fixes.append(
                f"lower {setup.setting('batch_tokens')} ({settings.batch_tokens}) and raise "
                "gradient_accumulation by as much"
            )
    elif settings.batch_size > 1:
        fixes.append(
            f"lower {setup.setting('batch_size')} ({settings.batch_size}) and raise "
            "gradient_accumulation by as much"
        )
    if not settings.gradient_checkpointing:
        fixes.append(f"set {setup.setting('gradient_checkpointing')}=true")
    if settings.lora is None and not setup.section.startswith("base.scratch"):
        fixes.append(f"set {setup.setting('lora')} ({{r: 16}})")
    fixes.append(
        f"lower {setup.setting('max_length')} ({settings.max_length}), which leaves longer rows out"
    )
    return ModelError(
        f"train {setup.out_dir.name}: out of memory ({shown(said, 160)}); {', or '.join(fixes)}; "
        "then run the same command again"
    )
