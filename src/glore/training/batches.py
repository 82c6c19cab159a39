"""Which rows share a batch: (row lengths, seed) in, the plan of the whole training out.

Rows of similar length share a batch, so that little is padded. Each epoch shuffles all rows, sorts
windows of many batches by length, cuts batches, and shuffles the batches. Rows are padded on the
right and the model gets no attention mask: under causal attention no real token sees the padding,
and attention without a mask is faster. (Most implementations of attention would mix rows that are
packed into one sequence; see tests/parity/test_training_parity.py.) Axes: B rows of a batch, T
padded length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glore.training.examples import IGNORED, Row

__all__ = ["PADDING_MULTIPLE", "WINDOW", "BatchTargets", "no_targets", "pad_rows", "plan_batches"]

BatchTargets = npt.NDArray[np.int64] | npt.NDArray[np.float32]
"""Targets of a batch: classes, or probabilities of class 1 if a row of it has soft labels."""

WINDOW = 32
"""Batches whose rows are sorted by length together."""
PADDING_MULTIPLE = 8


def plan_batches(
    lengths: Sequence[int],
    batch_size: int,
    epochs: float,
    n_batches: int,
    seed: int,
    in_order: bool = False,
) -> list[tuple[int, ...]]:
    """Row indices of every batch, in order, for the whole training.

    `n_batches` > 0 is the exact number of batches; 0: as many as `epochs` need, a part of the last
    epoch's for a fraction. `in_order` keeps the rows' order from window to window (a curriculum).
    The result depends on the arguments alone.
    """
    per_epoch = math.ceil(len(lengths) / batch_size)
    wanted = n_batches or max(1, math.ceil(round(per_epoch * epochs, 6)))
    plan: list[tuple[int, ...]] = []
    epoch = 0
    while len(plan) < wanted:
        plan.extend(_one_epoch(lengths, batch_size, np.random.default_rng([seed, epoch]), in_order))
        epoch += 1
    return plan[:wanted]


def _one_epoch(
    lengths: Sequence[int], batch_size: int, rng: np.random.Generator, in_order: bool
) -> list[tuple[int, ...]]:
    order = np.arange(len(lengths)) if in_order else rng.permutation(len(lengths))
    of = np.asarray(lengths)
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), WINDOW * batch_size):
        window = order[start : start + WINDOW * batch_size]
        window = window[np.argsort(of[window], kind="stable")]
        cut = [
            tuple(int(i) for i in window[at : at + batch_size])
            for at in range(0, len(window), batch_size)
        ]
        batches.extend(cut[i] for i in rng.permutation(len(cut)))
    return batches if in_order else [batches[i] for i in rng.permutation(len(batches))]


def no_targets(rows: Sequence[Row], shape: tuple[int, int]) -> BatchTargets:
    """Targets of a batch of these rows, to be filled in: `IGNORED` everywhere."""
    if any(row.targets.dtype.kind == "f" for row in rows):
        return np.full(shape, IGNORED, dtype=np.float32)
    return np.full(shape, IGNORED, dtype=np.int64)


def pad_rows(rows: Sequence[Row], pad_id: int) -> tuple[npt.NDArray[np.int64], BatchTargets]:
    """Ids and targets of a batch, (B, T) each, padded on the right to a multiple of
    `PADDING_MULTIPLE`.
    """
    longest = max(len(row.ids) for row in rows)
    width = math.ceil(longest / PADDING_MULTIPLE) * PADDING_MULTIPLE
    ids_BT = np.full((len(rows), width), pad_id, dtype=np.int64)
    targets_BT = no_targets(rows, ids_BT.shape)
    for b, row in enumerate(rows):
        ids_BT[b, : len(row.ids)] = row.ids
        targets_BT[b, : len(row.targets)] = row.targets
    return ids_BT, targets_BT
