"""What the study `labels` measures: labels against the truth, and what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from glore.chat_template import step_format
from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import Index
from glore.pipeline import StageContext
from glore.records import PrefixTrials, Solution, StepLabels
from glore.statistics import ratio
from glore.studies.error_kinds import error_kind
from glore.studies.measured import Measured, number, share
from glore.studies.records import first_false
from glore.where import label_drafts

__all__ = [
    "AGREEMENT",
    "AGREES",
    "COST",
    "DRAWN",
    "KIND",
    "MEASURE",
    "POSITION",
    "first_rollouts",
    "measure",
    "scan_cost",
]

MEASURE, DRAWN = "labels_measured", "full_test_rollouts"
AGREEMENT, POSITION, KIND, COST = (
    "labels-by-k",
    "labels-by-position",
    "labels-by-step",
    "labels-cost",
)
AGREES, CALLED_GOOD, CALLED_BAD = "agreement", "false steps called good", "true steps called bad"


def measure(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """All numbers of the study."""
    trials = ctx.read(DRAWN, PrefixTrials)
    k_max = max((len(t.completions) for t in trials), default=0)
    own_k = ctx.config.labels.rollouts
    steps = step_format(ctx.config.prompt)
    rule = ctx.config.labels.model_copy(update={"balance": False})

    def labelled(k: int) -> list[StepLabels]:
        cut = first_rollouts(trials, k)
        return label_drafts(inputs.drafts, cut, rule, seed=ctx.seed, steps=steps).labels

    truth = {r.solution_id: r for r in inputs.draft_truth}
    found: list[Measured] = []
    ks = sorted({*(2**i for i in range(k_max.bit_length()) if 2**i <= k_max), own_k, k_max} - {0})
    for k in ks if truth else ():
        rows = _steps(index, labelled(k), truth)
        found += _judged(index, AGREEMENT, (f"K = {k}",), rows, x=k)
    if truth:
        rows = _steps(index, labelled(min(own_k, k_max)), truth)
        for place, mine in _grouped(rows, lambda s: (min(s.position, 7), "")).items():
            at = f"step {place[0] + 1}" + (" and later" if place[0] == 7 else "")
            found += _judged(index, POSITION, (at,), mine, x=place[0] + 1)
        for kind, mine in sorted(_grouped(rows, lambda s: (s.order, s.kind)).items()):
            found.append(_agreement(index, KIND, (kind[1],), mine))
            found.append(number(KIND, (kind[1],), "steps", len(mine), total=True))
    return found + scan_cost(inputs, trials, own_k)


@dataclasses.dataclass(frozen=True, slots=True)
class _Step:
    """One step with a label and the truth."""

    unit: str
    label: bool
    true: bool
    position: int
    """0-based."""
    kind: str
    order: int
    """Of its kind, in tables."""


def _steps(
    index: Index, labels: Sequence[StepLabels], truth: Mapping[str, StepLabels]
) -> list[_Step]:
    out: list[_Step] = []
    of = {d.id: d for d in index.drafts}
    for record in labels:
        exact, draft = truth.get(record.solution_id), of.get(record.solution_id)
        if exact is None or draft is None or record.labels is None or exact.labels is None:
            continue
        first = first_false(exact)
        for i, (label, true) in enumerate(zip(record.labels, exact.labels, strict=True)):
            order, kind = _kind(draft, i, first)
            out.append(_Step(index.cluster_of[draft.problem_id], label, true, i, kind, order))
    return out


def _kind(draft: Solution, i: int, first: int | None) -> tuple[int, str]:
    if first is None:
        right = draft.correct == "right"
        return (
            (0, "true, in a right draft") if right else (1, "true, in a wrong draft without error")
        )
    if i < first:
        return 2, "true, before the first error"
    if i == first:
        kind = error_kind(draft.steps[i])
        order = {"equation": 3, "content": 4, "answer": 5}[kind]
        return order, f"first error: {kind}"
    return 6, "after the first error"


def _grouped(
    steps: Sequence[_Step], key: Callable[[_Step], tuple[int, str]]
) -> dict[tuple[int, str], list[_Step]]:
    groups: dict[tuple[int, str], list[_Step]] = {}
    for step in steps:
        groups.setdefault(key(step), []).append(step)
    return dict(sorted(groups.items()))


def _judged(
    index: Index, table: str, row: tuple[str, ...], steps: Sequence[_Step], x: float
) -> list[Measured]:
    units = [s.unit for s in steps]
    columns_UM = np.asarray(
        [(not s.true and s.label, not s.true, s.true and not s.label, s.true) for s in steps],
        dtype=np.float64,
    ).reshape(-1, 4)
    n_false, n_true = int(columns_UM[:, 1].sum()), int(columns_UM[:, 3].sum())
    good = index.resampler.estimate(units, columns_UM[:, :2], ratio)
    bad = index.resampler.estimate(units, columns_UM[:, 2:], ratio)
    return [
        dataclasses.replace(_agreement(index, table, row, steps), x=x),
        share(table, row, CALLED_GOOD, dataclasses.replace(good, n=n_false), x),
        share(table, row, CALLED_BAD, dataclasses.replace(bad, n=n_true), x),
    ]


def _agreement(index: Index, table: str, row: tuple[str, ...], steps: Sequence[_Step]) -> Measured:
    found = index.resampler.mean([s.unit for s in steps], [float(s.label == s.true) for s in steps])
    return share(table, row, AGREES, found)


def first_rollouts(trials: Sequence[PrefixTrials], k: int) -> list[PrefixTrials]:
    """The trials with their first k rollouts alone. Their tokens are a share of the sum."""
    return [
        dataclasses.replace(
            t,
            completions=t.completions[:k],
            correct=t.correct[:k],
            consistent=t.consistent[:k],
            n_tokens=round(t.n_tokens * min(1.0, k / max(1, len(t.completions)))),
            exhausted=len(t.completions) >= k,
        )
        for t in trials
    ]


def scan_cost(inputs: EvaluationInputs, trials: Sequence[PrefixTrials], k: int) -> list[Measured]:
    """Rollouts and tokens of a labelled draft: K at every step, and what the backward scan would
    have drawn of the same rollouts. A rollout has the mean tokens of its prefix.
    """
    by_draft: dict[str, list[PrefixTrials]] = {}
    for trial in first_rollouts(trials, k):
        by_draft.setdefault(trial.solution_id, []).append(trial)
    graded = [d for d in inputs.drafts if d.correct != "unknown" and d.steps]
    full = [_all(by_draft.get(d.id, ())) for d in graded]
    lazy = [(0, 0.0) if d.correct == "right" else _scanned(by_draft.get(d.id, ())) for d in graded]
    n = max(1, len(graded))
    found = []
    for name, costs in ((f"all {k} at every step", full), ("backward scan", lazy)):
        found += [
            number(COST, name, "rollouts a draft", sum(c[0] for c in costs) / n),
            number(COST, name, "tokens a draft", sum(c[1] for c in costs) / n),
            number(COST, name, "drafts", len(graded), total=True),
        ]
    return found


def _all(trials: Sequence[PrefixTrials]) -> tuple[int, float]:
    return sum(len(t.completions) for t in trials), float(sum(t.n_tokens for t in trials))


def _scanned(trials: Sequence[PrefixTrials]) -> tuple[int, float]:
    """From the last prefix backwards, up to the first consistent success."""
    n_rollouts, n_tokens = 0, 0.0
    for trial in sorted(trials, key=lambda t: -t.n_steps_kept):
        good = [
            c == "right" and fits for c, fits in zip(trial.correct, trial.consistent, strict=True)
        ]
        drawn = good.index(True) + 1 if True in good else len(good)
        n_rollouts += drawn
        n_tokens += trial.n_tokens * drawn / max(1, len(good))
        if True in good:
            break
    return n_rollouts, n_tokens
