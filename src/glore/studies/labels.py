"""Study `labels`: how good step labels from verifying rollouts are, and what they cost (App. G).

Labels of the test drafts against the exact truth. K rollouts are drawn at every step of every draft
(those of the run are used again), and labels are derived from the first 1, 2, 4, … K of them:

- agreement, false positives (a false step labelled good) and false negatives, against K;
- by position in the solution, and by what the step is: true in a right draft, true before the
  first error, the first error (by kind, `error_kinds`), after it;
- the backward scan against full counts: the labels are the same; rollouts and tokens differ.

A step is true if no step up to it is false. Assumes a task that knows the truth of steps; without,
the costs alone are measured. The paper found 94 % on 257 steps labelled by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from glore.chat_template import step_format
from glore.config import RunConfig, Settings
from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import Index
from glore.pipeline import Stage, StageContext
from glore.records import PrefixTrials, Solution, StepLabels
from glore.report.charts import Chart
from glore.report.views import TableView, percent
from glore.stages.checks import check_engine
from glore.stages.common import problems_by_id
from glore.stages.estimates import rolled_out_tokens
from glore.stages.labelling import ROLLOUTS, roll_out, student_policy
from glore.stages.workload import workload
from glore.statistics import ratio
from glore.studies.error_kinds import error_kind
from glore.studies.measured import (
    Measured,
    dot_chart,
    estimate_of,
    find,
    line_chart,
    number,
    pivot,
    read_measured,
    share,
)
from glore.studies.records import first_false, reading
from glore.studies.study import Study
from glore.where import label_drafts

__all__ = ["STUDY", "LabelsSettings", "first_rollouts", "scan_cost"]

MEASURE, DRAWN = "labels_measured", "full_test_rollouts"
AGREEMENT, POSITION, KIND, COST = (
    "labels-by-k",
    "labels-by-position",
    "labels-by-step",
    "labels-cost",
)
AGREES, CALLED_GOOD, CALLED_BAD = "agreement", "false steps called good", "true steps called bad"


class LabelsSettings(Settings):
    """Of the study `labels`."""

    rollouts: int = Field(32, ge=1, le=1024)
    """Most rollouts at a step."""


def study(settings: Settings) -> Study:
    """The study with these settings."""
    assert isinstance(settings, LabelsSettings)
    own: dict[str, object] = {"rollouts": settings.rollouts}

    def draw(ctx: StageContext) -> None:
        """All K rollouts at every step of the test drafts. Those of the run are not drawn again."""
        labels = ctx.config.labels
        k = max(settings.rollouts, labels.rollouts)
        rule = labels.model_copy(update={"full_counts": True, "rollouts": k})
        roll_out(
            ctx,
            ctx.read("test_drafts", Solution),
            problems_by_id(ctx, "test"),
            rule,
            student_policy(ctx),
            drawn=ctx.read("test_rollouts", PrefixTrials),
        )

    def new_tokens(config: RunConfig) -> int:
        drawn = config.labels.rollouts if config.evaluation.label_full_counts else 0
        k = max(0, max(settings.rollouts, config.labels.rollouts) - drawn)
        return rolled_out_tokens(config, workload(config).questions["test"], k)

    def stages(config: RunConfig) -> tuple[Stage, ...]:
        drawing = Stage(
            DRAWN,
            draw,
            inputs=("test_labels",),
            reads=ROLLOUTS,
            opens=lambda _: ("student",),
            estimate=new_tokens,
            checks=(check_engine,),
            own=own,
        )
        return (drawing, reading(MEASURE, config, measure, inputs=(DRAWN,), own=own))

    return Study(
        "labels",
        "Step labels from rollouts against the exact truth: by K, position and kind of step, and "
        "what a labelled draft costs (App. G).",
        stages,
        tables,
        charts,
        findings,
        settings=settings,
        build=study,
    )


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


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """By K, by position, by kind of step, and the cost."""
    found = read_measured(folder, MEASURE)
    k = config.labels.rollouts
    truth = "n: steps of test drafts, whole questions resampled."
    views = [
        pivot(found, AGREEMENT, "Labels against the truth, by K", truth, "rollouts a step"),
        pivot(
            found, POSITION, f"Labels against the truth, by position (K = {k})", truth, "position"
        ),
        pivot(
            found,
            KIND,
            f"Labels against the truth, by what the step is (K = {k})",
            "equation: one that the step writes does not hold; content: all that it writes holds, "
            "but not of this question; answer: the answer line.",
            "step",
        ),
        pivot(
            found,
            COST,
            f"Cost of a labelled draft (K = {k})",
            "Both give the same labels. Tokens of the scan: rollouts times the mean length at "
            "their step.",
            "way",
        ),
    ]
    return [view for view in views if view.rows]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Agreement and errors against K; agreement by kind of step."""
    found = read_measured(folder, MEASURE)
    turned = [dataclasses.replace(m, row=(m.column,)) for m in found if m.table == AGREEMENT]
    if not turned:
        return []
    return [
        line_chart(
            turned,
            AGREEMENT,
            "Labels from K rollouts against the exact truth",
            "Bands: 95 % intervals over questions.",
            "K rollouts at a step",
            "% of steps",
            x_scale="log",
        ),
        dot_chart(
            found,
            KIND,
            "Agreement by what the step is",
            f"K = {config.labels.rollouts}. Whiskers: 95 % intervals.",
            "agreement with the truth, %",
        ),
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """Agreement at the run's K and at most, and the cost."""
    found = read_measured(folder, MEASURE)
    said = []
    by_k = [m for m in found if m.table == AGREEMENT and m.column == AGREES]
    if by_k:
        own = next(m for m in by_k if m.x == config.labels.rollouts)
        last = max(by_k, key=lambda m: m.x or 0)
        said.append(
            f"With K = {own.x:.0f}, labels agree with the truth on {percent(estimate_of(own))} % "
            f"of {own.n} steps (the paper: 94 % of 257); with K = {last.x:.0f} on "
            f"{percent(estimate_of(last))} %."
        )
    names = (f"all {config.labels.rollouts} at every step", "backward scan")
    full, scan = (find(found, COST, name, "tokens a draft").value or 0.0 for name in names)
    if scan:
        said.append(
            f"The backward scan draws {scan:.0f} tokens a draft in place of {full:.0f} "
            f"({full / scan:.1f} times fewer) for the same labels."
        )
    return said


STUDY = study(LabelsSettings())
