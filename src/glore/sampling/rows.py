"""The running batch as arrays: which row belongs to which request, how far it is, and in which pages its text lies.

Each completion is one *row*: the pages of its prompt (shared, see `glore.sampling.tree`), then pages of its own.
Axes: R rows, E pages of a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glore.sampling.batch import Batch, Ints32
from glore.sampling.draw import DrawSettings
from glore.sampling.noise import uniforms
from glore.sampling.tree import PAGE_SIZE, Node, PageTree
from glore.sampling.waiting import Job

__all__ = ["Ints", "RowTable"]

Ints = npt.NDArray[np.int64]


class RowTable:
    """State of up to `max_rows` completions; vectorised, so that a step costs much the same Python for 1 row or 1,000."""

    def __init__(self, max_rows: int, tree: PageTree) -> None:
        self.max_rows = max_rows
        self.tree = tree
        self.jobs: list[Job | None] = [None] * max_rows
        self.leaves: list[Node | None] = [None] * max_rows
        self.seed_index = np.zeros(max_rows, np.int64)
        self.active = np.zeros(max_rows, bool)
        self.begun = np.zeros(max_rows, np.int64)
        """When the row began: the youngest gives way when pages run out."""
        self.seed = np.zeros(max_rows, np.uint64)
        self.n_drawn = np.zeros(max_rows, np.int64)
        self.max_new = np.ones(max_rows, np.int64)
        self.temperature = np.zeros(max_rows, np.float32)
        self.top_k = np.zeros(max_rows, np.int64)
        self.top_p = np.ones(max_rows, np.float32)
        self.stops = np.zeros(max_rows, bool)
        """Whether the row ends at a stop string."""
        self.tells = np.zeros(max_rows, bool)
        """Whether log-probabilities are wanted."""
        self.tokens = np.zeros((max_rows, 64), np.int64)
        self.logprobs = np.zeros((max_rows, 64), np.float32)
        self.prompt_length = np.zeros(max_rows, np.int32)
        self.prompt_pages = np.zeros(max_rows, np.int32)
        self.leaf_page = np.zeros(max_rows, np.int32)
        self.pages = np.zeros((max_rows, 16), np.int32)
        self._order: Ints | None = None
        self._clock = 0

    @property
    def n_active(self) -> int:
        """Rows that are being decoded."""
        return int(self.active.sum())

    def add(self, jobs: list[tuple[Job, int]]) -> Ints:
        """Begin one row for each (job, index of the seed). Returns the rows' slots, the lowest free ones."""
        slots = np.flatnonzero(~self.active)[: len(jobs)]
        for slot, (job, index) in zip(slots.tolist(), jobs, strict=True):
            params, leaf = job.request.params, job.leaf
            assert leaf is not None
            self.tree.refer(leaf)
            self.jobs[slot] = job
            self.seed_index[slot] = index
            self.seed[slot] = job.request.seeds[index]
            self.max_new[slot] = job.max_new
            self.temperature[slot], self.top_k[slot], self.top_p[slot] = params.temperature, params.top_k, params.top_p
            self.stops[slot], self.tells[slot] = bool(params.stop), params.logprobs
            n_pages = len(leaf.pages)
            self._widen(n_pages + 1)
            self.prompt_length[slot], self.prompt_pages[slot], self.leaf_page[slot] = leaf.end, n_pages, leaf.pages[-1]
            self.pages[slot, :n_pages] = leaf.pages
            self.leaves[slot] = leaf
        self.active[slots] = True
        self.n_drawn[slots] = 0
        self.begun[slots] = np.arange(self._clock, self._clock + len(jobs))
        self._clock += len(jobs)
        self._order = None
        return slots

    def draw_settings(self, slots: Ints) -> DrawSettings:
        """How to draw the next token of those rows."""
        return DrawSettings(self.temperature[slots], self.top_k[slots], self.top_p[slots])

    def noise(self, slots: Ints) -> npt.NDArray[np.float32]:
        """The uniform number of each row's next token."""
        return uniforms(self.seed[slots], self.n_drawn[slots])

    def append(self, slots: Ints, tokens: Ints) -> None:
        """One drawn token for each of those rows."""
        at = self.n_drawn[slots]
        if at.max() >= self.tokens.shape[1]:
            self.tokens = np.concatenate([self.tokens, np.zeros_like(self.tokens)], axis=1)
            self.logprobs = np.concatenate([self.logprobs, np.zeros_like(self.logprobs)], axis=1)
        self.tokens[slots, at] = tokens
        self.n_drawn[slots] = at + 1

    def note(self, slots: Ints, logprobs: npt.NDArray[np.float32]) -> None:
        """Log-probabilities of the tokens that were appended last."""
        self.logprobs[slots, self.n_drawn[slots] - 1] = logprobs

    def drawn(self, slot: int) -> list[int]:
        """The row's tokens so far."""
        tokens: list[int] = self.tokens[slot, : self.n_drawn[slot]].tolist()
        return tokens

    def told(self, slot: int) -> tuple[float, ...] | None:
        """Their log-probabilities, if wanted."""
        return tuple(self.logprobs[slot, : self.n_drawn[slot]].tolist()) if self.tells[slot] else None

    def drop(self, slots: Ints) -> None:
        """Those rows are finished or give way; their slots and pages are free."""
        for slot in slots.tolist():
            leaf = self.leaves[slot]
            assert leaf is not None
            n_own = -(-max(int(self.n_drawn[slot]) - 1, 0) // PAGE_SIZE)
            first = int(self.prompt_pages[slot])
            self.tree.give(self.pages[slot, first : first + n_own].tolist())
            self.tree.release(leaf)
            self.jobs[slot] = self.leaves[slot] = None
        self.active[slots] = False
        self._order = None

    def order(self) -> Ints:
        """The active rows, those that continue the same text next to each other."""
        if self._order is None:
            slots = np.flatnonzero(self.active)
            self._order = slots[np.argsort(self.leaf_page[slots], kind="stable")]
        return self._order

    def batch(self) -> Batch | None:
        """Decoding one token of every row, in `order`; none where there are too few pages (then nothing has changed)."""
        slots = self.order()
        at = self.n_drawn[slots] - 1
        offset = (at % PAGE_SIZE).astype(np.int32)
        last = self.prompt_pages[slots] + (at // PAGE_SIZE).astype(np.int32)
        positions = self.prompt_length[slots] + at.astype(np.int32)
        fresh = offset == 0
        if fresh.any():
            pages = self.tree.take(int(fresh.sum()))
            if pages is None:
                return None
            self._widen(int(last.max()) + 1)
            self.pages[slots[fresh], last[fresh]] = pages
            self.tree.fill[pages], self.tree.start[pages] = PAGE_SIZE, positions[fresh]
        n_pages: Ints32 = last + np.int32(1)
        table = self.pages[slots, : int(n_pages.max())]
        rows = np.arange(slots.size, dtype=np.int32)
        return Batch(
            tokens=self.tokens[slots, at].astype(np.int32),
            positions=positions,
            write_page=table[rows, last],
            write_offset=offset,
            chain=rows,
            n_pages=n_pages,
            n_last=offset + np.int32(1),
            table=np.ascontiguousarray(table),
            fill=self.tree.fill,
            start=self.tree.start,
            selected=rows,
            dependent=False,
        )

    def youngest(self, n: int) -> Ints:
        """The `n` rows that began last."""
        slots = np.flatnonzero(self.active)
        return slots[np.argsort(-self.begun[slots])[:n]]

    def _widen(self, n_pages: int) -> None:
        if n_pages > self.pages.shape[1]:
            more = np.zeros((self.max_rows, max(n_pages - self.pages.shape[1], self.pages.shape[1] // 2)), np.int32)
            self.pages = np.concatenate([self.pages, more], axis=1)
