"""Grade what a run has stored with the current graders, and with `apply` write what changes.

A better grader makes stored verdicts wrong, and with them everything made from these: training
data, labels, tables. Solutions and verifying rollouts hold verdicts. With `apply`, a stage that
only samples becomes what a fresh run with these graders holds, byte for byte, except for `n_tokens`
of shortened records of rollouts (tokens are known only for all rollouts of a prefix together).

- A solution gets its new verdict and answer.
- The rollouts of a prefix end at the first success. A rollout that turns right ends them earlier;
  a draft that turns right has none.
- If a rollout or a draft turns wrong, the scan would have gone on, and that needs sampling. The
  stage becomes unfinished and keeps what was drawn; `glore run` draws the rest.

Everything made from a changed stage is stale from then on. Stale stages get new verdicts, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from glore.chat_template import step_format
from glore.config import RunConfig
from glore.errors import RunError
from glore.pipeline.folder import locked
from glore.pipeline.marks import DoneMark
from glore.pipeline.recorded import made_with
from glore.pipeline.swap import finish_swap, is_swap_pending, prepared_swap
from glore.progress import Progress, SilentProgress
from glore.records import PrefixTrials, Problem, Solution, read_records
from glore.regrade.rewrite import Change, Files, rollout_files, write_stage
from glore.regrade.stored import Lineage, draft_settings, graded_parts, read_marks, stored_problems
from glore.regrade.verdicts import Example, Tally, regraded_solutions, regraded_trials
from glore.solutions import first_of_each
from glore.stages.common import verdicts
from glore.stages.labelling import drafts_per_shard
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.open import open_grader
from glore.tasks.protocol import Task

__all__ = ["RegradedStage", "Regrading", "regrade"]

Outcome = Literal["unchanged", "rewritten", "unfinished", "other drafts"]
"""`unfinished`: more sampling is needed. `other drafts`: rollouts of drafts that are gone; they are
left alone.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class RegradedStage:
    """How the records of one stage change when they are graded again."""

    stage: str
    n_verdicts: int
    n_answers: int
    """Answers that are only spelt differently; the verdict stays."""
    transitions: Mapping[tuple[str, str], int]
    """(stored verdict, new verdict) → number of records."""
    examples: Sequence[Example]
    n_dropped: int
    """Rollouts that a scan would not have drawn."""
    n_unfinished: int
    """Drafts whose scan has to go on."""
    outcome: Outcome


@dataclasses.dataclass(frozen=True, slots=True)
class Regrading:
    """What `regrade` found, and whether it was written."""

    stages: Sequence[RegradedStage]
    """The stages that hold verdicts, inputs first."""
    stale: Sequence[str]
    """Stages that no longer fit their inputs. `glore run` makes them again."""
    skipped: Sequence[str]
    """Unfinished stages, which were not graded."""
    is_applied: bool

    @property
    def changed(self) -> list[str]:
        """Names of the stages that change."""
        return [s.stage for s in self.stages if s.outcome in ("rewritten", "unfinished")]


def regrade(
    config: RunConfig, *, apply: bool = False, n_examples: int = 3, progress: Progress | None = None
) -> Regrading:
    """Grade the records of the run at `config.run_dir`. With `apply`, write the changes: all or
    none.

    `n_examples`: how many examples to return per stage and change of verdict. Raises RunError for
    damaged records.
    """
    run_dir = config.run_dir
    with contextlib.ExitStack() as stack:
        if apply:
            stack.enter_context(locked(run_dir))
            finish_swap(run_dir)
        elif is_swap_pending(run_dir):
            raise RunError(
                f"{run_dir}: an earlier glore regrade --apply was killed; finish it with glore "
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
                    write_stage(run_dir, place, change)
        return result


class _Regrade:
    """Grades one stage after the other, inputs first."""

    def __init__(self, config: RunConfig, n_examples: int, progress: Progress) -> None:
        self._run_dir = config.run_dir
        self._n_examples, self._progress = n_examples, progress
        self.marks = read_marks(config.run_dir)
        self.lineage = Lineage(self.marks)
        self._problems: dict[str, Problem] = stored_problems(config.run_dir, self.marks)
        self._task: Task = open_grader(config.task, config.seed, self._problems.values())
        self._solutions: dict[str, list[Solution]] = {}
        """Stages whose solutions rollouts continue → their solutions with new verdicts."""
        self.changed: list[Change] = []

    def close(self) -> None:
        """End the processes that grading started."""
        if isinstance(self._task, DatasetTask):
            self._task.close()

    def unfinished(self) -> list[str]:
        """Stages that were started but not finished."""
        begun = (self._run_dir / "stages").glob("*/started.json")
        return sorted(path.parent.name for path in begun if path.parent.name not in self.marks)

    def stage(self, name: str) -> RegradedStage | None:
        """Grade one stage. None: it holds no verdicts."""
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
                Change(mark, made, files, sorted(set(mark.files) - set(files)), counts, None)
            )
        return _summary(mark, tally, "rewritten" if files else "unchanged")

    def _rollouts(
        self, mark: DoneMark, tally: Tally, part: str, paths: Sequence[Path]
    ) -> RegradedStage:
        source = next((s for s in mark.inputs if s in self._solutions), None)
        if source is None or not self.lineage.belongs_to(mark.stage, source):
            return _summary(mark, tally, "other drafts")
        settings, n_drafts = draft_settings(mark)
        drafts = (
            self._solutions[source]
            if n_drafts is None
            else first_of_each(self._solutions[source], n_drafts)
        )
        trials = read_records(paths, PrefixTrials)
        self._progress.begin(f"{mark.stage} · {part}", len(trials), "prefixes")
        found = regraded_trials(
            self._task,
            self._problems,
            drafts,
            trials,
            settings,
            tally,
            self._progress.advance,
            step_format(made_with(self._run_dir, [mark.stage]).prompt),
        )
        outcome: Outcome = (
            "unfinished"
            if found.unfinished
            else "rewritten"
            if found.records != trials
            else "unchanged"
        )
        if outcome != "unchanged" or self.lineage.changed(source):
            # Even if no record changes, the stage is now made from the changed drafts.
            made = self.lineage.regrade(
                mark.stage, tally.digest if tally.changes_anything else None, follows=source
            )
            files = (
                {}
                if found.unfinished
                else rollout_files(part, drafts, found.records, drafts_per_shard(settings))
            )
            counts = {
                "prefixes": len(found.records),
                "rollouts": sum(len(t.completions) for t in found.records),
            }
            self.changed.append(
                Change(mark, made, files, [], counts, found.stored if found.unfinished else None)
            )
        return _summary(mark, tally, outcome, found.n_dropped, len(found.unfinished))


def _summary(
    mark: DoneMark, tally: Tally, outcome: Outcome, n_dropped: int = 0, n_unfinished: int = 0
) -> RegradedStage:
    return RegradedStage(
        stage=mark.stage,
        n_verdicts=tally.n_verdicts,
        n_answers=tally.n_answers,
        transitions=dict(sorted(tally.transitions.items())),
        examples=[example for _, found in sorted(tally.examples.items()) for example in found],
        n_dropped=n_dropped,
        n_unfinished=n_unfinished,
        outcome=outcome,
    )
