"""The checkpoint that a training continues from: the latest complete one of the same job, or none.

A checkpoint is complete when it has the digests of its files and they match. They are written after
everything else in it and after every process wrote its part. An incomplete checkpoint is not used;
the one before it is.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from glore.config import TrainSettings
from glore.digests import damage, read_digests, write_digests
from glore.errors import ModelError
from glore.files import move_folder
from glore.progress import Progress
from glore.training.distributed import is_first, wait_for_all
from glore.training.examples import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["complete", "job_fingerprint", "resume_point"]

KEPT = 2
"""Complete checkpoints that are kept. If the newest is damaged, the one before it is used."""
STATE = "trainer_state.json"


def job_fingerprint(
    settings: TrainSettings,
    rows: Sequence[Row],
    plan: Sequence[tuple[int, ...]],
    world: int,
    seed: int,
    model: PreTrainedModel,
    is_paired: bool = False,
    label_tokens: tuple[int, ...] = (),
) -> str:
    """A fingerprint of everything that the trained weights depend on.

    A checkpoint of a job with another fingerprint is never continued.
    """
    kind = "pairs" if is_paired else repr(label_tokens) if label_tokens else ""
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    unread: dict[str, Any] = dict.fromkeys(("save_steps", "log_steps", "report_to"), True)
    if settings.lora is not None:  # checkpoints from before these settings stay valid
        unread["lora"] = {"save"} | ({"base"} if settings.lora.base == "full" else set())
    digest.update(settings.model_dump_json(exclude=unread).encode())
    digest.update(
        repr(
            (seed, world, plan, [(n, tuple(p.shape)) for n, p in model.named_parameters()])
        ).encode()
    )
    digest.update(repr([row.copies for row in rows]).encode())
    for row in rows:
        digest.update(row.ids.tobytes())
        digest.update(row.targets.tobytes())
    for p in model.parameters():
        digest.update(p.detach().float().sum(dtype=torch.float64).cpu().numpy().tobytes())
    return digest.hexdigest()


def complete(folder: Path, step: int) -> None:
    """Mark the checkpoint of a step in `folder` as complete, then remove all but the last `KEPT`.

    To be called in every process once the Trainer has written the checkpoint. Raises RunError for a
    disk error, ModelError if a part was not written.
    """
    wait_for_all()
    if is_first():
        checkpoint = folder / f"checkpoint-{step}"
        write_digests(checkpoint)
        if STATE not in (read_digests(checkpoint) or {}):
            raise ModelError(
                f"the checkpoint {checkpoint} was written without its {STATE}; check the disk, "
                "then run again"
            )
        for old in _checkpoints(folder)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    wait_for_all()


def resume_point(folder: Path, job: str, what: str, progress: Progress) -> str | None:
    """The latest complete checkpoint of this job, or none. To be called in the first process first.

    `progress` gets a note about checkpoints that are not used. Those of another job (other
    settings, data, or number of processes) are set aside and found again when that job resumes.
    """
    note = folder / "job.json"
    if not note.is_file() or note.read_bytes() != job.encode():
        _set_aside(folder, what, progress)
        aside = _aside(folder, job)
        if aside.is_dir():
            aside.rename(folder)
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(job, encoding="utf-8")
    unusable: list[tuple[Path, str]] = []
    for path in _checkpoints(folder):
        wrong = damage(path)
        if wrong is None:
            if unusable:
                progress.note(
                    f"{what}: {_said(unusable)}, so the checkpoint before is taken: {path.name}"
                )
            for other, _ in unusable:
                shutil.rmtree(other, ignore_errors=True)
            return str(path)
        unusable.append((path, wrong))
    if unusable:
        progress.note(
            f"{what}: {_said(unusable)}, and none is complete, so the training starts anew"
        )
    for other, _ in unusable:
        shutil.rmtree(other, ignore_errors=True)
    return None


def _said(unusable: Sequence[tuple[Path, str]]) -> str:
    path, wrong = unusable[0]
    more = f" and {len(unusable) - 1} more" if len(unusable) > 1 else ""
    return f"{path.name}{more} can't be used ({wrong})"


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, the newest first."""
    return sorted(
        (p for p in folder.glob("checkpoint-*") if p.is_dir()), key=_step_of, reverse=True
    )


def _set_aside(folder: Path, what: str, progress: Progress) -> None:
    """Move another job's checkpoints to where that job finds them again."""
    try:
        job = (folder / "job.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        job = "unknown"
    aside = _aside(folder, job)
    if _checkpoints(folder):
        progress.note(
            f"{what}: the checkpoints there are of a training with other settings, data or number "
            f"of processes; they are kept in {aside.name}, and this one starts from its own"
        )
        move_folder(folder, aside)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _aside(folder: Path, job: str) -> Path:
    return folder.with_name(
        f"{folder.name}-{hashlib.blake2b(job.encode(), digest_size=6).hexdigest()}"
    )


def _step_of(checkpoint: Path) -> int:
    """The optimiser step a checkpoint folder was written after."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1
