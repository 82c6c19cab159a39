"""The labelled drafts of a run, as solutions for a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from glore.errors import RunError, shown
from glore.formats.labelled import Label, LabelledSolution, RolloutCount
from glore.pipeline.integrity import recorded_files
from glore.pipeline.marks import read_done
from glore.records import PrefixTrials, Problem, Solution, StepLabels, read_records

__all__ = ["CORRECT", "LABELS", "PARTS", "rollout_counts", "run_solutions", "soft_labels"]

R = TypeVar("R")

PARTS: Mapping[str, tuple[str, str, str]] = {
    "train": ("samples", "rollouts", "labels"),
    "test": ("test_drafts", "test_rollouts", "test_labels"),
}
"""Part of the questions → the stages with its drafts, rollouts and labels."""
LABELS = ("sorm", "soft", "truth")
"""Labels of the run's rule, the share of right rollouts, the exact truth."""
CORRECT: Mapping[str, bool] = {"right": True, "wrong": False}
"""Verdict → what files say of the final answer; nothing for one that could not be graded."""


def run_solutions(
    run_dir: Path, part: str = "train", labels: str = "sorm"
) -> Iterator[LabelledSolution]:
    """The drafts of a run whose labels are made, in the order of its records.

    `part`: a key of `PARTS`. `labels`: one of `LABELS`. A draft without labels comes without; a
    soft label is missing where not all rollouts were drawn (`labels.full_counts`). Raises RunError
    if the stages are not finished or the run has no such labels.
    """
    if part not in PARTS:
        raise RunError(f"a run has the parts {', '.join(PARTS)}, got {shown(part)}")
    if labels not in LABELS:
        raise RunError(f"a run has the labels {', '.join(LABELS)}, got {shown(labels)}")
    drafts_stage, rollouts_stage, labels_stage = PARTS[part]
    found = _read(run_dir, labels_stage, StepLabels, part="truth" if labels == "truth" else "part")
    if not found:
        raise RunError(
            f"run {run_dir} has no {labels} labels of its {part} drafts (stage {labels_stage}); "
            "choose other --labels"
        )
    problems = {p.id: p for p in _read(run_dir, "problems", Problem, part=part)}
    drafts = {s.id: s for s in _read(run_dir, drafts_stage, Solution)}
    trials: dict[str, dict[int, PrefixTrials]] = {}
    for trial in _read(run_dir, rollouts_stage, PrefixTrials):
        trials.setdefault(trial.solution_id, {})[trial.n_steps_kept] = trial
    for record in found:
        draft = drafts[record.solution_id]
        drawn = trials.get(draft.id, {})
        yield LabelledSolution(
            question=problems[draft.problem_id].question,
            steps=draft.steps,
            labels=soft_labels(draft, drawn) if labels == "soft" else record.labels,
            id=draft.id,
            answer=problems[draft.problem_id].answer,
            correct=CORRECT.get(draft.correct),
            generator=draft.source,
            counts=rollout_counts(draft, drawn) if drawn else None,
            kept=record.kept if record.kept and not all(record.kept) else None,
        )


def _read(run_dir: Path, stage: str, kind: type[R], part: str = "part") -> list[R]:
    folder = run_dir / "stages" / stage
    if read_done(folder) is None:
        raise RunError(
            f"run {run_dir} has not finished the stage {stage}; finish it with glore run"
        )
    return read_records(recorded_files(folder, part), kind)


def _n_right(trial: PrefixTrials) -> int:
    pairs = zip(trial.correct, trial.consistent, strict=True)
    return sum(correct == "right" and consistent for correct, consistent in pairs)


def rollout_counts(
    draft: Solution, drawn: Mapping[int, PrefixTrials]
) -> tuple[RolloutCount | None, ...]:
    """Consistent right rollouts and all rollouts from the prefix that ends with each step."""
    found = (drawn.get(i) for i in range(1, len(draft.steps) + 1))
    return tuple((_n_right(t), len(t.correct)) if t else None for t in found)


def soft_labels(draft: Solution, drawn: Mapping[int, PrefixTrials]) -> tuple[Label, ...]:
    """The share of right rollouts per step; of the last step, the draft's own correctness."""
    before: list[Label] = []
    for i in range(1, len(draft.steps)):
        trial = drawn.get(i)
        complete = trial is not None and trial.exhausted and trial.correct
        before.append(_n_right(trial) / len(trial.correct) if trial and complete else None)
    correct = CORRECT.get(draft.correct)
    return (*before, None if correct is None else float(correct))[: len(draft.steps)]
