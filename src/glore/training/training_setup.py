"""Where and how a training is carried out, as one value for every trainer. What it learns, and how
fast, are arguments of their own.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from glore.progress import Progress

__all__ = ["TrainingSetup"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """Folders, seed, device and who watches."""

    out_dir: Path
    """The model's folder; its last part names the training."""
    work_dir: Path
    """Checkpoints, and what a killed training goes on from."""
    log_dir: Path | None = None
    """Trackers write to `log_dir/NAME`; none: to `work_dir/log/NAME`."""
    seed: int
    progress: Progress
    dtype: str = "float32"
    """Of the weights: `float32` or `bfloat16`."""
    device: str = "auto"
    launch: str = ""
    """A command that starts the training on several devices (`glore.training.job`); empty: in this
    process.
    """
    section: str = ""
    """Where the recipe has the settings of this training, such as `student.sft`, for errors; empty:
    nowhere.
    """

    def setting(self, name: str) -> str:
        """The path of one of them."""
        return f"{self.section}.{name}" if self.section else name
