"""The graded records of a run folder, and which stage was made from which."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from glore.config import LabelSettings
from glore.errors import RunError
from glore.pipeline.fingerprints import REGRADED, fingerprint_of, stage_fingerprint
from glore.pipeline.integrity import check_stage_files, finished_stages, recorded_files
from glore.pipeline.marks import DoneMark, StartedMark
from glore.records import PrefixTrials, Problem, Solution, column_names, read_records
from glore.tasks.data.splits import SPLITS

__all__ = ["Lineage", "draft_settings", "graded_parts", "read_marks", "stored_problems"]

_SHARD = re.compile(r"(.+)-\d+\.parquet")


def read_marks(run_dir: Path) -> dict[str, DoneMark]:
    """Marks of the finished stages, each after its inputs. Raises RunError for a damaged one."""
    marks = finished_stages(run_dir)
    ordered: dict[str, DoneMark] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in marks and name not in ordered and name not in above:
            for source in marks[name].inputs:
                visit(source, (*above, name))
            ordered[name] = marks[name]

    for name in sorted(marks, key=lambda n: (marks[n].finished, n)):
        visit(name, ())
    return ordered


def stored_problems(run_dir: Path, marks: Mapping[str, DoneMark]) -> dict[str, Problem]:
    """Problem id → problem, as the run read them. Raises RunError without a stage `problems`."""
    if "problems" not in marks:
        raise RunError(
            f"{run_dir} has no finished stage problems, so there is nothing to grade; run it "
            "first: glore run"
        )
    folder = run_dir / "stages" / "problems"
    return {
        p.id: p for split in SPLITS for p in read_records(recorded_files(folder, split), Problem)
    }


def graded_parts(
    run_dir: Path, mark: DoneMark
) -> dict[str, tuple[type[Solution] | type[PrefixTrials], list[Path]]]:
    """Part → (kind of its records, its files), for the parts of a stage that hold verdicts. Raises
    RunError for damaged files.
    """
    folder = run_dir / "stages" / mark.stage
    damage = check_stage_files(run_dir, folder, dataclasses.replace(mark, models={}))
    if damage is not None:
        raise RunError(
            f"stage {mark.stage} can't be graded: {damage.what}; put the file back from a copy, or "
            "let glore run make the stage again"
        )
    kinds: tuple[type[Solution] | type[PrefixTrials], ...] = (Solution, PrefixTrials)
    out = {}
    for part in dict.fromkeys(m[1] for name in sorted(mark.files) if (m := _SHARD.fullmatch(name))):
        files = recorded_files(folder, part)
        names = pq.read_schema(files[0]).names
        kind = next((kind for kind in kinds if names == column_names(kind, names)), None)
        if kind is not None:
            out[part] = (kind, files)
    return out


def draft_settings(mark: DoneMark) -> tuple[LabelSettings, int | None]:
    """The scan's settings of a stage of rollouts, and its drafts per question (None: all)."""
    own = {
        key.removeprefix("labels."): value
        for key, value in mark.settings.items()
        if key.startswith("labels.")
    }
    own["full_counts"] = bool(own.get("full_counts")) or bool(
        mark.settings.get("evaluation.label_full_counts")
    )
    n = mark.settings.get("reward.draft_samples")
    return LabelSettings.model_validate(own), n if isinstance(n, int) else None


class Lineage:
    """Which stage was made from which, before and after some are graded again."""

    def __init__(self, marks: Mapping[str, DoneMark]) -> None:
        self._before = marks
        self._now = {name: (mark.fingerprint, mark.inputs) for name, mark in marks.items()}

    def belongs_to(self, stage: str, source: str) -> bool:
        """True if the stage was made from the result of `source` that is stored."""
        mark = self._before.get(source)
        return mark is not None and self._before[stage].inputs.get(source) == mark.fingerprint

    def regrade(self, stage: str, digest: str | None, follows: str | None = None) -> StartedMark:
        """Give the stage the fingerprint of its new records, and return its new mark. `digest`: a
        hash of its changes, if any. `follows`: the input that has changed, if any.
        """
        mark = self._before[stage]
        earlier = mark.settings.get(REGRADED)
        settings = (
            mark.settings
            if digest is None
            else {**mark.settings, REGRADED: fingerprint_of([earlier, digest])}
        )
        inputs = mark.inputs if follows is None else {**mark.inputs, follows: self._now[follows][0]}
        fingerprint = stage_fingerprint(
            stage,
            stage_version=mark.stage_version,
            schema_version=mark.schema_version,
            versions=mark.versions,
            settings=settings,
            inputs=inputs,
        )
        self._now[stage] = (fingerprint, inputs)
        return StartedMark(
            fingerprint, settings, inputs, mark.stage_version, mark.schema_version, mark.versions
        )

    def changed(self, stage: str) -> bool:
        return self._now[stage][0] != self._before[stage].fingerprint

    def stale(self) -> list[str]:
        """Stages that fitted their inputs before and no longer do, directly or through others."""
        before: Callable[[str], bool] = _fits(
            {name: (mark.fingerprint, mark.inputs) for name, mark in self._before.items()}
        )
        after = _fits(self._now)
        return [name for name in self._before if before(name) and not after(name)]


def _fits(made: Mapping[str, tuple[str, Mapping[str, str]]]) -> Callable[[str], bool]:
    """`made`: stage → (fingerprint, fingerprints of its inputs), inputs first. Returns a function:
    was a stage, with all stages before it, made from the results that are stored?
    """
    known: dict[str, bool] = {}
    for name, (_, inputs) in made.items():
        known[name] = all(
            known.get(source, False) and made[source][0] == fingerprint
            for source, fingerprint in inputs.items()
        )
    return lambda name: known[name]
