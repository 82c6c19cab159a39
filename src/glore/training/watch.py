"""What a training does at its steps beside computing them: report progress, mark checkpoints as
complete, and stop where the loss is no number.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from glore.errors import ModelError
from glore.training.allocator import KeptMemory
from glore.training.resume import complete
from glore.training.trainer import PlannedBatches
from glore.training.training_setup import TrainingSetup

__all__ = ["Watch"]


class Watch(TrainerCallback):
    """Reports progress, marks checkpoints as complete, and stops a training whose loss is not
    finite.
    """

    def __init__(
        self,
        what: str,
        setup: TrainingSetup,
        batches: PlannedBatches,
        checkpoints: Path,
        kept: KeptMemory,
    ) -> None:
        self.what, self.setup, self.progress, self.batches, self.checkpoints, self.kept = (
            what,
            setup,
            setup.progress,
            batches,
            checkpoints,
            kept,
        )
        self.reported = 0
        """Steps that were reported to the progress."""

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """Report the steps that were done before a resume."""
        if state.global_step:
            self.progress.note(
                f"{self.what}: resumed at step {state.global_step} of {state.max_steps}"
            )
            self.progress.advance(state.global_step)
        self.reported = state.global_step

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """After a step was started on the device: decide whether to read its loss.

        It is read every few steps, and always before a checkpoint is saved.
        """
        control.should_log = (
            control.should_log or control.should_save or state.global_step == state.max_steps
        )
        self.kept.after_step()

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """After this process has written its part of a checkpoint: mark it as complete."""
        complete(self.checkpoints, state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: Any,
        control: Any,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """After the loss was read: report the steps as done, and check the loss."""
        if state.global_step > self.reported:
            steps = range(self.reported, state.global_step)
            self.reported = state.global_step
            self.progress.advance(len(steps), tokens=sum(map(self.batches.n_tokens, steps)))
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise ModelError(
                f"{self.what}: the loss is {loss} at step {state.global_step} of "
                f"{state.max_steps}; lower {self.setup.setting('learning_rate')} "
                f"({args.learning_rate:g}), or use float32 instead of bf16"
            )
