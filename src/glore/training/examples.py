"""Training examples in, rows of token ids and targets out. No torch here.

A row's `targets` are at the positions whose logits are scored: next-token ids for a language model,
step labels for a step classifier, `IGNORED` elsewhere. So both have the same loss, and nothing is
shifted later. A soft label p is a target too: its loss is the cross entropy with (1 − p, p). Axes:
T tokens of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from glore.step_layouts.parts import (
    Parts,
    StepLayout,
    score_positions,
    segment_parts,
    token_ids,
)
from glore.tasks.protocol import Document
from glore.tokenization import encode_many

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "CHUNK",
    "IGNORED",
    "LMExample",
    "Row",
    "StepExample",
    "Targets",
    "TrainReport",
    "document_rows",
    "lm_rows",
    "merged_rows",
    "step_row",
    "step_rows",
    "step_rows_of",
]

IGNORED = -100
"""Target of a position that is not part of the loss (torch's convention)."""
CHUNK = 4096
"""Examples encoded per call of the tokenizer."""
Targets = npt.NDArray[np.int32] | npt.NDArray[np.float32]
"""Targets of a row: classes, or probabilities of class 1 if any label of the row is soft."""


@dataclasses.dataclass(frozen=True, slots=True)
class LMExample:
    """Text to learn: the loss is on the target and the end-of-text token after it; with an empty
    `prompt`, on everything.
    """

    prompt: tuple[str, ...]
    target: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class StepExample:
    """A solution with a label per step, the loss at the last token of each kept step (method 2).
    In a layout of another library, prompt and steps are the bare question and steps.
    """

    prompt: tuple[str, ...]
    steps: tuple[str, ...]
    """L step segments (`prompts.step_text`)."""
    labels: tuple[float, ...]
    """True or false, or the probability of a good step; 2 (`NEUTRAL_CLASS`): neutral, where the
    model has three classes.
    """
    kept: tuple[bool, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training did."""

    n_rows: int
    """Rows trained on; equal examples are one row."""
    n_dropped: int
    """Examples left out: longer than `max_length`, or without a single target."""
    n_tokens: int
    """Tokens trained on, all epochs together, padding not counted."""
    n_steps: int
    """Optimiser steps."""
    final_loss: float
    """Mean training loss of the last tenth of the steps (at least one)."""
    seconds: float
    """Wall time of this process; after a resume, of the rest only."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One training row: token ids and targets, (T,) each."""

    ids: npt.NDArray[np.int32]
    targets: Targets
    copies: int = 1
    """Number of equal examples: the row's weight in the loss."""

    @property
    def is_scored(self) -> bool:
        """Whether a position of it is part of the loss."""
        return bool((self.targets != IGNORED).any())


E_ = TypeVar("E_", LMExample, StepExample, Document)


def lm_rows(
    tokenizer: PreTrainedTokenizerBase, examples: Iterable[LMExample], max_length: int
) -> tuple[list[Row], int]:
    """Rows of language-model examples, and the number left out as too long or empty."""
    eos = int(tokenizer.eos_token_id)

    def encode(chunk: list[LMExample]) -> list[Row]:
        prompts = encode_many(tokenizer, [e.prompt for e in chunk])
        targets = encode_many(tokenizer, [e.target for e in chunk], bos=False)
        return [
            _lm_row([(prompt, not example.prompt), ([*target, eos], True)])
            for example, prompt, target in zip(chunk, prompts, targets, strict=True)
        ]

    return _rows(examples, encode, max_length)


def document_rows(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], max_length: int
) -> tuple[list[Row], int]:
    """Rows of base documents, and the number left out as too long.

    Every document ends in the end-of-text token.
    """
    eos = int(tokenizer.eos_token_id)

    def encode(chunk: list[Document]) -> list[Row]:
        flat = iter(
            encode_many(
                tokenizer, [(text,) for document in chunk for text, _ in document], bos=False
            )
        )
        return [
            _lm_row([*((next(flat), learnt) for _, learnt in document), ([eos], True)])
            for document in chunk
        ]

    return _rows(documents, encode, max_length)


def _lm_row(pieces: Sequence[tuple[list[int], bool]]) -> Row:
    ids_T = np.array([token for tokens, _ in pieces for token in tokens], dtype=np.int32)
    learnt_T = np.array([flag for tokens, flag in pieces for _ in tokens], dtype=bool)
    targets_T = np.full_like(ids_T, IGNORED)
    targets_T[:-1] = np.where(learnt_T[1:], ids_T[1:], IGNORED)
    return Row(ids_T, targets_T)


def step_rows(
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[StepExample],
    max_length: int,
    layout: StepLayout | None = None,
) -> tuple[list[Row], int]:
    """Rows of step examples, and the number left out as too long or without a kept step. `layout`:
    as in `step_rows_of`.
    """

    def encode(chunk: list[StepExample]) -> list[Row]:
        return step_rows_of(tokenizer, chunk, layout)

    return _rows(examples, encode, max_length)


def step_rows_of(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[StepExample],
    layout: StepLayout | None = None,
) -> list[Row]:
    """The row of each step example, however long. `layout`: of another library, which writes bare
    questions and steps; none: they are segments as they are. Raises ModelError for a tokenizer that
    does not fit the layout.
    """
    if layout is not None:
        parts = layout.encode(tokenizer, [("".join(e.prompt), e.steps) for e in examples])
    else:
        parts = segment_parts(
            tokenizer, [e.prompt for e in examples], [[(s,) for s in e.steps] for e in examples]
        )
    return [
        step_row(found, example.labels, example.kept)
        for example, found in zip(examples, parts, strict=True)
    ]


def step_row(parts: Parts, labels: Sequence[float], kept: Sequence[bool]) -> Row:
    """The row of one solution in any layout: the label of a kept step is the target where its score
    is read. The targets are classes unless a kept label is between 0 and 1.
    """
    places = score_positions(parts)
    assert len(places) == len(labels) == len(kept), "one label and one flag per step"
    ids_T = np.array(token_ids(parts), dtype=np.int32)
    is_soft = any(k and 0 < label < 1 for label, k in zip(labels, kept, strict=True))
    targets_T: Targets = np.full_like(ids_T, IGNORED)
    if is_soft:
        targets_T = targets_T.astype(np.float32)
    for part, place, label, is_kept in zip(parts[1:], places, labels, kept, strict=True):
        if is_kept and part:
            targets_T[place] = label
    return Row(ids_T, targets_T)


def _rows(
    examples: Iterable[E_], encode: Callable[[list[E_]], list[Row]], max_length: int
) -> tuple[list[Row], int]:
    rows: list[Row] = []
    n_dropped = 0
    todo = list(examples)
    for start in range(0, len(todo), CHUNK):
        for row in encode(todo[start : start + CHUNK]):
            if len(row.ids) <= max_length and row.is_scored:
                rows.append(row)
            else:
                n_dropped += 1
    return rows, n_dropped


def merged_rows(rows: Sequence[Row], together: int = 1) -> list[Row]:
    """Merge equal rows into one with its number of copies, in the place of the first. `together`:
    rows that stay one after the other (2: pairs, which are merged where both are equal).

    Samples of one question repeat each other (45 of 100 in the quickstart). The mean gradient stays
    the same, and each text is computed once.
    """
    merged: dict[tuple[bytes, ...], list[Row]] = {}
    for start in range(0, len(rows), together):
        group = rows[start : start + together]
        key = tuple(part for row in group for part in (row.ids.tobytes(), row.targets.tobytes()))
        before = merged.get(key)
        merged[key] = (
            list(group)
            if before is None
            else [
                dataclasses.replace(b, copies=b.copies + row.copies)
                for b, row in zip(before, group, strict=True)
            ]
        )
    return [row for group in merged.values() for row in group]
