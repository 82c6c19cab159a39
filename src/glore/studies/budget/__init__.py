"""Study `budget`: accuracy against sampled tokens, for every way of answering at once.

Greedy, majority of N, best of N by the ORM, samples one by one until the ORM accepts, the same
after the greedy draft, after the draft and its global refinement (the cascade), and that with every
sample refined before the next, RISE's turns (the last, their majority, or until the ORM accepts),
GLoRe once, GLoRe iterated (the chosen candidate is refined again until the ORM accepts), and the
same with a refiner that also learned from right drafts. Samples, drafts and refinements are the
run's; RISE's turns and the second refiner are those of the study `rise`, which is computed first.

Assumptions: tokens are those sampled. What models read (prompts, scored solutions) is not counted,
which favours the ORM. Best of N and majority are expectations over subsets of the run's samples.

spent     what one way spends on one question
iterated  GLoRe in rounds
cascades  one solution after the other until the ORM accepts
results   all ways, differences at equal tokens
"""

from __future__ import annotations

from glore.studies.budget.cascades import sample_refinements
from glore.studies.budget.iterated import glore_rounds
from glore.studies.budget.results import (
    budget_charts,
    budget_findings,
    budget_tables,
    results,
    turn_scores,
)
from glore.studies.study import Study

__all__ = ["STUDY"]

STUDY = Study(
    "budget",
    "Accuracy against sampled tokens: parallel samples, RISE's turns, GLoRe once and iterated.",
    lambda config: (glore_rounds, sample_refinements, turn_scores, results),
    budget_tables,
    budget_charts,
    budget_findings,
    after=("rise",),
)
