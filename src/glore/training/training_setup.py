"""Where and how a training runs, as one value for every trainer. What it learns, and how fast, are
separate arguments.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from glore.errors import ConfigError, shown
from glore.progress import Progress

__all__ = ["TrainingSetup"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """Folders, seed, device, launcher and progress of a training."""

    out_dir: Path
    """The model's folder; its last part names the training."""
    work_dir: Path
    """Checkpoints and everything else that a killed training resumes from."""
    log_dir: Path | None = None
    """Trackers write to `log_dir/NAME`; none: to `work_dir/log/NAME`."""
    trackers: tuple[str, ...] = ()
    """Trackers beside those in the settings of the training (`report_to`)."""
    seed: int
    progress: Progress
    dtype: str = "float32"
    """Of the weights: `float32` or `bfloat16`."""
    device: str = "auto"
    launch: str = ""
    """A command that starts the training on several devices (`glore.training.launch`); empty: in
    this process.
    """
    section: str = ""
    """The recipe's section with the settings of this training, such as `student.sft`, for errors;
    empty: there is none.
    """
    about: tuple[str, ...] = ()
    """What the model card says of data and recipe, a line each."""
    notes: tuple[tuple[str, str], ...] = ()
    """Further files of the model's folder: name and text."""

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(
                f"weights are trained in float32 or bfloat16, got {shown(self.dtype)}; in float16, "
                "small updates and gradients become zero"
            )

    def setting(self, name: str) -> str:
        """The path of one of its settings in the recipe."""
        return f"{self.section}.{name}" if self.section else name
