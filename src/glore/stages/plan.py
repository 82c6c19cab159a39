"""All stages of a run, in order (methods 1 to 6). Each is declared beside its code.

bases             the problems, the base model
expert_iteration  SFT, rounds of expert iteration, the student
ready             reward models that are there already, in place of the ORM, the SORM or both
reward            samples, ORM, Balanced ORM, SORM
labelling         verifying rollouts, step labels
refining          refinement pairs, the joint refiner
test_set          drafts, samples, labels, scores and refinements of the test questions
evaluating        the tables
"""

from __future__ import annotations

from glore.config import RunConfig
from glore.pipeline import Stage
from glore.stages import bases, evaluating, expert_iteration, labelling, refining, reward, test_set
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
        test_set.drafts("sft_test_drafts", "sft"),
        test_set.samples("sft_test_samples", "sft"),
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
        test_set.drafts("test_drafts", "student"),
        test_set.samples("test_samples", "student"),
        *(sft_student if has_sft else ()),
        test_set.rollouts,
        test_set.labels,
        test_set.draft_scores,
        test_set.refinements,
        test_set.scores(has_sft),
        evaluating.evaluation(has_sft),
    )
