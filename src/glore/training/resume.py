"""Which checkpoint a training continues from: the latest complete one of the very same job, or none."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from glore.config import TrainSettings
from glore.training.examples import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["job_fingerprint", "resume_point"]


def job_fingerprint(
    settings: TrainSettings, rows: Sequence[Row], plan: Sequence[tuple[int, ...]], world: int, seed: int, model: PreTrainedModel
) -> str:
    """A fingerprint of everything that decides the weights: a checkpoint of another job is never continued."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(settings.model_dump_json(exclude={"save_steps", "report_to"}).encode())
    digest.update(repr((seed, world, plan, [(n, tuple(p.shape)) for n, p in model.named_parameters()])).encode())
    digest.update(repr([row.copies for row in rows]).encode())
    for row in rows:
        digest.update(row.ids.tobytes())
        digest.update(row.targets.tobytes())
    for p in model.parameters():
        digest.update(p.detach().float().sum(dtype=torch.float64).cpu().numpy().tobytes())
    return digest.hexdigest()


def resume_point(folder: Path, job: str) -> str | None:
    """The latest complete checkpoint of this job. Incomplete ones go; another job's go too."""
    note = folder / "job.json"
    if not note.is_file() or note.read_text(encoding="utf-8") != job:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(job, encoding="utf-8")
    for path in sorted(folder.glob("checkpoint-*"), key=_step_of, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_bytes())  # the Trainer writes it last
            return str(path)
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
    return None


def _step_of(checkpoint: Path) -> int:
    """The optimiser step a checkpoint folder was written after."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
