"""Tokens that a stage will sample or train on, roughly (`--dry-run`).

A stage that samples counts the tokens it draws. A stage that trains counts prompts and solutions of
its rows, as often as it reads them.
"""

from __future__ import annotations

from collections.abc import Callable

from glore.config import RunConfig, TrainSettings
from glore.stages.workload import workload

__all__ = [
    "draft_tokens",
    "orm_tokens",
    "refinement_tokens",
    "refiner_tokens",
    "rolled_out_tokens",
    "rollout_tokens",
    "round_tokens",
    "round_train_tokens",
    "sample_tokens",
    "scratch_tokens",
    "sft_tokens",
    "sorm_tokens",
    "test_rollout_tokens",
    "test_sample_tokens",
    "unless_student",
]

TRAIN_ROWS_SHARE = 0.5
"""The share of the solutions that are right, distinct or wrong enough to be trained on."""
PREFIXES_PER_DRAFT = 1
"""Prefixes of a draft from which the backward scan draws all K rollouts, right drafts counted."""


def scratch_tokens(config: RunConfig) -> int:
    """Training a base model from nothing."""
    return 0 if config.base.model else config.base.scratch.n_tokens


def sft_tokens(config: RunConfig) -> int:
    """Fine-tuning on the worked solutions."""
    if config.student.bootstrap != "sft":
        return 0
    return _trained(config, _n_worked(config), config.student.sft)


def round_tokens(config: RunConfig) -> int:
    """Sampling of one round of expert iteration."""
    return _drawn(config, _round_solutions(config))


def round_train_tokens(config: RunConfig, number: int) -> int:
    """Fine-tuning in round `number` of expert iteration, on the solutions of all rounds so far, at
    most `student.ei.max_per_question` of each question.
    """
    rows = number * _round_solutions(config) * TRAIN_ROWS_SHARE
    most = config.student.ei.max_per_question
    rows = min(rows, _round_questions(config) * most) if most else rows
    worked = _n_worked(config) if config.student.bootstrap == "sft" else 0
    return _trained(config, rows + worked, config.student.ei_train)


def sample_tokens(config: RunConfig) -> int:
    """Samples of the training questions."""
    return _drawn(config, _reward_questions(config) * config.reward.samples)


def orm_tokens(config: RunConfig) -> int:
    """Training an ORM, on the distinct samples."""
    rows = _reward_questions(config) * config.reward.samples * TRAIN_ROWS_SHARE
    return _trained(config, rows, config.reward.orm)


def sorm_tokens(config: RunConfig) -> int:
    """Training the SORM."""
    rows = _reward_questions(config) * config.reward.draft_samples
    return _trained(config, rows, config.reward.sorm)


def rollout_tokens(config: RunConfig) -> int:
    """Verifying rollouts of the training drafts."""
    drafts = _reward_questions(config) * config.reward.draft_samples
    return _rolled_out(config, drafts, config.labels.full_counts)


def rolled_out_tokens(config: RunConfig, drafts: float, rollouts: int) -> int:
    """`rollouts` of them from every prefix of so many drafts: half a solution on average."""
    return _drawn(config, drafts * (workload(config).solution_steps - 1) * rollouts * 0.5)


def refiner_tokens(config: RunConfig) -> int:
    """Training the refiner: a draft and a solution for each wrong draft, globally and locally."""
    wrong = _reward_questions(config) * config.reward.draft_samples * TRAIN_ROWS_SHARE
    found = workload(config)
    row = found.question_tokens + 2 * found.solution_tokens
    return _read(2 * wrong, row, config.refiner.train)


def draft_tokens(config: RunConfig) -> int:
    """Greedy drafts of the test questions."""
    return _drawn(config, workload(config).questions["test"])


def test_sample_tokens(config: RunConfig) -> int:
    """Samples of the test questions."""
    return _drawn(config, workload(config).questions["test"] * config.evaluation.samples)


def test_rollout_tokens(config: RunConfig) -> int:
    """Verifying rollouts of the test drafts."""
    full = config.labels.full_counts or config.evaluation.label_full_counts
    return _rolled_out(config, workload(config).questions["test"], full)


def refinement_tokens(config: RunConfig) -> int:
    """Global and two kinds of local refinements."""
    return 3 * draft_tokens(config)


def unless_student(model: str, estimate: Callable[[RunConfig], int]) -> Callable[[RunConfig], int]:
    """The estimate for a stage about that model, which does nothing where the model is the SFT
    model and certainly the student itself.
    """
    return lambda c: 0 if model == "sft" and not c.student.ei.max_rounds else estimate(c)


def _drawn(config: RunConfig, solutions: float) -> int:
    return round(solutions * workload(config).solution_tokens)


def _trained(config: RunConfig, rows: float, settings: TrainSettings) -> int:
    found = workload(config)
    return _read(rows, found.question_tokens + found.solution_tokens, settings)


def _read(rows: float, row_tokens: float, settings: TrainSettings) -> int:
    """Tokens that a training reads of so many rows on one device: those of its epochs, or of its
    `max_steps`.
    """
    if not settings.max_steps:
        return round(rows * row_tokens * settings.epochs)
    if settings.batch_tokens:
        row_tokens = min(row_tokens, settings.batch_tokens)
        batch = min(rows, settings.batch_tokens // max(1, round(row_tokens)))
    else:
        batch = min(rows, settings.batch_size)
    return round(settings.max_steps * settings.gradient_accumulation * batch * row_tokens)


def _rolled_out(config: RunConfig, drafts: int, full_counts: bool) -> int:
    """The scan begins at the end of a draft, so a rollout is a quarter of a solution. Full counts
    are drawn at every step, where it is half of one on average.
    """
    steps = workload(config).solution_steps - 1
    prefixes, share = (steps, 0.5) if full_counts else (PREFIXES_PER_DRAFT, 0.25)
    return _drawn(config, drafts * prefixes * config.labels.rollouts * share)


def _n_worked(config: RunConfig) -> float:
    """Worked solutions that the student learns from."""
    found = workload(config)
    n_train = found.questions["train"]
    return found.n_worked * min(config.student.sft_questions or n_train, n_train) / n_train


def _round_solutions(config: RunConfig) -> int:
    return _round_questions(config) * config.student.ei.samples


def _round_questions(config: RunConfig) -> int:
    n_train = workload(config).questions["train"]
    return min(config.student.ei.questions or n_train, n_train)


def _reward_questions(config: RunConfig) -> int:
    n = workload(config).questions["train"]
    return min(n, config.reward.questions or n)
