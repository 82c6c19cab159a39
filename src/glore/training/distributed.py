"""Training on several devices: which process writes, barriers, and gathering sharded weights.

accelerate starts the processes (`glore.training.launch`). In data parallel training the first
process alone writes, and nothing else differs. FSDP and DeepSpeed ZeRO-3 shard the weights, which
are gathered in `work_dir/whole` before the model is saved.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from glore.config import TrainSettings
from glore.training.launch_command import SHARDED, refuse_sharded

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["gather_weights", "is_first", "is_sharded", "wait_for_all", "whole_folder"]


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_all() -> None:
    """A barrier for all processes of the training; a single process does not wait."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def is_sharded(trainer: Trainer, settings: TrainSettings) -> bool:
    """Whether the weights are sharded over processes.

    Raises ConfigError for settings that don't work with sharded weights.
    """
    if str(trainer.accelerator.distributed_type.value) not in SHARDED:
        return False
    refuse_sharded(settings)
    return True


def gather_weights(trainer: Trainer, sharded: bool, work_dir: Path) -> None:
    """After a training, write sharded weights to `work_dir/whole`; otherwise remove that folder."""
    folder = work_dir / "whole"
    if is_first():
        shutil.rmtree(folder, ignore_errors=True)
    if sharded:
        wait_for_all()
        trainer.save_model(str(folder))
        wait_for_all()


def whole_folder(work_dir: Path) -> Path | None:
    """The folder with the gathered weights of a sharded training; none: it was not sharded."""
    folder = work_dir / "whole"
    return folder if (folder / "config.json").is_file() else None
