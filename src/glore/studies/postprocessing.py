"""Study `postprocessing`: what each step of the SORM's label processing is worth (method 3; Fig. 4
of the paper's first version, there on the SFT student).

One SORM is trained for each labelling of the same training drafts:

- as used in the run; without and with positive propagation;
- consistency of rollouts on number boundaries, as a literal substring (the paper), of the last
  step's result alone, and off;
- without and with balancing per length.

Labels without propagation need all K rollouts at every step, so these are drawn first (those of the
run are used again). Every SORM starts from the same weights, has the run's settings (`reward.sorm`)
and its own order of the rows, since the seed of a training is that of its stage. Measured:
agreement of the labels with the exact truth, step accuracy on the test drafts against the truth,
and reranking of the student's samples at every K. The SORM of the run itself stands beside them: it
differs from `as used` by the seed alone, and so shows how much of a difference is noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from glore.chat_template import step_format
from glore.config import LabelSettings, RunConfig
from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import SORM, Index
from glore.evaluation.rerank_curves import rerank_at_k
from glore.pipeline import Stage, StageContext
from glore.records import PrefixTrials, Solution, StepLabels, StepScores
from glore.report.charts import Chart
from glore.report.views import TableView, percent, points
from glore.solutions import by_problem
from glore.stages.checks import check_engine, check_training
from glore.stages.common import problems_by_id, score
from glore.stages.estimates import sorm_tokens
from glore.stages.fine_tuning import TRAINING, base_opened
from glore.stages.labelling import LABELS, train_drafts
from glore.stages.reward import train_reward_model
from glore.statistics import Difference, Estimate, FloatArray, Resampler, difference_of
from glore.studies.full_counts import full_rollouts
from glore.studies.measured import (
    Measured,
    difference,
    difference_in,
    estimate_of,
    line_chart,
    number,
    pivot,
    read_measured,
    share,
)
from glore.studies.records import has_sft, reading
from glore.studies.study import Study
from glore.where import label_drafts

__all__ = ["STUDY", "VARIANTS"]

AS_USED, RUN = "as used", "the run's SORM"
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "propagated": {"propagate": True},
    "not propagated": {"propagate": False, "full_counts": True},
    "numbers of all steps": {"consistency": "number", "consistency_steps": "all"},
    "substrings (paper)": {"consistency": "substring", "consistency_steps": "all"},
    "last step alone": {"consistency": "number", "consistency_steps": "last"},
    "no consistency": {"consistency": "off"},
    "balanced": {"balance": True},
    "not balanced": {"balance": False},
}
"""Name → what differs from the run's labelling. Those that differ in nothing are left out."""
MEASURE = "postprocessing_measured"
TABLE, CURVES = "postprocessing", "postprocessing-curves"
STUDENTS = {"EI": "test_samples", "SFT": "sft_test_samples"}


def variants(rule: LabelSettings) -> dict[str, LabelSettings]:
    """The labellings to compare: as used, and each with one change."""
    found = {AS_USED: rule}
    for name, change in VARIANTS.items():
        changed = rule.model_copy(update=dict(change))
        if any(
            getattr(rule, key) != value for key, value in change.items() if key != "full_counts"
        ):
            found[name] = changed
    return found


def model_of(name: str) -> str:
    """The folder of a labelling's SORM."""
    return "sorm_" + "_".join("".join(c if c.isalnum() else " " for c in name).split())


def label(ctx: StageContext) -> None:
    """A part of labels for each labelling."""
    drafts, trials = train_drafts(ctx), ctx.read(full_rollouts.name, PrefixTrials)
    steps = step_format(ctx.config.prompt)
    for name, rule in variants(ctx.config.labels).items():
        found = label_drafts(drafts, trials, rule, seed=ctx.seed, steps=steps)
        ctx.write(found.labels, StepLabels, model_of(name))
        n_bad = sum(not x for r in found.labels for x in r.labels or ())
        ctx.count(**{f"bad_{model_of(name)}": n_bad})


def sorm(name: str) -> Stage:
    """The SORM of a labelling."""

    def train(ctx: StageContext) -> None:
        labels = ctx.read("relabelled", StepLabels, model_of(name))
        train_reward_model(ctx, model_of(name), train_drafts(ctx), labels, "reward.sorm")

    return Stage(
        model_of(name),
        train,
        inputs=("base", "relabelled"),
        reads=("reward.init", "reward.sorm", "reward.draft_samples"),
        uses=TRAINING,
        models=(model_of(name),),
        opens=lambda c: ("student",) if c.reward.init == "student" else base_opened(c),
        estimate=sorm_tokens,
        checks=(check_training("reward.sorm"),),
    )


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """Full counts, labels, a SORM for each labelling, their scores, the numbers."""
    models = [model_of(name) for name in variants(config.labels)]
    relabelling = Stage(
        "relabelled",
        label,
        inputs=(full_rollouts.name,),
        reads=(*LABELS, "labels", "reward.draft_samples"),
        opens=lambda _: (),
    )
    samples = [s for s in STUDENTS.values() if has_sft(config) or not s.startswith("sft")]
    scoring = Stage(
        "relabelled_scores",
        lambda ctx: _score(ctx, samples),
        inputs=("test_drafts", *samples, SORM, *models),
        reads=("engine",),
        opens=lambda _: (SORM, *models),
        checks=(check_engine,),
    )
    measuring = reading(MEASURE, config, measure, inputs=("relabelled_scores", "relabelled"))
    return (full_rollouts, relabelling, *map(sorm, variants(config.labels)), scoring, measuring)


def _score(ctx: StageContext, samples: Sequence[str]) -> None:
    """Every SORM on the test drafts and samples. Parts: SET_MODEL."""
    problems = problems_by_id(ctx, "test")
    models = [name for name in ctx.sources if name == SORM or name.startswith("sorm_")]
    for source in ("test_drafts", *samples):
        solutions = ctx.read(source, Solution)
        for model in models:
            score(ctx, model, solutions, problems, part=f"{source}_{model}")


def measure(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """A row for each labelling: agreement, step accuracy, reranking; differences to `as used`."""
    models = {RUN: SORM, **{n: model_of(n) for n in variants(ctx.config.labels)}}
    truth = {r.solution_id: r.labels for r in inputs.train_truth}
    problem_of = {d.id: d.problem_id for d in inputs.train_drafts}
    found: list[Measured] = []
    judged = {name: _judged(ctx, inputs, index, model) for name, model in models.items()}
    reranked = {
        name: {s: _reranked(ctx, index, source, model) for s, source in STUDENTS.items()}
        for name, model in models.items()
    }
    for name, model in models.items():
        if name != RUN:
            labels = ctx.read("relabelled", StepLabels, model)
            pairs = [
                (problem_of[r.solution_id], float(a == b))
                for r in labels
                for a, b in zip(r.labels or (), truth.get(r.solution_id) or (), strict=False)
            ]
            found.append(share(TABLE, name, "labels right", _over(pairs, ctx)))
            kept = [
                x for r in labels for x, k in zip(r.labels or (), r.kept or (), strict=True) if k
            ]
            found.append(number(TABLE, name, "bad of the steps learned, %", _percent(kept)))
        else:
            found += [share(TABLE, name, "labels right", None)]
        found += _judgements(index, name, judged[name], judged[AS_USED])
        for student, of_k in reranked[name].items():
            if not of_k:
                continue
            k_max = max(of_k)
            units = [u for u, _ in of_k[k_max]]
            mean = index.resampler.mean(units, [v for _, v in of_k[k_max]])
            found.append(share(TABLE, name, f"{student}, rerank of {k_max}", mean))
            gain = _paired(index, of_k[k_max], reranked[AS_USED][student][k_max], name)
            found.append(difference(TABLE, name, f"{student}, − as used", gain))
            for k, values in of_k.items():
                estimate = index.resampler.mean([u for u, _ in values], [v for _, v in values])
                found.append(share(f"{CURVES}-{student}", name, "right", estimate, x=k))
    return found


Values = list[tuple[str, float]]
"""Cluster and value of each unit."""


def _judged(
    ctx: StageContext, inputs: EvaluationInputs, index: Index, model: str
) -> list[tuple[str, bool, float]]:
    """Steps before the answer line of the test drafts: cluster, truth (else label), probability."""
    against = inputs.draft_truth or inputs.draft_labels
    exact = {r.solution_id: r.labels for r in against}
    scores = {
        s.solution_id: s.p_correct
        for s in ctx.read("relabelled_scores", StepScores, f"test_drafts_{model}")
    }
    return [
        (index.cluster_of[d.problem_id], true, p)
        for d in index.drafts
        for true, p in list(zip(exact.get(d.id) or (), scores.get(d.id, ()), strict=False))[:-1]
    ]


def _judgements(
    index: Index,
    name: str,
    steps: Sequence[tuple[str, bool, float]],
    used: Sequence[tuple[str, bool, float]],
) -> list[Measured]:
    if not steps:
        return []
    units = [u for u, _, _ in steps]
    t = index.options.threshold

    def columns(of: Sequence[tuple[str, bool, float]]) -> FloatArray:
        rows = [(good and p > t, good, not good and p <= t, not good) for _, good, p in of]
        return np.asarray(rows, dtype=np.float64)

    mine = columns(steps)
    natural, balanced = (
        index.resampler.estimate(units, mine, f)
        for f in (
            lambda s: (s[..., 0] + s[..., 2]) / (s[..., 1] + s[..., 3]),
            lambda s: (s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3]) / 2,
        )
    )
    both = index.resampler.estimate(
        units,
        np.concatenate([mine, columns(used)], axis=1),
        lambda s: ((s[..., 0] - s[..., 4]) / s[..., 1] + (s[..., 2] - s[..., 6]) / s[..., 3]) / 2,
    )
    gain = None if name == AS_USED else difference_of(both)
    return [
        share(TABLE, name, "steps judged right", natural),
        share(TABLE, name, "class-balanced", balanced),
        difference(TABLE, name, "balanced − as used", gain),
    ]


def _reranked(ctx: StageContext, index: Index, source: str, model: str) -> dict[int, Values]:
    """K → per question, the chance that the best of K samples by this model is right."""
    if source not in ctx.sources:
        return {}
    samples = by_problem(ctx.read(source, Solution))
    if not samples:
        return {}
    scores = {
        s.solution_id: index.options.score(s.p_correct)
        for s in ctx.read("relabelled_scores", StepScores, f"{source}_{model}")
    }
    n = min(map(len, samples.values()))
    ks = [*(2**i for i in range(n.bit_length()) if 2**i < n), n]
    return {
        k: [
            (
                index.cluster_of[p],
                rerank_at_k([scores[s.id] for s in g], [s.correct == "right" for s in g], k),
            )
            for p, g in samples.items()
        ]
        for k in ks
    }


def _paired(index: Index, first: Values, second: Values, name: str) -> Difference | None:
    if name == AS_USED:
        return None
    units = [u for u, _ in first]
    return index.resampler.paired(units, [v for _, v in first], [v for _, v in second])


def _over(pairs: Values, ctx: StageContext) -> Estimate:
    n_draws = ctx.config.evaluation.bootstrap_samples
    resampler = Resampler([u for u, _ in pairs], n_draws=n_draws, seed=ctx.seed, keeps=True)
    return resampler.mean([u for u, _ in pairs], [v for _, v in pairs])


def _percent(labels: Sequence[bool]) -> float | None:
    return 100 * sum(not x for x in labels) / len(labels) if labels else None


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """One table with a row for each labelling."""
    return [
        pivot(
            read_measured(folder, MEASURE),
            TABLE,
            "SORMs by the processing of their labels",
            "Labels and steps against the exact truth where the task knows it, else against the "
            "run's labels. Differences are paired. The run's SORM has the labels “as used” and "
            "another seed of training.",
            "labels",
        )
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Rerank curves of each student's samples."""
    found = read_measured(folder, MEASURE)
    made = [
        line_chart(
            found,
            f"{CURVES}-{student}",
            f"Reranking the {student} student's samples by SORMs on different labels",
            "Accuracy when the best of K samples is chosen. Bands: 95 % intervals.",
            "K samples",
            "% right",
            x_scale="log",
        )
        for student in STUDENTS
    ]
    return [chart for chart in made if chart.lines]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """How large the differences are, against that of the seed alone."""
    found = read_measured(folder, MEASURE)
    said = []
    for m in found:
        if m.table == TABLE and m.column == "EI, − as used" and m.value is not None:
            d = difference_in(m)
            if d.excludes_zero:
                said.append(f"Reranking by a SORM on labels “{m.row[0]}”: {points(d)} points.")
    labels = {m.row[0]: m for m in found if m.table == TABLE and m.column == "labels right" and m.n}
    if labels:
        best = max(labels.values(), key=lambda m: m.value or 0)
        worst = min(labels.values(), key=lambda m: m.value or 0)
        said.insert(
            0,
            f"Labels agree most with the truth when “{best.row[0]}” ({percent(estimate_of(best))} "
            f"%), least when “{worst.row[0]}” ({percent(estimate_of(worst))} %).",
        )
    if not any("Reranking" in s for s in said):
        said.append(
            "No difference in reranking the EI student's samples has an interval without 0."
        )
    return said


STUDY = Study(
    "postprocessing",
    "SORMs on labels with and without propagation, consistency and balancing (Fig. 4 of the "
    "paper's first version).",
    stages,
    tables,
    charts,
    findings,
)
