"""Reward models of a study side by side: scores of the test drafts and samples, step accuracy,
final-answer accuracy, reranking.

A study trains its models in stages of their own; the run's ORM and SORM may stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from glore.config import RunConfig
from glore.evaluation.inputs import Index
from glore.evaluation.ranking import concordant
from glore.evaluation.rerank_curves import majority, rerank_at_k
from glore.evaluation.reward_models import Cases, judge_difference, judge_row
from glore.pipeline import Stage, StageContext
from glore.records import Solution, StepLabels, StepScores
from glore.rerank import aggregate
from glore.solutions import by_problem
from glore.stages.checks import check_engine, check_training
from glore.stages.common import problems_by_id, score
from glore.stages.estimates import sorm_tokens
from glore.stages.fine_tuning import TRAINING, base_opened
from glore.stages.reward_training import HEAD, check_head
from glore.statistics import Estimate, Resampler, ratio
from glore.studies.measured import Measured, difference, share

__all__ = [
    "Scored",
    "above_rows",
    "curve_rows",
    "final_rows",
    "label_agreement",
    "majority_row",
    "read_scored",
    "reference_labels",
    "rerank_differences",
    "rerank_rows",
    "reward_stage",
    "score_stage",
    "step_rows",
]

Scored = Mapping[str, Mapping[str, tuple[float, ...]]]
"""Name of a model as tables show it → solution id → probability after every step."""
DRAFTS, SAMPLES = "drafts", "samples"


def reward_stage(
    name: str,
    train: Callable[[StageContext], None],
    inputs: tuple[str, ...],
    section: str = "reward.sorm",
    reads: tuple[str, ...] = (),
) -> Stage:
    """A stage that trains the reward model `models/NAME` with the settings at `section`."""
    return Stage(
        name,
        train,
        inputs=("base", "student", *inputs),
        reads=("reward.init", "reward.draft_samples", section, *HEAD, *reads),
        uses=TRAINING,
        models=(name,),
        opens=lambda c: ("student",) if c.reward.init == "student" else base_opened(c),
        estimate=sorm_tokens,
        checks=(check_training(section), check_head),
    )


def score_stage(
    name: str, models: Mapping[str, str], inputs: tuple[str, ...], neutral: str | None = None
) -> Stage:
    """A stage that scores the test drafts and the student's test samples with every model.

    `models`: as `Scored` names them → folder; `inputs`: the stages that make them; `neutral`: what
    the neutral class of models with three counts as, `good` or `bad` (none: what each says).
    """

    def run(ctx: StageContext) -> None:
        problems = problems_by_id(ctx, "test")
        for source, part in (("test_drafts", DRAFTS), ("test_samples", SAMPLES)):
            solutions = ctx.read(source, Solution)
            for model in models.values():
                score(ctx, model, solutions, problems, f"{part}_{model}", neutral)

    return Stage(
        name,
        run,
        inputs=("test_drafts", "test_samples", *inputs),
        reads=("engine",),
        opens=lambda _: tuple(models.values()),
        checks=(check_engine,),
    )


def read_scored(ctx: StageContext, stage: str, models: Mapping[str, str]) -> tuple[Scored, Scored]:
    """What `score_stage` wrote: scores of the drafts, scores of the samples."""
    drafts, samples = (
        {
            name: {
                s.solution_id: s.p_correct for s in ctx.read(stage, StepScores, f"{part}_{model}")
            }
            for name, model in models.items()
        }
        for part in (DRAFTS, SAMPLES)
    )
    return drafts, samples


def reference_labels(ctx: StageContext) -> list[StepLabels]:
    """What step accuracy is measured against: the exact truth of the test drafts where the task
    knows it, else the labels of rollouts.
    """
    return ctx.read("test_labels", StepLabels, "truth") or ctx.read("test_labels", StepLabels)


def step_rows(
    index: Index, table: str, labels: Sequence[StepLabels], scores: Scored, reference: str
) -> list[Measured]:
    """A row for each model: step accuracy before the answer line (natural, class-balanced, false
    positives and negatives), and the class-balanced difference to the model `reference`.
    """
    label_of = {r.solution_id: r.labels for r in labels}
    cases = Cases([], [], {name: [] for name in scores})
    for draft in index.drafts:
        truth = (label_of.get(draft.id) or ())[:-1]
        cases.units.extend([index.cluster_of[draft.problem_id]] * len(truth))
        cases.good.extend(truth)
        for name, of in scores.items():
            cases.p[name].extend(of[draft.id][: len(truth)])
    return _verdict_rows(index, table, cases, reference, "steps")


def final_rows(index: Index, table: str, scores: Scored, reference: str) -> list[Measured]:
    """A row for each model: does its score after the last step tell right from wrong drafts?"""
    graded = [d for d in index.drafts if d.correct != "unknown" and d.steps]
    cases = Cases(
        [index.cluster_of[d.problem_id] for d in graded],
        [d.correct == "right" for d in graded],
        {name: [of[d.id][-1] for d in graded] for name, of in scores.items()},
    )
    return _verdict_rows(index, table, cases, reference, "answers")


def _verdict_rows(
    index: Index, table: str, cases: Cases, reference: str, what: str
) -> list[Measured]:
    if not cases.units:
        return []
    good = np.asarray(cases.good, dtype=np.float64)
    called = {
        name: (np.asarray(p) > index.options.threshold).astype(np.float64)
        for name, p in cases.p.items()
    }
    found: list[Measured] = []
    for name, verdicts in called.items():
        row = judge_row(index, cases.units, good, verdicts, name, what, what)
        found += [
            share(table, name, f"{what} judged right", row.natural),
            share(table, name, "class-balanced", row.balanced),
            share(table, name, "bad called good", row.false_positive_rate),
            share(table, name, "good called bad", row.false_negative_rate),
        ]
        if name != reference:
            d = judge_difference(
                *(index, cases.units, good, (name, verdicts), (reference, called[reference])),
                *(what, what),
            )
            found.append(difference(table, name, f"balanced − {reference}", d.balanced))
    return found


def rerank_rows(
    index: Index,
    table: str,
    samples: Sequence[Solution],
    scores: Scored,
    ways: Sequence[str],
    k: int | None = None,
) -> list[Measured]:
    """A row for each model, a column for each way to reduce step scores: accuracy when the best of
    K samples is chosen. `k`: none: all samples.
    """
    groups = by_problem(samples)
    units = [index.cluster_of[i] for i in groups]
    n = min(map(len, groups.values()), default=0)
    k = min(k or n, n)
    found = []
    for name, of in scores.items():
        for way in ways:
            values = _best_of(groups, of, way, k)
            found.append(share(table, name, way, index.resampler.mean(units, values), float(k)))
    return found


def _best_of(
    groups: Mapping[str, Sequence[Solution]],
    scores: Mapping[str, tuple[float, ...]],
    way: str,
    k: int,
) -> list[float]:
    """Per question, the chance that the best of k samples is right."""
    return [
        rerank_at_k(
            [aggregate(scores[s.id], way) for s in group],
            [s.correct == "right" for s in group],
            k,
        )
        for group in groups.values()
    ]


def curve_rows(
    index: Index, table: str, samples: Sequence[Solution], scores: Scored, way: Mapping[str, str]
) -> list[Measured]:
    """A line for each model: accuracy when the best of K samples is chosen, for K = 1, 2, 4, …

    `way`: model → how its step scores are reduced.
    """
    groups = by_problem(samples)
    units = [index.cluster_of[i] for i in groups]
    n = min(map(len, groups.values()), default=0)
    grid = [*(2**i for i in range(n.bit_length()) if 2**i < n), n]
    return [
        share(
            table,
            name,
            "accuracy",
            index.resampler.mean(units, _best_of(groups, of, way[name], k)),
            float(k),
        )
        for name, of in scores.items()
        for k in grid
    ]


def rerank_differences(
    index: Index,
    table: str,
    samples: Sequence[Solution],
    scores: Scored,
    way: Mapping[str, str],
    pairs: Sequence[tuple[str, str]],
) -> list[Measured]:
    """First minus second with all samples, paired on the questions, a row for each pair."""
    groups = by_problem(samples)
    units = [index.cluster_of[i] for i in groups]
    n = min(map(len, groups.values()), default=0)
    values = {name: _best_of(groups, of, way[name], n) for name, of in scores.items()}
    return [
        difference(table, (a, b), "difference", index.resampler.paired(units, values[a], values[b]))
        for a, b in pairs
    ]


def above_rows(
    index: Index, table: str, samples: Sequence[Solution], scores: Scored, way: Mapping[str, str]
) -> list[Measured]:
    """A row for each model: how often a right sample scores above a wrong one of its question."""
    groups = [
        (index.cluster_of[i], group)
        for i, group in by_problem(samples).items()
        if {"right", "wrong"} <= {s.correct for s in group}
    ]
    found = []
    for name, of in scores.items():
        columns = []
        for _, group in groups:
            right, wrong = (
                [aggregate(of[s.id], way[name]) for s in group if s.correct == verdict]
                for verdict in ("right", "wrong")
            )
            columns.append((concordant(right, wrong), len(right) * len(wrong)))
        units = [unit for unit, _ in groups]
        e = index.resampler.estimate(units, np.asarray(columns, dtype=np.float64), ratio)
        found.append(share(table, name, "right above wrong", e))
    return found


def majority_row(index: Index, samples: Sequence[Solution]) -> Estimate:
    """Accuracy of the majority of all samples."""
    groups = by_problem(samples)
    chosen = [majority(group) for group in groups.values()]
    values = [float(s is not None and s.correct == "right") for s in chosen]
    return index.resampler.mean([index.cluster_of[i] for i in groups], values)


def label_agreement(
    config: RunConfig,
    drafts: Sequence[Solution],
    labels: Sequence[StepLabels],
    truth: Sequence[StepLabels],
) -> Estimate | None:
    """Share of kept labels before the answer line that the truth agrees with; none without it. The
    interval is over the questions of the drafts.
    """
    problem_of = {d.id: d.problem_id for d in drafts}
    exact = {r.solution_id: r.labels or () for r in truth}
    pairs = [
        (problem_of[r.solution_id], float(a == b))
        for r in labels
        for a, b, kept in list(
            zip(r.labels or (), exact.get(r.solution_id, ()), r.kept or (), strict=False)
        )[:-1]
        if kept
    ]
    units = [u for u, _ in pairs]
    n_draws = config.evaluation.bootstrap_samples
    resampler = Resampler(units, n_draws=n_draws, seed=config.seed, keeps=True)
    return resampler.mean(units, [v for _, v in pairs]) if pairs else None
