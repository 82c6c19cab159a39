"""All stages of a run, in order (methods 1 to 6). Each is declared beside its code.

bases             the problems, the base model
expert_iteration  SFT, rounds of expert iteration, the student
ready             reward models that are there already, in place of the ORM, the SORM or both
reward            samples, ORM, Balanced ORM, SORM
labelling         verifying rollouts, step labels
refining          refinement pairs, the joint refiner
evaluation_set    drafts, samples, labels, scores and refinements of the test questions
evaluating        the tables
"""

from __future__ import annotations

from glore.config import RunConfig
from glore.pipeline import Stage
from glore.stages import (
    bases,
    evaluating,
    evaluation_set,
    expert_iteration,
    labelling,
    refining,
    reward,
)
from glore.stages.ready import ready_stages

__all__ = ["build_stages"]


def build_stages(config: RunConfig) -> tuple[Stage, ...]:
    """All stages of a run. Their number depends on the rounds of expert iteration and on whether
    there is an SFT student.
    """
    rounds = range(1, config.student.ei.max_rounds + 1)
    has_sft = config.student.bootstrap == "sft"
    sft_student = (
        reward.sft_samples,
        reward.sft_orm,
        evaluation_set.drafts("sft_test_drafts", "sft"),
        evaluation_set.samples("sft_test_samples", "sft"),
    )
    given = ready_stages(config)
    trained = {s.name: () if s.name in given else (s,) for s in (reward.orm, reward.sorm)}
    return (
        bases.problems,
        bases.base(config),
        *given.values(),
        expert_iteration.sft(has_sft),
        *(stage for number in rounds for stage in expert_iteration.expert_iteration(number)),
        expert_iteration.student(rounds),
        reward.samples,
        *trained["orm"],
        reward.balanced_orm,
        labelling.rollouts,
        labelling.labels,
        *trained["sorm"],
        refining.pairs,
        refining.refiner,
        evaluation_set.drafts("test_drafts", "student"),
        evaluation_set.samples("test_samples", "student"),
        *(sft_student if has_sft else ()),
        evaluation_set.rollouts,
        evaluation_set.labels,
        evaluation_set.draft_scores,
        evaluation_set.refinements,
        evaluation_set.scores(has_sft),
        evaluating.evaluation(has_sft),
    )
