"""Study `generalisation`: do reward models carry over to another student's samples, and from
training to test questions (App. E)?

Crossed: an ORM and a SORM of each student (the final one after expert iteration, EI; the fine-tuned
one, SFT), each trained on its own student's samples, rerank the test samples of both. The run has
both ORMs and the SORM of the final student. The SFT student's SORM is made here: that student's
verifying rollouts of its own training samples, labels by the run's rule, a training with the run's
settings.

Overfitting: accuracy on final answers (threshold as in the run) of training solutions, which the
ORM has seen, and of test samples, which it has not; the share of right training solutions called
wrong (the paper: a 7B ORM calls 42 % of them wrong); for the SORM, accuracy on the labels of its
training steps and on those of test drafts. Training solutions are drawn at `reward.temperature`,
test samples at `evaluation.temperature`.

Crossing needs an SFT student that is not the final one. Otherwise overfitting alone is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from glore.chat_template import step_format
from glore.config import RunConfig
from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import ORM, SFT_ORM, SORM, Index
from glore.evaluation.rerank_curves import majority, pass_at_k, rerank_at_k
from glore.pipeline import Stage, StageContext
from glore.records import PrefixTrials, Solution, StepLabels, StepScores
from glore.report.charts import Chart
from glore.report.views import TableView, percent, points
from glore.solutions import by_problem, first_of_each
from glore.stages.checks import check_engine, check_training
from glore.stages.common import layout_of, lazy_engine, problems_by_id, score, task_of
from glore.stages.estimates import rollout_tokens, sorm_tokens
from glore.stages.fine_tuning import TRAINING, base_opened
from glore.stages.labelling import BALANCE, LABELS, ROLLOUTS, Policy, roll_out, train_drafts
from glore.stages.reward import has_own_orm, train_reward_model
from glore.statistics import Estimate, FloatArray, Resampler, ratio
from glore.studies.measured import (
    Measured,
    difference,
    difference_in,
    dot_chart,
    estimate_of,
    find,
    pivot,
    read_measured,
    share,
)
from glore.studies.records import has_sft, reading
from glore.studies.study import Study
from glore.where import label_drafts

__all__ = ["SFT_SORM", "STUDY", "sft_sorm_stages"]

SFT_SORM = "sft_sorm"
MEASURE = "generalisation_measured"
CROSSED, JUDGED, OVERFIT = "generalisation-rerank", "generalisation-judged", "generalisation-seen"
NAMES = {ORM: "ORM_EI", SFT_ORM: "ORM_SFT", SORM: "SORM_EI", SFT_SORM: "SORM_SFT"}
STUDENTS = {"EI": "test_samples", "SFT": "sft_test_samples"}
SEEN, UNSEEN = "training", "test"


def _sft_drafts(ctx: StageContext) -> list[Solution]:
    """The SFT student's training samples that get step labels; none where no SORM can be made."""
    samples = ctx.read("sft_samples", Solution)
    if not has_own_orm(samples):
        return []
    return first_of_each(samples, ctx.config.reward.draft_samples)


def draw(ctx: StageContext) -> None:
    """Verifying rollouts by the SFT student from its own training samples."""
    folder = ctx.model_dir("sft")
    policy = Policy(lazy_engine(ctx, folder), layout_of(ctx, folder), task_of(ctx))
    problems = problems_by_id(ctx, "train")
    roll_out(ctx, _sft_drafts(ctx), problems, ctx.config.labels, policy)


def label(ctx: StageContext) -> None:
    """Their labels, by the run's rule."""
    found, counts = label_drafts(
        _sft_drafts(ctx),
        ctx.read("sft_rollouts", PrefixTrials),
        ctx.config.labels,
        seed=ctx.seed,
        steps=step_format(ctx.config.prompt),
    )
    ctx.write(found, StepLabels)
    ctx.count(**dataclasses.asdict(counts))


def train(ctx: StageContext) -> None:
    """The SORM of the SFT student."""
    drafts = _sft_drafts(ctx)
    if not drafts:
        ctx.progress.note("the SFT student is the final one, or has no samples to learn from")
        ctx.count(skipped=1)
        return
    labels = ctx.read("sft_labels", StepLabels)
    train_reward_model(ctx, SFT_SORM, drafts, labels, "reward.sorm", student="sft")


def sft_sorm_stages() -> tuple[Stage, ...]:
    """Rollouts, labels and SORM of the SFT student."""
    return (
        Stage(
            "sft_rollouts",
            draw,
            inputs=("sft_samples",),
            reads=(*ROLLOUTS, "reward.draft_samples"),
            opens=lambda _: ("sft",),
            estimate=rollout_tokens,
            checks=(check_engine,),
        ),
        Stage(
            "sft_labels",
            label,
            inputs=("sft_rollouts",),
            reads=(*LABELS, *BALANCE, "reward.draft_samples"),
            opens=lambda _: (),
        ),
        Stage(
            SFT_SORM,
            train,
            inputs=("base", "sft_labels"),
            reads=("reward.init", "reward.sorm", "reward.draft_samples"),
            uses=TRAINING,
            models=(SFT_SORM,),
            opens=lambda c: ("sft",) if c.reward.init == "student" else base_opened(c),
            estimate=sorm_tokens,
            checks=(check_training("reward.sorm"),),
        ),
    )


def cross(ctx: StageContext) -> None:
    """Every model on the test samples of both students, and on what it was trained on: parts
    MODEL_EI, MODEL_SFT, `seen_orm`, `seen_sorm`. What the run has scored is not scored again.
    """
    problems, train_problems = problems_by_id(ctx, "test"), problems_by_id(ctx, "train")
    for model, student in _crossed(ctx):
        samples = ctx.read(STUDENTS[student], Solution)
        score(ctx, model, samples, problems, part=f"{model}_{student}")
    score(ctx, ORM, ctx.read("samples", Solution), train_problems, part="seen_orm")
    score(ctx, SORM, train_drafts(ctx), train_problems, part="seen_sorm")


def _crossed(ctx: StageContext) -> list[tuple[str, str]]:
    """Model and student of the scores that the run does not have; none without two students."""
    if "sft_samples" not in ctx.sources or not _sft_drafts(ctx):
        return []
    return [(SFT_ORM, "EI"), (SFT_SORM, "EI"), (ORM, "SFT"), (SORM, "SFT"), (SFT_SORM, "SFT")]


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """The SFT student's SORM, the crossed scores, the numbers."""
    own = sft_sorm_stages() if has_sft(config) else ()
    made = (SFT_SORM,) if own else ()
    crossing = Stage(
        "crossed_scores",
        cross,
        inputs=("test_scores", "labels", *made),
        reads=("engine", "reward.draft_samples"),
        opens=lambda _: (ORM, SORM, *((SFT_ORM, SFT_SORM) if own else ())),
        checks=(check_engine,),
    )
    return (*own, crossing, reading(MEASURE, config, measure, inputs=("crossed_scores",)))


def measure(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """Crossed reranking and judging; overfitting."""
    found = _overfitting(ctx, inputs, index)
    crossed = _crossed(ctx)
    if not crossed:
        return found
    scores: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {
        (model, student): {
            s.solution_id: s.p_correct
            for s in ctx.read("crossed_scores", StepScores, f"{model}_{student}")
        }
        for model, student in crossed
    }
    run = {(s.model, s.solution_id): s.p_correct for s in inputs.scores}
    groups = {"EI": by_problem(inputs.samples), "SFT": by_problem(inputs.sft_samples)}
    for model, student in ((ORM, "EI"), (SORM, "EI"), (SFT_ORM, "SFT")):
        ids = [s.id for g in groups[student].values() for s in g]
        scores[model, student] = {i: run[model, i] for i in ids}
    for student, group in groups.items():
        found += _reranked(index, student, group, scores)
        found += _judged(index, student, group, scores)
    return found


def _reranked(
    index: Index,
    student: str,
    groups: Mapping[str, Sequence[Solution]],
    scores: Mapping[tuple[str, str], Mapping[str, tuple[float, ...]]],
) -> list[Measured]:
    units = [index.cluster_of[p] for p in groups]
    n = min(map(len, groups.values()))
    right = {p: [s.correct == "right" for s in g] for p, g in groups.items()}

    def chosen(model: str) -> list[float]:
        of = scores[model, student]
        return [
            rerank_at_k([index.options.score(of[s.id]) for s in g], right[p], len(g))
            for p, g in groups.items()
        ]

    mean, paired = index.resampler.mean, index.resampler.paired
    column = f"{student} samples"
    voted = [majority(g) for g in groups.values()]
    plain = {
        "one sample": [sum(r) / len(r) for r in right.values()],
        "majority": [float(v is not None and v.correct == "right") for v in voted],
        "pass@K": [pass_at_k(len(r), sum(r), n) for r in right.values()],
    }
    found = [share(CROSSED, name, column, mean(units, v)) for name, v in plain.items()]
    values = {model: chosen(model) for model in NAMES}
    for model, v in values.items():
        found.append(share(CROSSED, NAMES[model], column, mean(units, v)))
    for kind, pair in (("ORM", (ORM, SFT_ORM)), ("SORM", (SORM, SFT_SORM))):
        own, other = pair if student == "EI" else pair[::-1]
        name = f"{kind}: of this student − of the other"
        found.append(difference(CROSSED, name, column, paired(units, values[own], values[other])))
    return found


def _judged(
    index: Index,
    student: str,
    groups: Mapping[str, Sequence[Solution]],
    scores: Mapping[tuple[str, str], Mapping[str, tuple[float, ...]]],
) -> list[Measured]:
    """Final answers of the samples, class-balanced."""
    found = []
    for model, name in NAMES.items():
        of = scores[model, student]
        cases = [
            (index.cluster_of[p], s.correct == "right", _last(of[s.id]))
            for p, g in groups.items()
            for s in g
            if s.correct != "unknown"
        ]
        balanced = _balanced(index.resampler, cases, index.options.threshold)
        found.append(share(JUDGED, name, f"{student} samples", balanced))
    return found


def _overfitting(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    t, seed = index.options.threshold, index.options.seed
    seen = {s.solution_id: s.p_correct for s in ctx.read("crossed_scores", StepScores, "seen_orm")}
    training = [s for s in ctx.read("samples", Solution) if s.correct != "unknown"]
    test = [s for s in inputs.samples if s.correct != "unknown"]
    test_scores = {s.solution_id: s.p_correct for s in inputs.scores if s.model == ORM}
    found: list[Measured] = []
    n_draws = index.options.bootstrap_samples
    train_units = Resampler(
        [s.problem_id for s in training], n_draws=n_draws, seed=seed, keeps=True
    )
    sides: list[tuple[str, Resampler, list[tuple[str, bool, float]]]] = [
        (
            SEEN,
            train_units,
            [(s.problem_id, s.correct == "right", _last(seen[s.id])) for s in training],
        ),
        (
            UNSEEN,
            index.resampler,
            [
                (index.cluster_of[s.problem_id], s.correct == "right", _last(test_scores[s.id]))
                for s in test
            ],
        ),
    ]
    for side, resampler, cases in sides:
        found += _seen(resampler, "ORM, final answers", side, cases, t)
    sorm_seen = {
        s.solution_id: s.p_correct for s in ctx.read("crossed_scores", StepScores, "seen_sorm")
    }
    drafts = {d.id: d for d in inputs.train_drafts}
    steps = [
        (drafts[r.solution_id].problem_id, good, p)
        for r in inputs.train_labels
        for good, p in list(zip(r.labels or (), sorm_seen[r.solution_id], strict=False))[:-1]
    ]
    of = {d.id: d for d in index.drafts}
    test_steps = [
        (index.cluster_of[of[r.solution_id].problem_id], good, p)
        for r in inputs.draft_labels
        if r.solution_id in of
        for good, p in list(
            zip(r.labels or (), index.step_scores(SORM, of[r.solution_id]) or (), strict=False)
        )[:-1]
    ]
    found += _seen(train_units, "SORM, labels of steps", SEEN, steps, t)
    return found + _seen(index.resampler, "SORM, labels of steps", UNSEEN, test_steps, t)


def _seen(
    resampler: Resampler, name: str, side: str, cases: Sequence[tuple[str, bool, float]], t: float
) -> list[Measured]:
    if not cases:
        return []
    units = [u for u, _, _ in cases]
    right = resampler.mean(units, [float(good == (p > t)) for _, good, p in cases])
    good = [(u, p) for u, is_good, p in cases if is_good]
    missed = resampler.mean([u for u, _ in good], [float(p <= t) for _, p in good])
    row = (name, side)
    return [
        share(OVERFIT, row, "judged right", right),
        share(OVERFIT, row, "class-balanced", _balanced(resampler, cases, t)),
        share(OVERFIT, row, "right ones called wrong", missed),
    ]


def _balanced(resampler: Resampler, cases: Sequence[tuple[str, bool, float]], t: float) -> Estimate:
    columns_UM = np.asarray(
        [(good and p > t, good, not good and p <= t, not good) for _, good, p in cases],
        dtype=np.float64,
    )

    def recalls(sums: FloatArray) -> FloatArray:
        mean: FloatArray = (ratio(sums[..., :2]) + ratio(sums[..., 2:])) / 2
        return mean

    return resampler.estimate([u for u, _, _ in cases], columns_UM, recalls)


def _last(p: Sequence[float]) -> float:
    return p[-1] if p else 0.0


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """Crossed reranking, crossed judging, overfitting."""
    found = read_measured(folder, MEASURE)
    n = config.evaluation.samples
    views = [
        pivot(
            found,
            CROSSED,
            f"Reranking both students' samples, K = {n} (Table 7)",
            "Test questions. A model of a student is trained on that student's samples. The paper, "
            "K = 96: ORM_EI .64 on EI and .51 on SFT samples; ORM_SFT .58 and .56.",
            "chosen by",
            units={f"{s} samples": f"{s} samples, % [95 %]" for s in STUDENTS},
        ),
        pivot(
            found,
            JUDGED,
            "Final answers of both students' samples judged right, class-balanced",
            "At the run's threshold.",
            "model",
        ),
        pivot(
            found,
            OVERFIT,
            "Solutions seen in training, and test solutions",
            "At the run's threshold. The paper: 42 % of right training solutions are called wrong.",
            ("judge", "solutions"),
        ),
    ]
    return [view for view in views if view.rows]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Crossed reranking."""
    found = read_measured(folder, MEASURE)
    chart = dot_chart(
        found,
        CROSSED,
        "Reranking both students' samples",
        "Models of each student, on the samples of both. Whiskers: 95 % intervals.",
        "% right",
        by_row=False,
    )
    return [chart] if chart.rows else []


def findings(config: RunConfig, folder: Path) -> list[str]:
    """Does a model fit its own student best? Does it overfit?"""
    found = read_measured(folder, MEASURE)
    said = []
    for kind in ("ORM", "SORM"):
        for student in STUDENTS:
            try:
                m = find(
                    found, CROSSED, f"{kind}: of this student − of the other", f"{student} samples"
                )
            except KeyError:
                continue
            d = difference_in(m)
            shown = "" if d.excludes_zero else " (no difference shown)"
            said.append(
                f"Reranking {student} samples, the {kind} of that student minus the other's: "
                f"{points(d)} points{shown}."
            )
    rows = [find(found, OVERFIT, ("ORM, final answers", s), "judged right") for s in (SEEN, UNSEEN)]
    missed = find(found, OVERFIT, ("ORM, final answers", SEEN), "right ones called wrong")
    said.append(
        f"The ORM judges {percent(estimate_of(rows[0]))} % of its training solutions right and "
        f"{percent(estimate_of(rows[1]))} % of test samples; it calls "
        f"{percent(estimate_of(missed))} % of right training solutions wrong (the paper: 42)."
    )
    return said


STUDY = Study(
    "generalisation",
    "Reward models of each student crossed over both students' samples, and training against test "
    "solutions (App. E).",
    stages,
    tables,
    charts,
    findings,
)
