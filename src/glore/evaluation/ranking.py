"""Do the reward models rank samples of one question, as reranking needs it?

A model may tell right answers from wrong ones over all questions and still not within a question:
it has then learned which questions are hard. Reranking chooses among samples of one question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from glore.evaluation.inputs import REWARD_MODELS, Index
from glore.records import Solution
from glore.statistics import Estimate, ratio

__all__ = ["RankingRow", "concordant", "ranking"]


@dataclasses.dataclass(frozen=True, slots=True)
class RankingRow:
    """How often one model scores a right sample above a wrong one of the same question."""

    model: str
    above: Estimate
    """Share of the pairs of a right and a wrong sample, a tie counting half; 0.5 is chance. n:
    questions with such a pair.
    """
    n_pairs: int


def ranking(index: Index) -> tuple[RankingRow, ...]:
    """One row per model that has scored all samples; none if no question has both a right and a
    wrong sample. Intervals resample whole questions.
    """
    groups = [
        (index.cluster_of[d.problem_id], samples)
        for d in index.drafts
        if (samples := index.samples_of.get(d.problem_id))
        and {"right", "wrong"} <= {s.correct for s in samples}
    ]
    rows = []
    for model in REWARD_MODELS if groups else ():
        scored = [(unit, _scores(index, model, samples)) for unit, samples in groups]
        pairs = [(unit, *found) for unit, found in scored if found is not None]
        if len(pairs) < len(groups):
            continue
        columns_UM = np.asarray(
            [(concordant(right, wrong), len(right) * len(wrong)) for _, right, wrong in pairs]
        )
        above = index.resampler.estimate([unit for unit, _, _ in pairs], columns_UM, ratio)
        rows.append(RankingRow(model, above, round(columns_UM[:, 1].sum())))
    return tuple(rows)


def concordant(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Pairs whose right sample has the higher score; ties count half."""
    right_R1, wrong_1W = np.asarray(right)[:, None], np.asarray(wrong)[None]
    return float((right_R1 > wrong_1W).sum() + (right_R1 == wrong_1W).sum() / 2)


def _scores(
    index: Index, model: str, samples: Sequence[Solution]
) -> tuple[list[float], list[float]] | None:
    """Scores of the right samples, and of the wrong ones. None: one was not scored."""
    right: list[float] = []
    wrong: list[float] = []
    for sample in samples:
        score = index.score(model, sample)
        if score is None:
            return None
        if sample.correct in ("right", "wrong"):
            (right if sample.correct == "right" else wrong).append(score)
    return right, wrong
