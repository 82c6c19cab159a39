"""Study `pessimism`: what the reward models expect before the first step, and where the ORM is too
pessimistic (section 4.1 of the paper).

An ORM estimates the value of its student, V^π: after a right prefix it expects the student to fail
as often as the student does. A SORM estimates V*: can the question still be solved from here? So
the ORM calls right steps of hard questions bad. Measured:

- the probability at the end of the bare question, where no model was trained (its tokens are masked
  in training, as in the paper), for ORM, Balanced ORM and SORM, beside the share of right samples.
  The paper: the Balanced ORM gives about 50 % to every question;
- the same by difficulty (share of right samples of the question): does the score follow it?
- accuracy on steps before the answer line against the exact truth (else labels from rollouts), SORM
  minus ORM, by difficulty, and for two students of different strength: the final one, and the SFT
  student with its own ORM. The SORM is the run's in both, since V* does not depend on the student.

Difficulty comes from the student's K samples of the same test question. Strength: a run has two
students; runs of other sizes tell more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from glore.config import RunConfig
from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import BALANCED_ORM, ORM, SFT_ORM, SORM, Index
from glore.pipeline import Stage, StageContext
from glore.records import Solution, StepLabels, StepScores
from glore.report.charts import Chart
from glore.report.views import MODEL_NAMES, TableView, percent, points
from glore.stages.checks import check_engine
from glore.stages.common import problems_by_id, score_with_question, truth_of
from glore.stages.reward import has_own_orm
from glore.studies.measured import (
    Measured,
    difference,
    difference_in,
    dot_chart,
    estimate_of,
    find,
    line_chart,
    number,
    pivot,
    read_measured,
    share,
)
from glore.studies.records import has_sft, reading
from glore.studies.study import Study

__all__ = ["STUDY"]

MEASURE = "pessimism_measured"
BARE, DIFFICULTY, GAP = "pessimism-question", "pessimism-difficulty", "pessimism-gap"
MODELS = (ORM, BALANCED_ORM, SORM)
EI, SFT = "final student", "SFT student"
BANDS = ((0.0, "none"), (0.5, "less than half"), (1.0, "half or more"), (2.0, "all"))
"""Share of right samples below which a question is in this band; the first: exactly none."""


def score(ctx: StageContext) -> None:
    """Every reward model after the question and after each step of the drafts: parts by model. The
    SFT student's drafts by its own ORM and by the SORM: `sft_orm`, `sft_sorm`, and their truth.
    """
    problems = problems_by_id(ctx, "test")
    drafts = [d for d in ctx.read("test_drafts", Solution) if d.steps]
    for model in MODELS:
        score_with_question(ctx, model, drafts, problems, part=model)
    own = "sft_samples" in ctx.sources and has_own_orm(ctx.read("sft_samples", Solution))
    weaker = [d for d in ctx.read("sft_test_drafts", Solution) if d.steps] if own else []
    ctx.write(truth_of(ctx, weaker, problems), StepLabels, "sft_truth")
    for model, part in ((SFT_ORM, SFT_ORM), (SORM, "sft_sorm")):
        if weaker:
            score_with_question(ctx, model, weaker, problems, part=part)
        else:
            ctx.write([], StepScores, part)


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """The scores, then the numbers."""
    sft = ("sft_test_drafts", "sft_orm") if has_sft(config) else ()
    opened = (*MODELS, *((SFT_ORM,) if has_sft(config) else ()))
    scoring = Stage(
        "question_scores",
        score,
        inputs=("test_drafts", *MODELS, *sft),
        reads=("engine", "task"),
        opens=lambda _: opened,
        checks=(check_engine,),
    )
    return scoring, reading(MEASURE, config, measure, inputs=("question_scores",))


@dataclasses.dataclass(frozen=True, slots=True)
class _Steps:
    """Steps before the answer line of one student's drafts."""

    units: list[str]
    bands: list[str]
    good: list[bool]
    orm: list[float]
    sorm: list[float]


def measure(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """The bare question, by difficulty; the gap on steps, by difficulty and student."""
    rate = {
        p: sum(s.correct == "right" for s in g) / len(g) for p, g in index.samples_of.items() if g
    }
    scores = {
        part: {s.solution_id: s.p_correct for s in ctx.read("question_scores", StepScores, part)}
        for part in (*MODELS, SFT_ORM, "sft_sorm")
    }
    drafts = [d for d in index.drafts if d.id in scores[ORM] and d.problem_id in rate]
    found = _bare(index, drafts, scores, rate)
    exact = inputs.draft_truth or inputs.draft_labels
    labels = {r.solution_id: r.labels for r in exact}
    final = _steps(index, drafts, labels, scores[ORM], scores[SORM], rate)
    found += _gaps(index, EI, final)
    truth = {r.solution_id: r.labels for r in ctx.read("question_scores", StepLabels, "sft_truth")}
    weaker = [d for d in inputs.sft_drafts if d.id in truth and d.problem_id in rate]
    if weaker:
        steps = _steps(index, weaker, truth, scores[SFT_ORM], scores["sft_sorm"], rate)
        found += _gaps(index, SFT, steps)
        right = [float(d.correct == "right") for d in weaker]
        found.append(
            share(GAP, (SFT, "all"), "greedy", index.resampler.mean(index.units(weaker), right))
        )
    right = [float(d.correct == "right") for d in drafts]
    found.append(
        share(GAP, (EI, "all"), "greedy", index.resampler.mean(index.units(drafts), right))
    )
    return found


def _band(rate: float) -> str:
    if rate == 0:
        return BANDS[0][1]
    return next(name for limit, name in BANDS[1:] if rate < limit)


def _bare(
    index: Index,
    drafts: Sequence[Solution],
    scores: Mapping[str, Mapping[str, tuple[float, ...]]],
    rate: Mapping[str, float],
) -> list[Measured]:
    units = index.units(drafts)
    rates = [rate[d.problem_id] for d in drafts]
    solved = [float(r > 0) for r in rates]
    mean = index.resampler.mean
    found = []
    for model in MODELS:
        p = [scores[model][d.id][0] for d in drafts]
        row = MODEL_NAMES[model]
        found += [
            share(BARE, row, "mean score of the question", mean(units, p)),
            number(BARE, row, "standard deviation, points", 100 * float(np.std(p))),
            number(
                BARE, row, "correlation with the share of right samples", _correlation(p, rates)
            ),
            share(
                BARE,
                row,
                "called good (above the threshold)",
                mean(units, [float(x > index.options.threshold) for x in p]),
            ),
        ]
        for _, band in BANDS:
            mine = [i for i, r in enumerate(rates) if _band(r) == band]
            e = mean([units[i] for i in mine], [p[i] for i in mine])
            found.append(share(DIFFICULTY, row, f"right samples: {band}", e))
    for row, values in (
        ("share of right samples", rates),
        ("solved by one of the samples", solved),
    ):
        found.append(share(BARE, row, "mean score of the question", mean(units, values)))
        for _, band in BANDS:
            mine = [i for i, r in enumerate(rates) if _band(r) == band]
            e = mean([units[i] for i in mine], [values[i] for i in mine])
            found.append(share(DIFFICULTY, row, f"right samples: {band}", e))
    return found


def _correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(a) < 2 or np.std(a) == 0 or np.std(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _steps(
    index: Index,
    drafts: Sequence[Solution],
    labels: Mapping[str, tuple[bool, ...] | None],
    orm: Mapping[str, tuple[float, ...]],
    sorm: Mapping[str, tuple[float, ...]],
    rate: Mapping[str, float],
) -> _Steps:
    """The score at 0 is the question's; step i has i + 1."""
    steps = _Steps([], [], [], [], [])
    for d in drafts:
        known = labels.get(d.id)
        if known is None or d.id not in orm or d.id not in sorm:
            continue
        for i, good in enumerate(known[:-1]):
            steps.units.append(index.cluster_of[d.problem_id])
            steps.bands.append(_band(rate[d.problem_id]))
            steps.good.append(good)
            steps.orm.append(orm[d.id][i + 1])
            steps.sorm.append(sorm[d.id][i + 1])
    return steps


def _gaps(index: Index, student: str, steps: _Steps) -> list[Measured]:
    t = index.options.threshold
    found = []
    for band in ("all", *(name for _, name in BANDS)):
        mine = [i for i, b in enumerate(steps.bands) if band in ("all", b)]
        if not mine:
            continue
        units = [steps.units[i] for i in mine]
        right = {
            name: [float((p[i] > t) == steps.good[i]) for i in mine]
            for name, p in (("ORM", steps.orm), ("SORM", steps.sorm))
        }
        row = (student, band)
        true = [i for i in mine if steps.good[i]]
        found += [
            *(share(GAP, row, name, index.resampler.mean(units, v)) for name, v in right.items()),
            difference(
                GAP, row, "SORM − ORM", index.resampler.paired(units, right["SORM"], right["ORM"])
            ),
            *(
                share(
                    GAP,
                    row,
                    f"true steps called bad, {name}",
                    index.resampler.mean(
                        [steps.units[i] for i in true], [float(p[i] <= t) for i in true]
                    ),
                )
                for name, p in (("ORM", steps.orm), ("SORM", steps.sorm))
            ),
        ]
    return found


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """The bare question, by difficulty; steps."""
    found = read_measured(folder, MEASURE)
    return [
        pivot(
            found,
            BARE,
            "The score of the bare question, before the first step",
            "Test questions. No model was trained there: question tokens are masked in training.",
            "model",
            n_column=True,
        ),
        pivot(
            found,
            DIFFICULTY,
            "The score of the bare question, by difficulty",
            "Questions by the share of the final student's samples that are right.",
            "model",
        ),
        pivot(
            found,
            GAP,
            "Accuracy on steps before the answer line",
            "By the share of right samples of the question. The SFT student's drafts: its own ORM, "
            "and the run's SORM. Differences are paired.",
            ("student", "right samples"),
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Scores of the bare question against difficulty."""
    found = read_measured(folder, MEASURE)
    places = {f"right samples: {name}": i for i, (_, name) in enumerate(BANDS)}
    mine = [
        dataclasses.replace(m, x=float(places[m.column] + 1))
        for m in found
        if m.table == DIFFICULTY and m.row[0] != "solved by one of the samples"
    ]
    return [
        line_chart(
            mine,
            DIFFICULTY,
            "What reward models expect of a question before the first step",
            "1: no sample is right; 2: less than half; 3: half or more; 4: all. Bands: 95 % "
            "intervals.",
            "difficulty of the question (1 hardest)",
            "mean probability, %",
        ),
        dot_chart(
            found,
            GAP,
            "Steps judged right, by difficulty and student",
            "By the share of right samples of the question. Whiskers: 95 % intervals.",
            "% of steps",
            columns=("ORM", "SORM"),
        ),
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """Do they expect what the student can do?"""
    found = read_measured(folder, MEASURE)
    column = "mean score of the question"
    show: Callable[[str], str] = lambda row: percent(estimate_of(find(found, BARE, row, column)))  # noqa: E731
    said = [
        f"Before the first step, the ORM expects {show('ORM')} %, the Balanced ORM "
        f"{show('Balanced ORM')} % (the paper: about 50) and the SORM {show('SORM')} %; "
        f"{show('share of right samples')} % of the samples are right."
    ]
    for student in (EI, SFT):
        try:
            m = find(found, GAP, (student, "all"), "SORM − ORM")
        except KeyError:
            continue
        d = difference_in(m)
        said.append(f"On steps of the {student}, SORM − ORM: {points(d)} points.")
    return said


STUDY = Study(
    "pessimism",
    "What the reward models expect before the first step, and where the ORM is too pessimistic "
    "(section 4.1).",
    stages,
    tables,
    charts,
    findings,
)
