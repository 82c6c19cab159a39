"""Verifying rollouts from the prefixes of drafts: the exact backward scan, or full counts (method
3).

After positive propagation, labels depend on the last positive step t* alone. So an incorrect draft
of L steps is scanned backwards from P_{L−1}. The scan ends at the first prefix with a consistent
success, and sampling at a prefix ends at its first such success. A correct draft needs no rollouts.
With full counts, all K are drawn at every prefix of every draft; soft labels, value refinement and
the ablation without propagation need them.

Rollout k of prefix i has the seed (run seed, draft, i, k), so a scan and full counts see the same
rollouts. At a prefix they are drawn in growing waves, since the first ones often suffice. A record
keeps the rollouts up to the first consistent success in the order of k, so waves change the time
and nothing else.

Rollouts drawn earlier for the same drafts are used again (`drawn`), and only missing ones are
drawn. `glore.regrade` uses this to find the records that a scan with another grader would make.

A rollout that could not be graded is kept as `unknown` and is no success. A draft that could not be
graded gets no rollouts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

from glore.config import LabelSettings
from glore.engines.protocol import Completion, Engine, Request, Result, SamplingParams
from glore.progress import Progress
from glore.prompts import PLAIN, PromptLayout, lines_of
from glore.records import PrefixTrials, Problem, Solution
from glore.seeds import stable_seed
from glore.tasks.protocol import Task
from glore.where.consistency import consistent_rollouts

__all__ = ["expected_rollouts", "verify_prefixes"]

WAVES = (1, 3)
"""Rollouts in the first wave, in the second, …; the last wave has the rest of K."""


def verify_prefixes(
    engine: Engine,
    task: Task,
    problems: Mapping[str, Problem],
    drafts: Sequence[Solution],
    settings: LabelSettings,
    *,
    seed: int,
    progress: Progress,
    waves: Sequence[int] = WAVES,
    drawn: Iterable[PrefixTrials] = (),
    layout: PromptLayout = PLAIN,
) -> list[PrefixTrials]:
    """Rollouts of every prefix that was tried, in the order of the drafts, then of i.

    `problems`: by id; `seed`: the run's; `settings.full_counts`: full counts in place of the scan;
    `drawn`: rollouts of an earlier scan of these drafts with the same settings and seed.
    """
    waves = () if settings.full_counts else waves
    scan = _Scan(task, settings, seed, tuple(waves), progress, layout)
    scan.drawn = {(t.solution_id, t.n_steps_kept): t for t in drawn}
    todo = [
        d
        for d in drafts
        if len(d.steps) > 1
        and d.correct != "unknown"
        and (settings.full_counts or d.correct == "wrong")
    ]
    first = [
        scan.request(prefix)
        for draft in todo
        for i in (range(1, len(draft.steps)) if settings.full_counts else (len(draft.steps) - 1,))
        for prefix in scan.to_draw(scan.prefix(problems[draft.problem_id], draft, i))
    ]
    progress.advance(len(drafts) - scan.n_drafts_open)
    for _ in engine.run(first, scan.follow_up):
        pass
    order = {d.id: n for n, d in enumerate(drafts)}
    return sorted(scan.trials, key=lambda t: (order[t.solution_id], t.n_steps_kept))


def expected_rollouts(p: Sequence[float], k: int) -> float:
    """Expected number of rollouts that the scan draws for one incorrect draft. `p[i-1]`: success
    rate at P_i, i < L (method 3).

    Π_{i<j<L}(1−p_j)^K is the chance of reaching P_i, (1−(1−p_i)^K)/p_i the expected number drawn
    there. Full counts: K(L−1).
    """
    total, reach = 0.0, 1.0
    for rate in reversed(p):
        missed = (1 - rate) ** k
        total += reach * ((1 - missed) / rate if rate else k)
        reach *= missed
    return total


@dataclasses.dataclass(frozen=True, slots=True)
class _Rollout:
    text: str
    n_tokens: int
    verdict: str
    consistent: bool


@dataclasses.dataclass(frozen=True, slots=True)
class _Prefix:
    """P_i of a draft and the rollouts drawn from it so far."""

    problem: Problem
    draft: Solution
    i: int
    rollouts: tuple[_Rollout, ...]


class _Scan:
    """The state of a scan: open requests by id, records of finished prefixes."""

    def __init__(
        self,
        task: Task,
        settings: LabelSettings,
        seed: int,
        waves: tuple[int, ...],
        progress: Progress,
        layout: PromptLayout,
    ) -> None:
        self._task, self._settings, self._seed, self._progress = task, settings, seed, progress
        self._layout = layout
        ends = (min(end, settings.rollouts) for end in itertools.accumulate(waves))
        self._ends = (*ends, settings.rollouts)
        self._params = SamplingParams.of(settings, settings.max_new_tokens)
        self._open: dict[str, _Prefix] = {}
        self._n_open: dict[str, int] = {}
        self.trials: list[PrefixTrials] = []
        self.drawn: Mapping[tuple[str, int], PrefixTrials] = {}

    @property
    def n_drafts_open(self) -> int:
        """Number of drafts with open requests."""
        return len(self._n_open)

    def prefix(self, problem: Problem, draft: Solution, i: int) -> _Prefix:
        """P_i with the rollouts that were drawn from it earlier."""
        trial = self.drawn.get((draft.id, i))
        if trial is None:
            return _Prefix(problem, draft, i, ())
        # A record knows only the sum of its rollouts' tokens. The first rollout gets them all, so
        # the sum stays even if the record loses its last rollouts.
        tokens = (trial.n_tokens, *(0 for _ in trial.completions[1:]))
        return _Prefix(
            problem,
            draft,
            i,
            tuple(map(_Rollout, trial.completions, tokens, trial.correct, trial.consistent)),
        )

    def request(self, prefix: _Prefix) -> Request:
        """The next wave of rollouts from this prefix."""
        drawn = len(prefix.rollouts)
        end = next(e for e in self._ends if e > drawn)
        draft = prefix.draft
        request_id = f"{draft.id}/{prefix.i}/{drawn}"
        self._open[request_id] = prefix
        self._n_open[draft.id] = self._n_open.get(draft.id, 0) + 1
        return Request(
            id=request_id,
            segments=self._layout.solve(prefix.problem.question, draft.steps[: prefix.i]),
            seeds=tuple(
                stable_seed(self._seed, "rollouts", draft.id, prefix.i, k)
                for k in range(drawn, end)
            ),
            params=self._params,
        )

    def follow_up(self, result: Result) -> list[Request]:
        """Grade a wave, and return requests for more of the same prefix, for the prefix before it,
        or none.
        """
        before = self._open.pop(result.request.id)
        prefix = dataclasses.replace(
            before, rollouts=before.rollouts + self._graded(before, result.completions)
        )
        more = self.to_draw(prefix)
        draft_id = prefix.draft.id
        self._n_open[draft_id] -= 1
        requests = [self.request(p) for p in more]
        done = self._n_open[draft_id] == 0
        self._progress.advance(int(done), tokens=sum(c.n_tokens for c in result.completions))
        return requests

    def to_draw(self, prefix: _Prefix) -> list[_Prefix]:
        """The prefix to draw from next: this one, an earlier one, or none. A prefix with all its
        rollouts becomes a record.
        """
        lazy = not self._settings.full_counts
        while True:
            success = next(
                (n for n, r in enumerate(prefix.rollouts) if r.verdict == "right" and r.consistent),
                None,
            )
            if lazy and success is not None:
                self._finish(prefix, prefix.rollouts[: success + 1])
                return []
            if len(prefix.rollouts) < self._settings.rollouts:
                return [prefix]
            self._finish(prefix, prefix.rollouts)
            if not lazy or prefix.i == 1:
                return []
            prefix = self.prefix(prefix.problem, prefix.draft, prefix.i - 1)

    def _graded(self, prefix: _Prefix, completions: Sequence[Completion]) -> tuple[_Rollout, ...]:
        kept = prefix.draft.steps[: prefix.i]
        continuations = [self._layout.steps.split(c.text) for c in completions]
        verdicts = [
            self._task.grade(prefix.problem, lines_of((*kept, *steps))).verdict
            for steps in continuations
        ]
        consistent = consistent_rollouts(
            kept, continuations, self._settings.consistency, self._settings.consistency_steps
        )
        return tuple(
            map(
                _Rollout,
                (c.text for c in completions),
                (c.n_tokens for c in completions),
                verdicts,
                consistent,
            )
        )

    def _finish(self, prefix: _Prefix, rollouts: Sequence[_Rollout]) -> None:
        self.trials.append(
            PrefixTrials(
                solution_id=prefix.draft.id,
                n_steps_kept=prefix.i,
                completions=tuple(r.text for r in rollouts),
                correct=tuple(r.verdict for r in rollouts),
                consistent=tuple(r.consistent for r in rollouts),
                n_tokens=sum(r.n_tokens for r in rollouts),
                exhausted=len(rollouts) == self._settings.rollouts,
            )
        )
