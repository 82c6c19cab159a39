"""The paper's tables and figures as pure functions of records (method 6).

inputs          the records that are read, an index over them, pooling of several seeds
reward_models   Table 1 (steps), Table 2 (final answers)
calibration     predicted probability against the share that is good
refinement      Table 3, Fig. 3, Fig. 4, overlap of global and local refinement
decomposition   which part of refinement fails, with oracles
ranking         right samples of a question above wrong ones
rerank_curves   accuracy against K; majority; pass@K
students        Table 5
labels          App. G: label agreement and its ablation; label balance
tables          all of them at once, and their JSON form
headline        the numbers that a summary quotes
"""

from __future__ import annotations

from glore.evaluation.inputs import EvaluationInputs, EvaluationOptions, pool
from glore.evaluation.result import Evaluation, evaluate, read_evaluation, write_evaluation

__all__ = [
    "Evaluation",
    "EvaluationInputs",
    "EvaluationOptions",
    "evaluate",
    "pool",
    "read_evaluation",
    "write_evaluation",
]
