"""Layouts whose text is encoded as a whole: Qwen's, Math-Shepherd's and RLHFlow's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glore.chat_template import dated_template
from glore.errors import ModelError, shown
from glore.step_layouts.joined import Piece, joined_parts
from glore.step_layouts.parts import Item, Parts
from glore.tokenization import bos_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["MathShepherdLayout", "QwenLayout", "RlhflowLayout", "sign_tokens"]

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
GOOD, BAD = "+", "-"
_WORDS = "words {} 9f3a6c of a turn"
_PROBE = "a < b & c, 'd' {{ e }}"


@dataclasses.dataclass(frozen=True, slots=True)
class QwenLayout:
    """Qwen2.5-Math-PRM's: a chat whose assistant turn has `separator` after each step. Two classes,
    read at the separator; 1 = good.

    Source: the model card of Qwen/Qwen2.5-Math-PRM-7B.
    """

    separator: str = "<extra_0>"
    system: str | None = QWEN_SYSTEM
    name: str = dataclasses.field(default="qwen", init=False)

    def encode(self, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[Parts]:
        """As `StepLayout.encode`."""
        ids = tokenizer(self.separator, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ModelError(
                f"the tokenizer {shown(str(tokenizer.name_or_path), 300)} has no single token "
                f"{shown(self.separator)}, at which this layout reads a step's score; give the "
                "tokenizer of the reward model, or name its layout"
            )
        system = [] if self.system is None else [("system", self.system)]
        roles = [*(role for role, _ in system), "user", "assistant"]
        texts = _rendered_pieces(tokenizer, roles)
        mark = Piece(self.separator, ends_part=True, last_token=frozenset(ids))
        rows = []
        for question, steps in items:
            said = [*(content for _, content in system), question]
            head = [*_filled(texts, said), Piece(texts[len(said)], ends_part=True, is_exact=False)]
            rows.append(head + [p for step in steps for p in (Piece(step, is_data=True), mark)])
        return joined_parts(tokenizer, rows)


@dataclasses.dataclass(frozen=True, slots=True)
class MathShepherdLayout:
    """Math-Shepherd's: the question, a space, then the steps, each with ` ки`, on lines of their
    own. A language model, whose logits of `+` and `-` are compared at the tag.

    `numbered`: write `Step 1: ` before a step that has no such number, as its training data has.
    Source: the model card of peiyi9979/math-shepherd-mistral-7b-prm.
    """

    separator: str = "ки"
    numbered: bool = False
    name: str = dataclasses.field(default="math_shepherd", init=False)

    def encode(self, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[Parts]:
        """As `StepLayout.encode`."""
        forms = (self.separator, f" {self.separator}")
        encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in forms]
        tags = frozenset(ids[-1] for ids in encoded if ids)
        mark = Piece(forms[1], ends_part=True, last_token=tags)
        rows = []
        for question, steps in items:
            row = [Piece(f"{question} ", is_data=True, ends_part=True, is_exact=False)]
            for n, step in enumerate(steps, start=1):
                row += [Piece("\n")] if n > 1 else []
                row += [Piece(self._numbered(step, n), is_data=True), mark]
            rows.append(row)
        return joined_parts(tokenizer, rows, bos_ids(tokenizer))

    def _numbered(self, step: str, n: int) -> str:
        given = step.startswith(f"Step {n}:")
        return f"Step {n}: {step}" if self.numbered and not given else step


@dataclasses.dataclass(frozen=True, slots=True)
class RlhflowLayout:
    """RLHFlow's: a chat in which each step is a turn of the user (the first after the question and
    a space) that the assistant answers with `+` or `-`. A language model, whose logits of the two
    are compared where it would answer. Turns are stripped.

    Source: RLHFlow/RLHF-Reward-Modeling (math-rm/prm_evaluate.py).
    """

    name: str = dataclasses.field(default="rlhflow", init=False)

    def encode(self, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[Parts]:
        """As `StepLayout.encode`."""
        good, _ = sign_tokens(tokenizer, self.name)
        templates = {
            n: _rendered_pieces(tokenizer, ["user", "assistant"] * n)
            for n in {len(steps) for _, steps in items}
            if n
        }
        rows = []
        for question, steps in items:
            row: list[Piece] = []
            texts = templates.get(len(steps), [])
            for k, step in enumerate(steps):
                words = (f"{question} {step}" if k == 0 else step).strip()
                before = (GOOD if k else "") + texts[2 * k]
                answer = Piece(texts[2 * k + 1], ends_part=True, next_token=good)
                row += [Piece(before), Piece(words, is_data=True), answer]
            rows.append([*row, Piece(GOOD)] if steps else [])
        return [[[], *found] for found in joined_parts(tokenizer, rows)]


def sign_tokens(tokenizer: PreTrainedTokenizerBase, layout: str) -> tuple[int, int]:
    """The tokens of `+` and `-` whose logits are compared in the layouts of language models.

    In Math-Shepherd's, they are those of the text `+ -`; in RLHFlow's, those of each sign alone.
    Raises ModelError where they aren't two tokens.
    """
    texts = [f"{GOOD} {BAD}"] if layout == "math_shepherd" else [GOOD, BAD]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    pair = ids[0] if len(texts) == 1 else [i for each in ids for i in each[-1:]]
    if len(pair) != 2 or pair[0] == pair[1]:
        raise ModelError(
            f"the tokenizer {shown(str(tokenizer.name_or_path), 300)} writes {GOOD} and {BAD} as "
            f"{len(pair)} tokens, and the layout {layout} compares one token of each; name the "
            "layout that the model was trained with"
        )
    return int(pair[0]), int(pair[1])


def _filled(texts: Sequence[str], said: Sequence[str]) -> list[Piece]:
    """The template's texts and the first words said, in turn."""
    return [
        piece
        for text, words in zip(texts, said, strict=False)
        for piece in (Piece(text), Piece(words, is_data=True))
    ]


def _rendered_pieces(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str]) -> list[str]:
    """The template's texts around the words of turns in these roles: one more than turns.

    Raises ModelError for a tokenizer without a chat template, and for a template that changes
    words.
    """
    marks = [_WORDS.format(n) for n in range(len(roles))]
    text = _rendered(tokenizer, roles, marks)
    pieces = []
    for mark in marks:
        before, found, text = text.partition(mark)
        pieces.append(before)
        if not found or mark in text:
            raise _unfit(tokenizer, "does not repeat the words of each turn once and in order")
    pieces.append(text)
    probes = [f"{_PROBE} {n}" for n in range(len(roles))]
    expected = "".join(a + b for a, b in zip(pieces, [*probes, ""], strict=True))
    if _rendered(tokenizer, roles, probes) != expected:
        raise _unfit(tokenizer, "changes the words of a turn, or writes other text around them")
    return pieces


def _rendered(
    tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], words: Sequence[str]
) -> str:
    if not tokenizer.chat_template:
        raise _unfit(tokenizer, "is missing")
    try:
        return str(
            tokenizer.apply_chat_template(
                [{"role": r, "content": w} for r, w in zip(roles, words, strict=True)],
                tokenize=False,
                chat_template=dated_template(tokenizer.get_chat_template()),
            )
        )
    except Exception as error:  # whatever a stranger's template raises
        raise _unfit(tokenizer, f"refuses the conversation ({shown(str(error), 80)})") from error


def _unfit(tokenizer: PreTrainedTokenizerBase, why: str) -> ModelError:
    return ModelError(
        f"the chat template of {shown(str(tokenizer.name_or_path), 300)} {why}, and this layout "
        "writes a solution as a chat; give the tokenizer of the reward model, or name its layout"
    )
