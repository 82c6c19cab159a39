"""Raw rollouts → step labels: consistency, positive propagation, balance, in this order (method 3).

Labels are a pure function of (drafts, trials, rule), so another rule costs no sampling. Consistency
is computed again from the stored texts. If a rule needs rollouts that a scan did not draw, the
draft gets no labels and is counted. That can't happen for the rule of the scan or a looser one.

The last step's label is the draft's own correctness. An ungraded draft gets no labels. An ungraded
rollout is no success.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from glore.config import LabelSettings
from glore.prompts import LINES, StepFormat
from glore.records import PrefixTrials, Solution, StepLabels
from glore.where.balance import balance_mask
from glore.where.consistency import consistent_rollouts

__all__ = ["LabelCounts", "LabelledDrafts", "good_traces", "label_drafts", "truth_labels"]

Trace = tuple[str, ...]
"""The steps of a rollout."""


@dataclasses.dataclass(frozen=True, slots=True)
class LabelCounts:
    """Counts before and after each part of the labelling."""

    n_drafts: int
    n_unlabelled: int
    """Drafts without labels: ungraded, empty, or not enough rollouts under this rule."""
    n_rollouts: int
    n_unknown_rollouts: int
    """Rollouts that could not be graded."""
    n_right_rollouts: int
    """Before the consistency check."""
    n_consistent_rollouts: int
    """Right rollouts that pass it."""
    n_positive_sampled: int
    """Positive steps before propagation. A scan does not sample the steps before t*."""
    n_positive: int
    """Positive steps after propagation."""
    n_negative: int
    n_kept_positive: int
    """Positive steps after balancing."""
    n_kept_negative: int


class LabelledDrafts(NamedTuple):
    """One record per draft, in their order, and the counts."""

    labels: list[StepLabels]
    counts: LabelCounts


def label_drafts(
    drafts: Sequence[Solution],
    trials: Sequence[PrefixTrials],
    rule: LabelSettings,
    *,
    seed: int,
    name: str = "sorm",
    steps: StepFormat = LINES,
) -> LabelledDrafts:
    """SORM labels of the drafts under `rule` (its consistency, propagate and balance switches).
    `steps`: how their rollouts are cut into steps.
    """
    by_draft: dict[str, list[PrefixTrials]] = defaultdict(list)
    for trial in trials:
        by_draft[trial.solution_id].append(trial)
    traces = {
        (d.id, t.n_steps_kept): good_traces(d, t, rule, steps)
        for d in drafts
        for t in by_draft[d.id]
    }
    sampled = {d.id: _sampled_labels(d, by_draft[d.id], traces, rule) for d in drafts}
    final = {
        d.id: (_propagated(found) if rule.propagate else found)
        for d in drafts
        if (found := sampled[d.id]) is not None
    }
    keys = {d.id: (d.problem_id, d.id) for d in drafts if d.id in final}
    full = {keys[i]: (True,) * len(found) for i, found in final.items()}
    kept = (
        balance_mask(
            {keys[i]: found for i, found in final.items()},
            seed,
            within_question=rule.balance_within == "question",
        )
        if rule.balance
        else full
    )
    labels = [
        _record(d.id, final.get(d.id), kept[keys[d.id]] if d.id in final else None, name)
        for d in drafts
    ]
    return LabelledDrafts(labels, _counts(drafts, by_draft, traces, sampled, labels))


def good_traces(
    draft: Solution, trial: PrefixTrials, rule: LabelSettings, steps: StepFormat = LINES
) -> list[Trace]:
    """The steps of each right and consistent rollout of one prefix, in the order of k. They are the
    targets of local refinement.
    """
    continuations = [steps.split(text) for text in trial.completions]
    consistent = consistent_rollouts(
        draft.steps[: trial.n_steps_kept], continuations, rule.consistency, rule.consistency_steps
    )
    return [
        trace
        for trace, verdict, fits in zip(continuations, trial.correct, consistent, strict=True)
        if verdict == "right" and fits
    ]


def truth_labels(solution: Solution, truth: Sequence[bool]) -> StepLabels:
    """One flag per step from a task that knows the truth → labels: every step from the first false
    one on is negative.
    """
    labels = tuple(all(truth[: i + 1]) for i in range(len(truth)))
    return _record(solution.id, labels, (True,) * len(labels), "truth")


def _sampled_labels(
    draft: Solution,
    trials: Sequence[PrefixTrials],
    traces: Mapping[tuple[str, int], Sequence[Trace]],
    rule: LabelSettings,
) -> tuple[bool, ...] | None:
    """l_i as sampled, l_L from the draft itself. None: the rollouts don't decide the labels."""
    if draft.correct == "unknown" or not draft.steps:
        return None
    success = {t.n_steps_kept: bool(traces[draft.id, t.n_steps_kept]) for t in trials}
    complete = {t.n_steps_kept for t in trials if t.exhausted}
    right = draft.correct == "right"
    for i in range(len(draft.steps) - 1, 0, -1):
        if rule.propagate and (right or success.get(i)):
            break
        if i not in complete and not success.get(i):
            return None
    return (*(success.get(i, False) for i in range(1, len(draft.steps))), right)


def _propagated(labels: Sequence[bool]) -> tuple[bool, ...]:
    """l_i = 1 ⇒ l_j = 1 for all j ≤ i."""
    return tuple(any(labels[i:]) for i in range(len(labels)))


def _record(
    solution_id: str, labels: tuple[bool, ...] | None, kept: tuple[bool, ...] | None, rule: str
) -> StepLabels:
    first_error = labels.index(False) if labels and False in labels else None
    return StepLabels(
        solution_id=solution_id, labels=labels, kept=kept, first_error=first_error, rule=rule
    )


def _counts(
    drafts: Sequence[Solution],
    trials: Mapping[str, Sequence[PrefixTrials]],
    traces: Mapping[tuple[str, int], Sequence[Trace]],
    sampled: Mapping[str, tuple[bool, ...] | None],
    labels: Sequence[StepLabels],
) -> LabelCounts:
    verdicts = [v for d in drafts for t in trials.get(d.id, ()) for v in t.correct]
    steps = [
        (label, kept)
        for r in labels
        if r.labels is not None and r.kept is not None
        for label, kept in zip(r.labels, r.kept, strict=True)
    ]
    return LabelCounts(
        n_drafts=len(drafts),
        n_unlabelled=sum(r.labels is None for r in labels),
        n_rollouts=len(verdicts),
        n_unknown_rollouts=verdicts.count("unknown"),
        n_right_rollouts=verdicts.count("right"),
        n_consistent_rollouts=sum(map(len, traces.values())),
        n_positive_sampled=sum(sum(s) for s in sampled.values() if s is not None),
        n_positive=sum(label for label, _ in steps),
        n_negative=sum(not label for label, _ in steps),
        n_kept_positive=sum(label and kept for label, kept in steps),
        n_kept_negative=sum(not label and kept for label, kept in steps),
    )
