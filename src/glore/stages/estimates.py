"""Tokens that a stage will sample or train on, roughly, from the settings alone (`--dry-run`)."""

from __future__ import annotations

from glore.config import RunConfig

__all__ = [
    "draft_tokens",
    "orm_tokens",
    "questions",
    "refinement_tokens",
    "rollout_tokens",
    "round_tokens",
    "round_train_tokens",
    "sample_tokens",
    "scratch_tokens",
    "sft_tokens",
    "solution_tokens",
    "sorm_tokens",
    "test_rollout_tokens",
    "test_sample_tokens",
]

TRAIN_ROWS_SHARE = 0.5
"""The share of the solutions that are right, distinct or wrong enough to be trained on."""
PREFIXES_PER_DRAFT = 2
"""Prefixes of a draft that the backward scan tries, right drafts counted."""


def questions(config: RunConfig, split: str) -> int:
    """About how many questions a split has."""
    return config.task.expected_questions(split)


def solution_tokens(config: RunConfig, n_solutions: float) -> int:
    """Tokens of `n_solutions` solutions: a third of what they may have."""
    return round(n_solutions * config.student.max_new_tokens / 3)


def scratch_tokens(config: RunConfig) -> int:
    """Training a base model from nothing."""
    return 0 if config.base.model else config.base.scratch.n_tokens


def round_train_tokens(config: RunConfig, number: int) -> int:
    """Fine-tuning in round `number` of expert iteration, on the solutions of all rounds so far."""
    epochs = config.student.ei_train.epochs
    return round(number * round_tokens(config) * TRAIN_ROWS_SHARE * epochs)


def refinement_tokens(config: RunConfig) -> int:
    """Global and two kinds of local refinements."""
    return 3 * draft_tokens(config)


def _reward_questions(c: RunConfig) -> int:
    n = questions(c, "train")
    return min(n, c.reward.questions or n)


def sft_tokens(c: RunConfig) -> int:
    """Fine-tuning on the worked solutions."""
    if c.student.bootstrap != "sft":
        return 0
    worked = questions(c, "train") * c.task.expected_worked_share
    return solution_tokens(c, worked * c.student.sft.epochs)


def round_tokens(c: RunConfig) -> int:
    """Sampling of one round of expert iteration."""
    n_train = questions(c, "train")
    return solution_tokens(
        c, min(c.student.ei.questions or n_train, n_train) * c.student.ei.samples
    )


def sample_tokens(c: RunConfig) -> int:
    """Samples of the training questions."""
    return solution_tokens(c, _reward_questions(c) * c.reward.samples)


def orm_tokens(c: RunConfig) -> int:
    """Training the ORM."""
    return round(sample_tokens(c) * c.reward.orm.epochs)


def sorm_tokens(c: RunConfig) -> int:
    """Training the SORM."""
    return solution_tokens(c, _reward_questions(c) * c.reward.draft_samples * c.reward.sorm.epochs)


def rollout_tokens(c: RunConfig) -> int:
    """Verifying rollouts of the training drafts."""
    drafts = _reward_questions(c) * c.reward.draft_samples
    return solution_tokens(c, drafts * PREFIXES_PER_DRAFT * c.labels.rollouts * TRAIN_ROWS_SHARE)


def draft_tokens(c: RunConfig) -> int:
    """Greedy drafts of the test questions."""
    return solution_tokens(c, questions(c, "test"))


def test_sample_tokens(c: RunConfig) -> int:
    """Samples of the test questions."""
    return draft_tokens(c) * c.evaluation.samples


def test_rollout_tokens(c: RunConfig) -> int:
    """Verifying rollouts of the test drafts."""
    return round(draft_tokens(c) * PREFIXES_PER_DRAFT * c.labels.rollouts * TRAIN_ROWS_SHARE)
