"""The study `rerank` on Fig. 4's candidates: draft, global and local refinement, chosen by every
reward model with every aggregate, in place of the ORM with the run's.
"""

from __future__ import annotations

import dataclasses

from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import REWARD_MODELS, Index
from glore.evaluation.refinement import candidates_of, chosen_by, chosen_by_orm
from glore.pipeline import StageContext
from glore.records import Solution
from glore.report.views import MODEL_NAMES
from glore.rerank import AGGREGATES
from glore.studies.measured import Measured, difference, share

__all__ = ["CANDIDATES", "VS_RUN", "measure"]

CANDIDATES = "rerank-candidates"
GREEDY, GOLD = "the greedy draft", "the gold answer"
VS_GREEDY, VS_RUN = f"− {GREEDY}", "− the run's choice"


def measure(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """Accuracy of each way to choose, and its paired differences to the greedy draft and to the
    ORM with the run's aggregate. Nothing where nothing was refined.
    """
    if not inputs.refinements:
        return []
    groups = [candidates_of(index, draft) for draft in index.drafts]
    greedy = [_right(group[0]) for group in groups]
    run_choice = [_right(chosen_by_orm(index, group)) for group in groups]
    ways = {
        (GREEDY, ""): greedy,
        **{
            (MODEL_NAMES[model], by.aggregate): [
                _right(chosen_by(index, group, model, by)) for group in groups
            ]
            for model in REWARD_MODELS
            for by in (dataclasses.replace(index.options, aggregate=how) for how in AGGREGATES)
        },
        (GOLD, ""): [max(map(_right, group)) for group in groups],
    }
    units = index.units(index.drafts)
    return [
        number
        for row, right in ways.items()
        for number in (
            share(CANDIDATES, row, "accuracy", index.resampler.mean(units, right)),
            *(
                difference(
                    CANDIDATES,
                    row,
                    name,
                    None if right is other else index.resampler.paired(units, right, other),
                )
                for name, other in ((VS_GREEDY, greedy), (VS_RUN, run_choice))
            ),
        )
    ]


def _right(solution: Solution) -> float:
    return float(solution.correct == "right")
