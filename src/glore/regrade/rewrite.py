"""The new folder of a stage whose verdicts have changed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from glore.files import replacing
from glore.pipeline.folder import write_json
from glore.pipeline.integrity import file_mark
from glore.pipeline.marks import DoneMark, StartedMark
from glore.records import PrefixTrials, Solution, write_records
from glore.stages.labelling import DRAWN

__all__ = ["Change", "Files", "rollout_files", "write_stage"]

Files = dict[
    str,
    tuple[type[Solution], Sequence[Solution]] | tuple[type[PrefixTrials], Sequence[PrefixTrials]],
]
"""File name → kind of its records, the records."""


class Change(NamedTuple):
    """What one stage becomes."""

    done: DoneMark
    """Its mark before."""
    made: StartedMark
    """Its fingerprint, settings and inputs after."""
    files: Files
    """New files."""
    kept: Sequence[str]
    """Names of files that stay the same."""
    counts: dict[str, int]
    drawn: Sequence[PrefixTrials] | None
    """For a stage that becomes unfinished: the rollouts drawn so far."""


def rollout_files(
    part: str, drafts: Sequence[Solution], records: Sequence[PrefixTrials], size: int
) -> Files:
    """Rollout records → files of the stage, each with the records of `size` drafts."""
    files: Files = {}
    for number, start in enumerate(range(0, max(1, len(drafts)), size)):
        ids = {d.id for d in drafts[start : start + size]}
        files[f"{part}-{number:05}.parquet"] = (
            PrefixTrials,
            [t for t in records if t.solution_id in ids],
        )
    return files


def write_stage(run_dir: Path, place: Path, change: Change) -> None:
    """Write the stage's new folder below `place`. Raises RunError when the disk refuses."""
    mark, made = change.done, change.made
    old, folder = run_dir / "stages" / mark.stage, place / mark.stage
    if change.drawn is not None:
        write_records(folder / "work" / DRAWN, PrefixTrials, change.drawn)
        write_json(folder / "started.json", dataclasses.asdict(made))
        return
    for name in change.kept:
        with replacing(folder / name) as new, (old / name).open("rb") as stored:
            shutil.copyfileobj(stored, new)
    for name, (kind, records) in change.files.items():
        write_records(folder / name, kind, records)
    done = dataclasses.replace(
        mark,
        fingerprint=made.fingerprint,
        settings=made.settings,
        inputs=made.inputs,
        counts=mark.counts | {key: n for key, n in change.counts.items() if key in mark.counts},
        files={p.name: file_mark(p) for p in sorted(folder.glob("*.parquet"))},
    )
    write_json(folder / "done.json", dataclasses.asdict(done))
