"""Training on several devices: who is the first process, when all wait for it, and whole weights
out of sharded ones.

The processes are started by accelerate (`glore.training.job`). Data parallel training needs nothing
but that the first process alone writes; FSDP and DeepSpeed ZeRO-3 shard the weights, which are
gathered into `work_dir/whole` before the model is saved.
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
    """Wait until every process of the training is here; nothing in a single one."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def is_sharded(trainer: Trainer, settings: TrainSettings) -> bool:
    """Whether the weights are spread over processes. Raises ConfigError for settings that don't go
    with that.
    """
    if str(trainer.accelerator.distributed_type.value) not in SHARDED:
        return False
    refuse_sharded(settings)
    return True


def gather_weights(trainer: Trainer, sharded: bool, work_dir: Path) -> None:
    """After a training, write sharded weights whole to `work_dir/whole`; without sharding see that
    none lie there.
    """
    folder = work_dir / "whole"
    if is_first():
        shutil.rmtree(folder, ignore_errors=True)
    if sharded:
        wait_for_all()
        trainer.save_model(str(folder))
        wait_for_all()


def whole_folder(work_dir: Path) -> Path | None:
    """Where the whole weights of a sharded training lie; none: the model in memory is whole."""
    folder = work_dir / "whole"
    return folder if (folder / "config.json").is_file() else None
