"""Tables 1 and 2: how well the reward models judge steps and final answers.

A step (or an answer) is called good when its probability is above the threshold, as in inference.
There are two numbers: *natural* accuracy (share judged right) and *class-balanced* accuracy (mean
of the recalls of good and bad), since the natural one depends on the student's mix of classes. Step
accuracy is reported over the steps before the answer line (`intermediate`; the answer line is
Table 2) and over all steps. It is measured against the labels from rollouts, as in the paper, and
against the exact truth if the task knows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from glore.evaluation.inputs import (
    BALANCED_ORM,
    ORM,
    REWARD_MODELS,
    SORM,
    EvaluationInputs,
    Index,
)
from glore.records import StepLabels
from glore.statistics import Difference, Estimate, FloatArray, difference_of

__all__ = [
    "ALL_STEPS",
    "ANSWER",
    "FINAL",
    "INTERMEDIATE",
    "LABELS",
    "TRUTH",
    "Cases",
    "JudgeDifference",
    "JudgeRow",
    "final_accuracy",
    "final_cases",
    "judge_difference",
    "judge_row",
    "step_accuracy",
    "step_cases",
]

LABELS, TRUTH, ANSWER = "labels", "truth", "answer"
"""What a judgement is compared with: step labels from rollouts, the exact truth, the final answer
(Table 2).
"""
INTERMEDIATE, ALL_STEPS, FINAL = "intermediate", "all", "final"
"""What is judged: the steps before the answer line, all steps, the final answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class JudgeRow:
    """One reward model as a judge of yes/no questions."""

    model: str
    against: str
    """LABELS, TRUTH or ANSWER."""
    scope: str
    """INTERMEDIATE, ALL_STEPS or FINAL."""
    natural: Estimate
    balanced: Estimate
    false_positive_rate: Estimate
    """Share of bad ones called good; n: bad ones."""
    false_negative_rate: Estimate
    """Share of good ones called bad; n: good ones."""


@dataclasses.dataclass(frozen=True, slots=True)
class JudgeDifference:
    """Paired difference of two reward models on the same steps or answers, class-balanced and
    natural.
    """

    first: str
    second: str
    against: str
    scope: str
    balanced: Difference
    natural: Difference


@dataclasses.dataclass(frozen=True, slots=True)
class Cases:
    """U yes/no cases: the cluster, the truth, and every model's probability of good."""

    units: list[str]
    good: list[bool]
    p: dict[str, list[float]]


def step_accuracy(
    inputs: EvaluationInputs, index: Index
) -> tuple[tuple[JudgeRow, ...], tuple[JudgeDifference, ...]]:
    """Table 1: rows, then paired differences, on the drafts of test questions."""
    rows: list[JudgeRow] = []
    differences: list[JudgeDifference] = []
    for against, labels in ((LABELS, inputs.draft_labels), (TRUTH, inputs.draft_truth)):
        for scope in (INTERMEDIATE, ALL_STEPS):
            cases = step_cases(index, labels, scope)
            found, compared = _judge(index, cases, against, scope)
            rows += found
            differences += compared
    return tuple(rows), tuple(differences)


def final_accuracy(index: Index) -> tuple[tuple[JudgeRow, ...], tuple[JudgeDifference, ...]]:
    """Table 2: rows, then paired differences. The probability after the last step is compared with
    the draft's verdict; ungraded drafts are left out.
    """
    rows, differences = _judge(index, final_cases(index), ANSWER, FINAL)
    return tuple(rows), tuple(differences)


def step_cases(index: Index, labels: Sequence[StepLabels], scope: str) -> Cases:
    """The steps with a label and a score from every model, so that all rows are about the same
    steps.
    """
    label_of = {r.solution_id: r.labels for r in labels}
    scored = [d for d in index.drafts if label_of.get(d.id)]
    models = [m for m in REWARD_MODELS if any(index.step_scores(m, d) for d in scored)]
    cases = Cases([], [], {m: [] for m in models})
    for draft in scored:
        truth = label_of[draft.id]
        p_of = {m: index.step_scores(m, draft) for m in models}
        if truth is None or any(p is None or len(p) != len(truth) for p in p_of.values()):
            continue
        n = len(truth) - 1 if scope == INTERMEDIATE else len(truth)
        cases.units.extend([index.cluster_of[draft.problem_id]] * n)
        cases.good.extend(truth[:n])
        for model, p in p_of.items():
            cases.p[model].extend((p or ())[:n])
    return cases


def final_cases(index: Index) -> Cases:
    """The graded drafts with a score from every model: is the final answer right?"""
    graded = [d for d in index.drafts if d.correct != "unknown"]
    models = [m for m in REWARD_MODELS if any(index.final(m, d) is not None for d in graded)]
    cases = Cases([], [], {m: [] for m in models})
    for draft in graded:
        finals = {m: index.final(m, draft) for m in models}
        if any(p is None for p in finals.values()):
            continue
        cases.units.append(index.cluster_of[draft.problem_id])
        cases.good.append(draft.correct == "right")
        for model, p in finals.items():
            cases.p[model].append(p or 0.0)
    return cases


def _judge(
    index: Index, cases: Cases, against: str, scope: str
) -> tuple[list[JudgeRow], list[JudgeDifference]]:
    if not cases.units:
        return [], []
    good = np.asarray(cases.good, dtype=np.float64)
    called = {
        m: (np.asarray(p) > index.options.threshold).astype(np.float64) for m, p in cases.p.items()
    }
    rows = [
        judge_row(index, cases.units, good, c, model, against, scope) for model, c in called.items()
    ]
    pairs = [
        (a, b)
        for a, b in ((SORM, ORM), (SORM, BALANCED_ORM), (BALANCED_ORM, ORM))
        if a in called and b in called
    ]
    return rows, [
        judge_difference(index, cases.units, good, (a, called[a]), (b, called[b]), against, scope)
        for a, b in pairs
    ]


def judge_row(
    index: Index,
    units: list[str],
    good: FloatArray,
    called: FloatArray,
    model: str,
    against: str,
    scope: str,
) -> JudgeRow:
    """One reward model's verdicts on yes/no cases. `good`, `called`: 1 or 0 for each."""
    bad = 1 - good
    columns = np.stack([good * called, good, bad * (1 - called), bad], axis=1)
    estimate = index.resampler.estimate
    false_positive = estimate(units, columns, lambda s: 1 - s[..., 2] / s[..., 3])
    false_negative = estimate(units, columns, lambda s: 1 - s[..., 0] / s[..., 1])
    return JudgeRow(
        model=model,
        against=against,
        scope=scope,
        natural=estimate(
            units, columns, lambda s: (s[..., 0] + s[..., 2]) / (s[..., 1] + s[..., 3])
        ),
        balanced=estimate(
            units, columns, lambda s: (s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3]) / 2
        ),
        false_positive_rate=dataclasses.replace(false_positive, n=int(bad.sum())),
        false_negative_rate=dataclasses.replace(false_negative, n=int(good.sum())),
    )


def judge_difference(
    index: Index,
    units: list[str],
    good: FloatArray,
    first: tuple[str, FloatArray],
    second: tuple[str, FloatArray],
    against: str,
    scope: str,
) -> JudgeDifference:
    """Paired difference of two models' verdicts, each with its name, on the same cases."""
    bad = 1 - good
    (first_name, a), (second_name, b) = first, second
    columns = np.stack([good * a, bad * (1 - a), good * b, bad * (1 - b), good, bad], axis=1)
    balanced = index.resampler.estimate(
        units,
        columns,
        lambda s: ((s[..., 0] - s[..., 2]) / s[..., 4] + (s[..., 1] - s[..., 3]) / s[..., 5]) / 2,
    )
    natural = index.resampler.paired(
        units, list(np.equal(a, good).astype(float)), list(np.equal(b, good).astype(float))
    )
    return JudgeDifference(
        first_name,
        second_name,
        against,
        scope,
        balanced=difference_of(balanced),
        natural=natural,
    )
