"""`glore regrade`: the present graders applied to what a run has stored. Draws nothing.

A better grader makes stored verdicts wrong, and with them everything that was made from these:
training data, labels, tables. Solutions and verifying rollouts hold verdicts. With `apply`, a stage
that only samples becomes what a fresh run with these graders holds, to the byte but for `n_tokens`
of shortened records of rollouts (tokens are known for all rollouts of a prefix together):

- a solution gets its new verdict and answer;
- a prefix's rollouts end at the first success, so one that turns out right ends them earlier, and a
draft that turns
  out right has none;
- one that turns out wrong, or a draft that does, means that the scan would have gone on. That needs
sampling: the stage becomes
  unfinished, keeps what was drawn, and `glore run` draws what is missing.

Whatever was made from a changed stage is stale from then on. Stages that are stale get their
verdicts corrected, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from glore.config import RunConfig
from glore.errors import RunError
from glore.files import replacing
from glore.pipeline.folder import locked, write_json
from glore.pipeline.integrity import file_mark
from glore.pipeline.marks import DoneMark, StartedMark
from glore.pipeline.swap import finish_swap, is_swap_pending, prepared_swap
from glore.progress import Progress, SilentProgress
from glore.records import PrefixTrials, Problem, Solution, read_records, write_records
from glore.regrade.stored import Lineage, draft_settings, graded_parts, read_marks, stored_problems
from glore.regrade.verdicts import Example, Tally, regraded_solutions, regraded_trials
from glore.solutions import first_of_each
from glore.stages.common import verdicts
from glore.stages.reward import DRAWN, drafts_per_shard
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.open import open_grader
from glore.tasks.protocol import Task

__all__ = ["Example", "RegradedStage", "Regrading", "regrade"]

Fate = Literal["as it is", "rewritten", "unfinished", "not its drafts"]
Files = dict[
    str,
    tuple[type[Solution], Sequence[Solution]] | tuple[type[PrefixTrials], Sequence[PrefixTrials]],
]


@dataclasses.dataclass(frozen=True, slots=True)
class RegradedStage:
    """What grading one stage's records again comes to."""

    stage: str
    n_verdicts: int
    n_answers: int
    """Answers written otherwise under the same verdict."""
    transitions: Mapping[tuple[str, str], int]
    """(stored verdict, present verdict) → how many."""
    examples: Sequence[Example]
    n_let_go: int
    """Rollouts that a scan would not have drawn."""
    n_unfinished: int
    """Drafts whose scan has to go on."""
    fate: Fate
    """`rewritten`; `unfinished`: sampling is needed; `not its drafts`: rollouts of drafts that are
    gone, left as they are.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Regrading:
    """What `regrade` found, or did."""

    stages: Sequence[RegradedStage]
    """Those that hold verdicts, inputs first."""
    stale: Sequence[str]
    """Stages that no longer fit what they were made from, and will be made again."""
    skipped: Sequence[str]
    """Stages that are unfinished, and were not looked at."""
    is_applied: bool

    @property
    def changes_anything(self) -> bool:
        return any(s.fate in ("rewritten", "unfinished") for s in self.stages)


def regrade(
    config: RunConfig, *, apply: bool = False, n_examples: int = 3, progress: Progress | None = None
) -> Regrading:
    """Grade what the run at `config.run_dir` has stored; with `apply`, write what changes, all of
    it or nothing.

    `n_examples` are given per stage and change of verdict. Raises RunError for damaged records.
    """
    run_dir = config.run_dir
    with contextlib.ExitStack() as stack:
        if apply:
            stack.enter_context(locked(run_dir))
            finish_swap(run_dir)
        elif is_swap_pending(run_dir):
            raise RunError(
                f"{run_dir}: an earlier glore regrade --apply was killed; carry it out with glore "
                "regrade --apply"
            )
        work = _Regrade(config, n_examples, progress or SilentProgress())
        stack.callback(work.close)
        stages = [stage for name in work.marks if (stage := work.stage(name)) is not None]
        result = Regrading(
            stages, work.lineage.stale(), work.unfinished(), apply and bool(work.changed)
        )
        if result.is_applied:
            with prepared_swap(run_dir) as place:
                for change in work.changed:
                    _prepare(run_dir, place, change)
        return result


class _Change(NamedTuple):
    """A stage that becomes another."""

    done: DoneMark
    made: StartedMark
    files: Files
    """New records by file."""
    keeps: Sequence[str]
    """Files that stay."""
    counts: dict[str, int]
    drawn: Sequence[PrefixTrials] | None
    """Where the stage becomes unfinished: what it has drawn."""


class _Regrade:
    """One stage after the other, inputs first."""

    def __init__(self, config: RunConfig, n_examples: int, progress: Progress) -> None:
        self._run_dir = config.run_dir
        self._n_examples, self._progress = n_examples, progress
        self.marks = read_marks(config.run_dir)
        self.lineage = Lineage(self.marks)
        self._problems: dict[str, Problem] = stored_problems(config.run_dir, self.marks)
        self._task: Task = open_grader(config.task, config.seed, self._problems.values())
        self._solutions: dict[str, list[Solution]] = {}
        """Of the stages whose solutions were continued by rollouts, with new verdicts."""
        self.changed: list[_Change] = []

    def close(self) -> None:
        """End what grading started."""
        if isinstance(self._task, DatasetTask):
            self._task.close()

    def unfinished(self) -> list[str]:
        """Stages that were begun and have no mark of the end."""
        begun = (self._run_dir / "stages").glob("*/started.json")
        return sorted(path.parent.name for path in begun if path.parent.name not in self.marks)

    def stage(self, name: str) -> RegradedStage | None:
        """Grade one stage; none where it holds no verdicts."""
        mark = self.marks[name]
        parts = graded_parts(self._run_dir, mark)
        if not parts:
            return None
        tally = Tally(self._n_examples)
        rollouts = [part for part, (kind, _) in parts.items() if kind is PrefixTrials]
        if rollouts:
            return self._rollouts(mark, tally, rollouts[0], parts[rollouts[0]][1])
        return self._sampled(mark, tally, {part: files for part, (_, files) in parts.items()})

    def _sampled(
        self, mark: DoneMark, tally: Tally, parts: Mapping[str, Sequence[Path]]
    ) -> RegradedStage:
        files: Files = {}
        counts: dict[str, int] = {}
        for part, paths in parts.items():
            stored = {path.name: read_records(path, Solution) for path in paths}
            self._progress.begin(
                f"{mark.stage} · {part}", sum(map(len, stored.values())), "solutions"
            )
            now = {
                name: regraded_solutions(
                    self._task, self._problems, found, tally, self._progress.advance
                )
                for name, found in stored.items()
            }
            files |= {
                name: (Solution, found) for name, found in now.items() if found != stored[name]
            }
            whole = [s for found in now.values() for s in found]
            counts |= verdicts(whole, part)
            if any(
                mark.stage in other.inputs
                for other in self.marks.values()
                if "labels.rollouts" in other.settings
            ):
                self._solutions[mark.stage] = whole
        if files:
            made = self.lineage.regrade(mark.stage, tally.digest)
            self.changed.append(
                _Change(mark, made, files, sorted(set(mark.files) - set(files)), counts, None)
            )
        return _summary(mark, tally, "rewritten" if files else "as it is")

    def _rollouts(
        self, mark: DoneMark, tally: Tally, part: str, paths: Sequence[Path]
    ) -> RegradedStage:
        source = next((s for s in mark.inputs if s in self._solutions), None)
        if source is None or not self.lineage.belongs_to(mark.stage, source):
            return _summary(mark, tally, "not its drafts")
        settings, n_drafts = draft_settings(mark)
        drafts = (
            self._solutions[source]
            if n_drafts is None
            else first_of_each(self._solutions[source], n_drafts)
        )
        trials = read_records(paths, PrefixTrials)
        self._progress.begin(f"{mark.stage} · {part}", len(trials), "prefixes")
        found = regraded_trials(
            self._task, self._problems, drafts, trials, settings, tally, self._progress.advance
        )
        fate: Fate = (
            "unfinished"
            if found.unfinished
            else "rewritten"
            if found.records != trials
            else "as it is"
        )
        if fate != "as it is" or self.lineage.changed(source):
            # Also where no record changes: they are what the changed drafts lead to.
            made = self.lineage.regrade(
                mark.stage, tally.digest if tally.changes_anything else None, follows=source
            )
            files = (
                {}
                if found.unfinished
                else _shards(part, drafts, found.records, drafts_per_shard(settings))
            )
            counts = {
                "prefixes": len(found.records),
                "rollouts": sum(len(t.completions) for t in found.records),
            }
            self.changed.append(
                _Change(mark, made, files, [], counts, found.stored if found.unfinished else None)
            )
        return _summary(mark, tally, fate, found.n_let_go, len(found.unfinished))


def _summary(
    mark: DoneMark, tally: Tally, fate: Fate, n_let_go: int = 0, n_unfinished: int = 0
) -> RegradedStage:
    return RegradedStage(
        stage=mark.stage,
        n_verdicts=tally.n_verdicts,
        n_answers=tally.n_answers,
        transitions=dict(sorted(tally.transitions.items())),
        examples=[example for _, found in sorted(tally.examples.items()) for example in found],
        n_let_go=n_let_go,
        n_unfinished=n_unfinished,
        fate=fate,
    )


def _shards(
    part: str, drafts: Sequence[Solution], records: Sequence[PrefixTrials], size: int
) -> Files:
    """The records in the files that the stage commits, so many drafts each."""
    files: Files = {}
    for number, start in enumerate(range(0, max(1, len(drafts)), size)):
        ids = {d.id for d in drafts[start : start + size]}
        files[f"{part}-{number:05}.parquet"] = (
            PrefixTrials,
            [t for t in records if t.solution_id in ids],
        )
    return files


def _prepare(run_dir: Path, place: Path, change: _Change) -> None:
    """The stage's new folder below `place`."""
    mark, made = change.done, change.made
    old, folder = run_dir / "stages" / mark.stage, place / mark.stage
    if change.drawn is not None:
        write_records(folder / "work" / DRAWN, PrefixTrials, change.drawn)
        write_json(folder / "started.json", dataclasses.asdict(made))
        return
    for name in change.keeps:
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
