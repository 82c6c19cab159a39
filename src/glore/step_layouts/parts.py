"""Questions and steps → token ids in parts: one of the question, then one a step.

The score of a step is read at the last token of its part, whatever the layout. Training, scoring
and exports take their positions from here (`score_positions`), so they can't differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from glore.tokenization import encode_many

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Item", "Parts", "StepLayout", "score_positions", "segment_parts", "token_ids"]

Item = tuple[str, tuple[str, ...]]
"""A question and the steps of one solution."""
Parts = list[list[int]]
"""Token ids of the question and of each step."""


class StepLayout(Protocol):
    """How a reward model wants questions and steps written."""

    @property
    def name(self) -> str:
        """What `--layout` calls it."""
        ...

    def encode(self, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[Parts]:
        """The parts of every item. Raises ModelError where the tokenizer does not fit the layout,
        such as one that merges a separator with the text beside it.
        """
        ...


def segment_parts(
    tokenizer: PreTrainedTokenizerBase,
    heads: Sequence[Sequence[str]],
    steps: Sequence[Sequence[Sequence[str]]],
) -> list[Parts]:
    """Segments of prompts and of each of their steps → parts. Every segment is encoded by itself,
    so the tokens of a prefix never depend on the text after it.
    """
    encoded = encode_many(tokenizer, heads)
    flat = iter(encode_many(tokenizer, [step for each in steps for step in each], bos=False))
    return [[head, *(next(flat) for _ in each)] for head, each in zip(encoded, steps, strict=True)]


def score_positions(parts: Parts) -> list[int]:
    """The position of each step's score: the last token of its part."""
    ends = itertools.accumulate(map(len, parts))
    next(ends)
    return [end - 1 for end in ends]


def token_ids(parts: Parts) -> list[int]:
    """The row that the model reads."""
    return [token for part in parts for token in part]
