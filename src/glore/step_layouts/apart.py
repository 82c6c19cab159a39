"""Layouts whose separators are encoded apart from the steps: ours, TRL's and Skywork's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glore.errors import ModelError, shown
from glore.prompts import PLAIN, STEP_END, PromptLayout
from glore.step_layouts.parts import Item, Parts, segment_parts
from glore.tokenization import bos_ids, encode_many

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["GloreLayout", "SkyworkLayout", "TrlLayout"]


@dataclasses.dataclass(frozen=True, slots=True)
class GloreLayout:
    """Ours: `Question: …\\nAnswer:\\n`, or a chat, then one segment a step with its end (method 2).

    Two-class token classification, 1 = good.
    """

    prompt: PromptLayout = PLAIN
    name: str = dataclasses.field(default="glore", init=False)

    def encode(self, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[Parts]:
        """As `StepLayout.encode`."""
        text = self.prompt.steps.text
        return segment_parts(
            tokenizer,
            [self.prompt.solve(question) for question, _ in items],
            [[(text(step),) for step in steps] for _, steps in items],
        )


@dataclasses.dataclass(frozen=True, slots=True)
class TrlLayout:
    """What TRL's PRMTrainer trained on: BOS if the tokenizer has one, the bare prompt, each step
    followed by the separator, each encoded by itself. Two-class token classification, 1 = good.

    Source: trl/trainer/prm_trainer.py of TRL 0.13 to 1.13 (`tokenize_row`).
    """

    separator: str = STEP_END
    name: str = dataclasses.field(default="trl", init=False)

    def encode(self, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[Parts]:
        """As `StepLayout.encode`."""
        _check_separator(tokenizer, self.separator)
        bos = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        heads = encode_many(tokenizer, [(question,) for question, _ in items], bos=False)
        parts = segment_parts(
            tokenizer,
            [()] * len(items),
            [[(step, self.separator) for step in steps] for _, steps in items],
        )
        return [[bos + head, *rest[1:]] for head, rest in zip(heads, parts, strict=True)]


@dataclasses.dataclass(frozen=True, slots=True)
class SkyworkLayout:
    """Skywork's: BOS and the question with a newline, then each line of a step followed by the last
    token of the separator. A value head, whose sigmoid is the score.

    A step of several lines is read at its last one. Source: SkyworkAI/skywork-o1-prm-inference
    (`prepare_input`).
    """

    separator: str = STEP_END
    name: str = dataclasses.field(default="skywork", init=False)

    def encode(self, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[Parts]:
        """As `StepLayout.encode`."""
        _check_separator(tokenizer, self.separator)
        end = encode_many(tokenizer, [(self.separator,)], bos=False)[0][-1:]
        bos = bos_ids(tokenizer) or (
            [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        )
        heads = encode_many(tokenizer, [(f"{question}\n",) for question, _ in items], bos=False)
        lines = [line for _, steps in items for step in steps for line in self._lines(step)]
        encoded = iter(encode_many(tokenizer, [(line,) for line in lines], bos=False))
        return [
            [
                bos + head,
                *(
                    [token for _ in self._lines(step) for token in (*next(encoded), *end)]
                    for step in steps
                ),
            ]
            for head, (_, steps) in zip(heads, items, strict=True)
        ]

    def _lines(self, step: str) -> list[str]:
        return step.split(self.separator)


def _check_separator(tokenizer: PreTrainedTokenizerBase, separator: str) -> None:
    if not separator or not encode_many(tokenizer, [(separator,)], bos=False)[0]:
        raise ModelError(
            f"the tokenizer {shown(str(tokenizer.name_or_path), 300)} has no token for the step "
            f"separator {shown(separator)}; set the separator that the model was trained with"
        )
