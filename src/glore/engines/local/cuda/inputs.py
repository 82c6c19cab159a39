"""What a forward pass reads besides weights and pages, in one buffer: a step copies it at once to
the GPU.

A *block* is a few consecutive queries that one program of the attention kernel handles; see
`glore.engines.local.cuda.kernels`. Axes: N queries, B blocks, C completions, S selected queries, W
table entries (all chains, one after another).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from glore.engines.local.batch import Batch, Ints32
from glore.engines.local.draw import Draws
from glore.engines.local.prefix_tree import PAGE_SIZE

__all__ = ["CODE", "Blocks", "Inputs", "Sizes", "chain_blocks", "row_blocks"]

CODE = 2 * PAGE_SIZE
"""A table entry is `page * CODE + tokens of the page`."""
_ALIGNED = 4
"""Every field begins at a multiple of so many numbers, 16 bytes. Triton compiles a kernel anew for
every pattern of pointers that are, and are not, such multiples.
"""
_QUERY_FIELDS = (
    "tokens",
    "positions",
    "write_page",
    "write_offset",
    "at",
    "n_pages",
    "n_last",
    "temperature",
)
_BLOCK_FIELDS = ("first", "length", "common")
_DRAW_FIELDS = ("row", "counts")


class Blocks(NamedTuple):
    """Consecutive queries [B]: the first, their number, and the pages with which their chains begin
    in common.
    """

    first: Ints32
    length: Ints32
    common: Ints32


def chain_blocks(batch: Batch, size: int) -> Blocks:
    """Blocks of at most `size` queries of one chain (the tokens of a page of a prompt)."""
    begins = np.flatnonzero(np.diff(batch.chain, prepend=-1))
    lengths = np.diff(begins, append=batch.chain.size)
    n_parts = -(-lengths // size)
    part = np.arange(n_parts.sum()) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    first = np.repeat(begins, n_parts) + part * size
    count = np.minimum(size, np.repeat(lengths, n_parts) - part * size)
    return Blocks(first.astype(np.int32), count.astype(np.int32), batch.n_pages[first])


def row_blocks(batch: Batch, size: int, n_rows: int) -> Blocks:
    """Blocks of `size` rows, up to `n_rows` rows. Those beyond the batch's have no pages."""
    first = np.arange(0, n_rows, size, dtype=np.int32)
    count = np.minimum(size, n_rows - first).astype(np.int32)
    if size == 1:
        return Blocks(first, count, np.zeros_like(first))
    n, width = batch.table.shape
    n_blocks = first.size
    table = np.zeros((n_blocks * size, width), np.int32)
    n_pages = np.zeros(n_blocks * size, np.int32)
    table[:n], n_pages[:n] = batch.table, batch.n_pages
    # A row that only fills its block must not hide what the others have in common.
    table[n:], n_pages[n:] = table[n - 1], n_pages[n - 1]
    by_block = table.reshape(n_blocks, size, width)
    least = n_pages.reshape(n_blocks, size).min(axis=1)
    same = (by_block == by_block[:, :1]).all(axis=1) & (np.arange(width) < least[:, None])
    common = np.cumprod(same, axis=1, dtype=np.int32).sum(axis=1, dtype=np.int32)
    return Blocks(first, count, np.where(first < n, common, np.int32(0)))


class Sizes(NamedTuple):
    """Room in the buffer."""

    n_queries: int
    n_blocks: int
    n_completions: int
    n_selected: int
    n_entries: int


@dataclasses.dataclass(slots=True)
class _Field:
    host: npt.NDArray[np.int32]
    device: torch.Tensor


class Inputs:
    """The buffer on the host (page-locked for a GPU) and on the device, with named fields."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.sizes = sizes
        lengths = {
            "seeds": 2 * sizes.n_completions,
            **dict.fromkeys(_QUERY_FIELDS, sizes.n_queries),
            **dict.fromkeys(_BLOCK_FIELDS, sizes.n_blocks),
            **dict.fromkeys(_DRAW_FIELDS, sizes.n_completions),
            "selected": sizes.n_selected,
            "table": sizes.n_entries,
            "starts": sizes.n_entries,
        }
        whole = [-(-length // _ALIGNED) * _ALIGNED for length in lengths.values()]
        begins = np.cumsum([0, *whole]).tolist()
        self._is_cuda = device.type == "cuda"
        self._host = torch.zeros(begins[-1], dtype=torch.int32, pin_memory=self._is_cuda)
        self._device = torch.zeros_like(self._host, device=device) if self._is_cuda else self._host
        host = self._host.numpy()
        self._begin = dict(zip(lengths, begins, strict=False))
        self._fields = {
            name: _Field(host[begin : begin + length], self._device[begin : begin + length])
            for (name, length), begin in zip(lengths.items(), begins, strict=False)
        }

    def __getitem__(self, name: str) -> torch.Tensor:
        """A field on the device, int32."""
        return self._fields[name].device

    @property
    def temperature(self) -> torch.Tensor:
        """[N] float32."""
        return self["temperature"].view(torch.float32)

    @property
    def seeds(self) -> torch.Tensor:
        """[C]: 64 bits each."""
        return self["seeds"].view(torch.int64)

    def fill(self, batch: Batch, blocks: Blocks, draws: Draws | None = None) -> None:
        """Write a batch into it and send it to the device.

        Queries beyond the batch's have no pages and write none.
        """
        n, width = batch.tokens.size, batch.table.shape[1]
        for name in ("tokens", "positions", "write_page", "write_offset", "n_pages", "n_last"):
            host = self._fields[name].host
            host[:n] = getattr(batch, name)
            host[n:] = -1 if name == "write_page" else 0
        at = self._fields["at"].host
        at[:n] = batch.chain * width
        at[n:] = 0
        for name, values in zip(_BLOCK_FIELDS, blocks, strict=True):
            self._fields[name].host[:] = values
        if self.sizes.n_selected:
            self._fields["selected"].host[:] = batch.selected
        if draws is not None:
            self._fill_draws(draws)
        n_entries = batch.table.size
        self._fields["table"].host[:n_entries] = (
            batch.table * CODE + batch.fill[batch.table]
        ).ravel()
        self._fields["starts"].host[:n_entries] = batch.start[batch.table].ravel()
        if self._is_cuda:
            for begin, end in (
                (0, self._begin["table"] + n_entries),
                (self._begin["starts"], self._begin["starts"] + n_entries),
            ):
                self._device[begin:end].copy_(self._host[begin:end], non_blocking=True)

    def fill_draws(self, draws: Draws) -> None:
        """Write only how to draw, and send it."""
        self._fill_draws(draws)
        if self._is_cuda:
            self._device.copy_(self._host, non_blocking=True)

    def _fill_draws(self, draws: Draws) -> None:
        n = draws.row.size
        self._fields["seeds"].host[: 2 * n] = draws.seeds.view(np.int32)
        self._fields["row"].host[:n] = draws.row
        self._fields["counts"].host[:n] = draws.counts
        temperature = self._fields["temperature"].host.view(np.float32)
        temperature[draws.row] = draws.settings.temperature
