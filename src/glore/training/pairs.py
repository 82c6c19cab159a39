"""Pairs of a right and a wrong solution of one question: examples in, rows and batches of whole
pairs out (method 2, contrastive reward model; App. F). No torch here.

The two solutions of a pair are two rows, one after the other, that share every batch. The target is
at the last token of the last step alone: 1 of the right solution, 0 of the wrong one. The loss is
`glore.training.trainer.summed_pair_losses`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from glore.config import TrainSettings
from glore.training.batches import plan_batches
from glore.training.examples import CHUNK, Row, StepExample, step_rows_of
from glore.training.packing import plan_packed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["PAIR", "PairExample", "pair_rows", "pair_tokens", "plan_pairs"]

PAIR = 2
"""Rows of a pair."""


@dataclasses.dataclass(frozen=True, slots=True)
class PairExample:
    """A right and a wrong solution of the same question."""

    prompt: tuple[str, ...]
    right: tuple[str, ...]
    """Step segments (`prompts.step_text`), at least one."""
    wrong: tuple[str, ...]


def pair_rows(
    tokenizer: PreTrainedTokenizerBase, examples: Iterable[PairExample], max_length: int
) -> tuple[list[Row], int]:
    """Rows of pairs, the right solution first, and the number of pairs left out, since one of the
    two is too long or its last step has no token.
    """
    pairs = list(examples)
    rows: list[Row] = []
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        right = step_rows_of(tokenizer, [_last_step(p.prompt, p.right, True) for p in chunk])
        wrong = step_rows_of(tokenizer, [_last_step(p.prompt, p.wrong, False) for p in chunk])
        for both in zip(right, wrong, strict=True):
            if all(len(row.ids) <= max_length and row.is_scored for row in both):
                rows.extend(both)
    return rows, len(pairs) - len(rows) // PAIR


def _last_step(prompt: tuple[str, ...], steps: tuple[str, ...], label: bool) -> StepExample:
    """A solution whose last step alone is scored."""
    n = len(steps)
    return StepExample(prompt, steps, (label,) * n, (False,) * (n - 1) + (True,) * (n > 0))


def plan_pairs(
    lengths: Sequence[int],
    settings: TrainSettings,
    n_batches: int,
    seed: int,
    in_order: bool = False,
) -> list[tuple[int, ...]]:
    """Row indices of every batch, in order, for the whole training: whole pairs, at least one, and
    as many as fit `batch_size` rows, or `batch_tokens` packed tokens.

    `lengths`: of the rows, two by two. The other arguments are those of `plan_batches`.
    """
    right, wrong = lengths[::PAIR], lengths[1::PAIR]
    if settings.batch_tokens:
        both = [a + b for a, b in zip(right, wrong, strict=True)]
        budget = pair_tokens(lengths, settings.batch_tokens)
        plan = plan_packed(both, budget, settings.epochs, n_batches, seed, in_order)
    else:
        longer = [max(a, b) for a, b in zip(right, wrong, strict=True)]
        n_pairs = max(1, settings.batch_size // PAIR)
        plan = plan_batches(longer, n_pairs, settings.epochs, n_batches, seed, in_order)
    return [tuple(PAIR * i + k for i in batch for k in range(PAIR)) for batch in plan]


def pair_tokens(lengths: Sequence[int], batch_tokens: int) -> int:
    """Tokens of a packed batch of pairs: the setting, or more where the longest pair needs more."""
    return max(
        batch_tokens, *(a + b for a, b in zip(lengths[::PAIR], lengths[1::PAIR], strict=True))
    )
