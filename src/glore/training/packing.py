"""Packs rows one after the other into batches of a fixed number of tokens.

This is for devices that are fast at one long row. In a batch, positions start again at each packed
row, and `packed_attention` keeps the rows apart by their bounds. Which rows share a batch depends
on (row lengths, seed) alone, as in `batches`.
Axes: T tokens of a batch, R rows in it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glore.training.batches import PADDING_MULTIPLE, WINDOW, BatchTargets, no_targets
from glore.training.examples import Row

__all__ = ["pack_rows", "plan_packed"]

Ints = npt.NDArray[np.int64]


def plan_packed(
    lengths: Sequence[int],
    budget: int,
    epochs: float,
    n_batches: int,
    seed: int,
    in_order: bool = False,
) -> list[tuple[int, ...]]:
    """Row indices of every batch of at most `budget` tokens, in order, for the whole training.

    The other arguments are those of `plan_batches`. Every row has at most `budget` tokens. Epochs
    may differ in their number of batches.
    """
    assert max(lengths) <= budget, "rows longer than the settings' max_length were left out"
    plan: list[tuple[int, ...]] = []
    epoch = 0
    while len(plan) < n_batches if n_batches else epoch < epochs:
        batches = _one_epoch(lengths, budget, np.random.default_rng([seed, epoch]), in_order)
        share = 1.0 if n_batches else min(1.0, epochs - epoch)
        plan.extend(batches[: max(1, math.ceil(round(len(batches) * share, 6)))])
        epoch += 1
    return plan[:n_batches] if n_batches else plan


def _one_epoch(
    lengths: Sequence[int], budget: int, rng: np.random.Generator, in_order: bool
) -> list[tuple[int, ...]]:
    order = np.arange(len(lengths)) if in_order else rng.permutation(len(lengths))
    per_window = max(1, int(WINDOW * budget / (sum(lengths) / len(lengths))))
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), per_window):
        filled = _fill([int(i) for i in order[start : start + per_window]], lengths, budget)
        batches.extend(filled[i] for i in rng.permutation(len(filled)))
    return batches if in_order else [batches[i] for i in rng.permutation(len(batches))]


def _fill(rows: Sequence[int], lengths: Sequence[int], budget: int) -> list[tuple[int, ...]]:
    """Best fit decreasing: the longest row first, each into the fullest batch that takes it."""
    batches: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, batch), ascending
    for row in sorted(rows, key=lambda i: -lengths[i]):
        at = bisect_left(room, (lengths[row], -1))
        if at == len(room):
            batches.append([row])
            insort(room, (budget - lengths[row], len(batches) - 1))
        else:
            left, batch = room.pop(at)
            batches[batch].append(row)
            insort(room, (left - lengths[row], batch))
    return [tuple(batch) for batch in batches]


def pack_rows(
    rows: Sequence[Row], pad_id: int, longest: int, width: int = 0
) -> tuple[Ints, BatchTargets, Ints, npt.NDArray[np.int32]]:
    """Ids, targets and positions (1, T), and the bounds (R + 1) of rows and padding.

    Padded to `width` tokens; 0: to a multiple of `PADDING_MULTIPLE`. The padding consists of rows
    that are not longer than `longest`, the length that the kernel expects at most. So the kernel
    computes all of it: what it left out could be NaN and spread to the gradients.
    """
    lengths = [len(row.ids) for row in rows]
    n_tokens = sum(lengths)
    width = width or math.ceil(n_tokens / PADDING_MULTIPLE) * PADDING_MULTIPLE
    assert n_tokens <= width, "a batch is planned to fit"
    padding = width - n_tokens
    lengths += [longest] * (padding // longest) + [padding % longest] * (padding % longest > 0)
    ids_1T = np.full((1, width), pad_id, dtype=np.int64)
    targets_1T = no_targets(rows, (1, width))
    ids_1T[0, :n_tokens] = np.concatenate([row.ids for row in rows])
    targets_1T[0, :n_tokens] = np.concatenate([row.targets for row in rows])
    positions_1T = np.concatenate([np.arange(n) for n in lengths])[None]
    return ids_1T, targets_1T, positions_1T, np.cumsum([0, *lengths]).astype(np.int32)
