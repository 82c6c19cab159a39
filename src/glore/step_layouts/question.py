"""A layout that also scores the bare question, before the first step.

The last token of the question becomes a part of its own, so it is scored like a step. The token ids
stay the same, and so do the scores of the steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glore.step_layouts.parts import Item, Parts, StepLayout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["QuestionScored"]


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionScored:
    """Another layout, with one score more, which comes first."""

    inner: StepLayout

    @property
    def name(self) -> str:
        return self.inner.name

    def encode(self, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[Parts]:
        """As `StepLayout.encode`, with the question in two parts."""
        found = self.inner.encode(tokenizer, items)
        assert all(len(head) > 1 for head, *_ in found), "a prompt has several tokens"
        return [[head[:-1], head[-1:], *steps] for head, *steps in found]
