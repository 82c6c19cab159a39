"""What the study `pessimism` measures: scores of the bare question, ORM against SORM on steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import BALANCED_ORM, ORM, SFT_ORM, SORM, Index
from glore.pipeline import StageContext
from glore.records import Solution, StepLabels, StepScores
from glore.report.views import MODEL_NAMES
from glore.studies.measured import Measured, difference, number, share

__all__ = ["BANDS", "BARE", "DIFFICULTY", "EI", "EVERY", "GAP", "MODELS", "SFT", "measure"]

BARE, DIFFICULTY, GAP = "pessimism-question", "pessimism-difficulty", "pessimism-gap"
MODELS = (ORM, BALANCED_ORM, SORM)
EI, SFT = "final student", "SFT student"
BANDS = ((0.0, "none"), (0.5, "less than half"), (1.0, "half or more"), (2.0, "all"))
"""Share of right samples below which a question is in this band; the first: exactly none."""
EVERY = "any number"
"""The row of all questions."""


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
            share(GAP, (SFT, EVERY), "greedy", index.resampler.mean(index.units(weaker), right))
        )
    right = [float(d.correct == "right") for d in drafts]
    found.append(
        share(GAP, (EI, EVERY), "greedy", index.resampler.mean(index.units(drafts), right))
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
    for band in (EVERY, *(name for _, name in BANDS)):
        mine = [i for i, b in enumerate(steps.bands) if band in (EVERY, b)]
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
