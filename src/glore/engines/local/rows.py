"""The running batch as arrays: each completion's request, tokens and pages.

Each completion has a *slot*. Completions of the same prompt that have drawn the same tokens so far
are one *row*: the model reads their text once, in the slot of their *leader*, and each draws its
next token with its own seed. They fork when they draw different tokens. A model that is sure of
most tokens, as students are, so reads most of K siblings' text once. A row has the pages of its
prompt (shared, see `glore.engines.local.prefix_tree`), then own pages. Rows that fork share the own
pages that are full by then, and the last one is copied.
Axes: C completions, R rows, E pages of a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from glore.engines.local.batch import Batch, Ints32
from glore.engines.local.draw import Draws, DrawSettings
from glore.engines.local.prefix_tree import PAGE_SIZE, Node, PrefixTree
from glore.engines.local.queue import LocalJob
from glore.engines.protocol import SamplingParams

__all__ = ["Ints", "RowTable"]

Ints = npt.NDArray[np.int64]
CopyPages = Callable[[list[int], list[int]], None]
"""Copies keys and values of pages to other pages."""

_SLOTS_PER_ROW = 4
"""Completions that may share a row, on average."""
_REMEMBERED = 4096
"""Finished completions, about, by which the rows that new ones need are estimated."""


class RowTable:
    """State of up to `max_rows` rows and their completions.

    It is vectorised: a step costs much the same Python for 1 row or 1,000.
    """

    def __init__(self, max_rows: int, tree: PrefixTree) -> None:
        self.max_rows = max_rows
        self.tree = tree
        n_slots = _SLOTS_PER_ROW * max_rows
        self.jobs: list[LocalJob | None] = [None] * n_slots
        self.leaves: list[Node | None] = [None] * n_slots
        self.seed_index = np.zeros(n_slots, np.int64)
        self.active = np.zeros(n_slots, bool)
        self.leader = np.arange(n_slots)
        """The slot of the leader whose row this completion shares; its own if it is one."""
        self.began = np.zeros(n_slots, np.int64)
        """When the completion began: the youngest rows are preempted when pages run out."""
        self.seed = np.zeros(n_slots, np.uint64)
        self.n_drawn = np.zeros(n_slots, np.int64)
        self.max_new = np.ones(n_slots, np.int64)
        self.temperature = np.zeros(n_slots, np.float32)
        self.top_k = np.zeros(n_slots, np.int64)
        self.top_p = np.ones(n_slots, np.float32)
        self.stops = np.zeros(n_slots, bool)
        """Whether the completion ends at a stop string."""
        self.wants_logprobs = np.zeros(n_slots, bool)
        """Whether log-probabilities are wanted."""
        self.tokens = np.zeros((n_slots, 64), np.int64)
        self.logprobs = np.zeros((n_slots, 64), np.float32)
        self.prompt_length = np.zeros(n_slots, np.int32)
        self.prompt_pages = np.zeros(n_slots, np.int32)
        self.leaf_page = np.zeros(n_slots, np.int32)
        self.pages = np.zeros((n_slots, 16), np.int32)
        """[C, E]: kept for leaders."""
        self._holders = np.zeros(tree.n_pages, np.int32)
        """[pages]: rows that hold this own page."""
        self._order: tuple[Ints, Ints, Ints] | None = None
        self._clock = 0
        self._n_ended, self._n_rows_ended = float(max_rows), float(max_rows)

    @property
    def n_active(self) -> int:
        """Completions in progress."""
        return self.order()[1].size

    @property
    def n_rows(self) -> int:
        """Rows that are being decoded."""
        return self.order()[0].size

    @property
    def room(self) -> int:
        """How many completions may begin, so that they and those in progress need about `max_rows`
        rows.

        As many as there are free rows, until finished completions show how many share a row.
        """
        share = max(self._n_rows_ended / self._n_ended, 1 / _SLOTS_PER_ROW)
        n_active = self.n_active
        n_free = self.max_rows - max(self.n_rows, share * n_active)
        return min(self.active.size - n_active, int(n_free / share))

    def add(self, jobs: list[tuple[LocalJob, int]]) -> Ints:
        """Begin a completion for each (job, index of the seed).

        Returns their slots, the lowest free ones.
        """
        slots = np.flatnonzero(~self.active)[: len(jobs)]
        leaders: dict[tuple[Node, SamplingParams, int], int] = {}
        for slot, (job, index) in zip(slots.tolist(), jobs, strict=True):
            params, leaf = job.request.params, job.leaf
            assert leaf is not None
            self.tree.hold(leaf)
            self.jobs[slot] = job
            self.leader[slot] = leaders.setdefault((leaf, params, job.max_new), slot)
            self.seed_index[slot] = index
            self.seed[slot] = job.request.seeds[index]
            self.max_new[slot] = job.max_new
            self.temperature[slot], self.top_k[slot], self.top_p[slot] = (
                params.temperature,
                params.top_k,
                params.top_p,
            )
            self.stops[slot], self.wants_logprobs[slot] = bool(params.stop), params.logprobs
            n_pages = len(leaf.pages)
            self._widen(n_pages + 1)
            self.prompt_length[slot], self.prompt_pages[slot], self.leaf_page[slot] = (
                leaf.end,
                n_pages,
                leaf.pages[-1],
            )
            self.pages[slot, :n_pages] = leaf.pages
            self.leaves[slot] = leaf
        self.active[slots] = True
        self.n_drawn[slots] = 0
        self.began[slots] = np.arange(self._clock, self._clock + len(jobs))
        self._clock += len(jobs)
        self._order = None
        return slots

    def draws(self, slots: Ints, row: Ints) -> Draws:
        """How the completions `slots` draw their next token, each from its `row` of logits."""
        how = DrawSettings(self.temperature[slots], self.top_k[slots], self.top_p[slots])
        return Draws(row, self.seed[slots], self.n_drawn[slots], how)

    def append(self, slots: Ints, tokens: Ints) -> None:
        """Append one drawn token to each of those completions."""
        at = self.n_drawn[slots]
        if at.max() >= self.tokens.shape[1]:
            self.tokens = np.concatenate([self.tokens, np.zeros_like(self.tokens)], axis=1)
            self.logprobs = np.concatenate([self.logprobs, np.zeros_like(self.logprobs)], axis=1)
        self.tokens[slots, at] = tokens
        self.n_drawn[slots] = at + 1

    def set_logprobs(self, slots: Ints, logprobs: npt.NDArray[np.float32]) -> None:
        """Store the log-probabilities of the tokens that were appended last."""
        self.logprobs[slots, self.n_drawn[slots] - 1] = logprobs

    def tokens_of(self, slot: int) -> list[int]:
        """The completion's tokens so far."""
        tokens: list[int] = self.tokens[slot, : self.n_drawn[slot]].tolist()
        return tokens

    def logprobs_of(self, slot: int) -> tuple[float, ...] | None:
        """The log-probabilities of its tokens; none where they are not wanted."""
        return (
            tuple(self.logprobs[slot, : self.n_drawn[slot]].tolist())
            if self.wants_logprobs[slot]
            else None
        )

    def text_keys(self, slots: Ints) -> list[tuple[int, int]]:
        """A key for each of those completions: equal keys have drawn equal tokens."""
        return list(
            zip(self.leader[slots].tolist(), self._last_tokens(slots).tolist(), strict=True)
        )

    def drop(self, slots: Ints) -> None:
        """Free the slots of completions that are finished or preempted, and the pages of rows that
        no completion shares any more.
        """
        for slot in slots.tolist():
            leaf = self.leaves[slot]
            assert leaf is not None
            self.tree.release(leaf)
            self.jobs[slot] = self.leaves[slot] = None
        self.active[slots] = False
        leaders = slots[self.leader[slots] == slots]
        has_followers = np.zeros(self.active.size, bool)
        has_followers[self.leader[self.active]] = True
        without_followers = leaders[~has_followers[leaders]]
        for slot in leaders[has_followers[leaders]].tolist():
            followers = np.flatnonzero(self.active & (self.leader == slot))
            self.pages[followers[0]] = self.pages[slot]
            self.leader[followers] = followers[0]
        for slot in without_followers.tolist():
            pages = self._own_pages(slot)
            self._holders[pages] -= 1
            self.tree.free(pages[self._holders[pages] == 0].tolist())
        self.leader[slots] = slots
        self._n_ended += slots.size
        self._n_rows_ended += without_followers.size
        if self._n_ended > _REMEMBERED:
            self._n_ended, self._n_rows_ended = self._n_ended / 2, self._n_rows_ended / 2
        self._order = None

    def fork(self, copy: CopyPages) -> Ints:
        """Give completions whose last token is not their row's a row of their own.

        `copy` copies pages. Returns the completions for which there is no room: preempt them.
        """
        leaders, slots, _ = self.order()
        if slots.size == leaders.size:
            return slots[:0]
        sharers = slots[self.leader[slots] != slots]
        apart = sharers[self._last_tokens(sharers) != self._last_tokens(self.leader[sharers])]
        if not apart.size:
            return apart
        by_text: dict[tuple[int, int], list[int]] = {}
        for slot, key in zip(apart.tolist(), self.text_keys(apart), strict=True):
            by_text.setdefault(key, []).append(slot)
        n_rows, without_row, sources, targets = self.n_rows, [], [], []
        for (leader, _), (first, *others) in by_text.items():
            own, n_whole = self._own_pages(leader), (int(self.n_drawn[leader]) - 1) // PAGE_SIZE
            begun = own[n_whole:]
            new = self.tree.allocate(begun.size) if n_rows < self.max_rows else None
            if new is None:
                without_row += [first, *others]
                # Counts the row it would have been. Otherwise, the more rows are lacking, the
                # fewer would seem to be needed.
                self._n_rows_ended += 1
                continue
            n_rows += 1
            self.pages[first] = self.pages[leader]
            self._holders[own[:n_whole]] += 1
            for source, target in zip(begun.tolist(), new, strict=True):  # one or none
                self.pages[first, int(self.prompt_pages[first]) + n_whole] = target
                self._holders[target] = 1
                self.tree.fill[target], self.tree.start[target] = (
                    self.tree.fill[source],
                    self.tree.start[source],
                )
                sources.append(source)
                targets.append(target)
            self.leader[[first, *others]] = first
        if targets:
            copy(sources, targets)
        self._order = None
        return np.array(without_row, np.int64)

    def order(self) -> tuple[Ints, Ints, Ints]:
        """The leaders' slots, those that continue the same text next to each other; all active
        slots, row by row; and each one's row, as an index into the leaders.
        """
        if self._order is None:
            slots = np.flatnonzero(self.active)
            leaders = slots[self.leader[slots] == slots]
            first_own = self.pages[leaders, self.prompt_pages[leaders]]
            leaders = leaders[np.lexsort((first_own, self.leaf_page[leaders]))]
            place = np.empty(self.active.size, np.int64)
            place[leaders] = np.arange(leaders.size)
            row = place[self.leader[slots]]
            by_row = np.argsort(row, kind="stable")
            self._order = leaders, slots[by_row], row[by_row]
        return self._order

    def batch(self) -> Batch | None:
        """A batch that reads the last token of every row, in `order`.

        None where there are too few pages; then nothing has changed.
        """
        slots = self.order()[0]
        at = self.n_drawn[slots] - 1
        offset = (at % PAGE_SIZE).astype(np.int32)
        last = self.prompt_pages[slots] + (at // PAGE_SIZE).astype(np.int32)
        positions = self.prompt_length[slots] + at.astype(np.int32)
        fresh = offset == 0
        if fresh.any():
            pages = self.tree.allocate(int(fresh.sum()))
            if pages is None:
                return None
            self._widen(int(last.max()) + 1)
            self.pages[slots[fresh], last[fresh]] = pages
            self._holders[pages] = 1
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
            n_prompt=self.prompt_pages[slots],
            table=np.ascontiguousarray(table),
            fill=self.tree.fill,
            start=self.tree.start,
            selected=rows,
            dependent=False,
        )

    def youngest(self, n: int) -> Ints:
        """The completions of the `n` rows that began last."""
        leaders = self.order()[0]
        chosen = leaders[np.argsort(-self.began[leaders])[:n]]
        return np.flatnonzero(self.active & np.isin(self.leader, chosen))

    def _last_tokens(self, slots: Ints) -> Ints:
        tokens: Ints = self.tokens[slots, self.n_drawn[slots] - 1]
        return tokens

    def _own_pages(self, slot: int) -> Ints32:
        """Pages of a row's own tokens whose keys and values are stored: all but the last."""
        first, n_stored = int(self.prompt_pages[slot]), max(int(self.n_drawn[slot]) - 1, 0)
        return self.pages[slot, first : first + -(-n_stored // PAGE_SIZE)]

    def _widen(self, n_pages: int) -> None:
        if n_pages > self.pages.shape[1]:
            more = np.zeros(
                (self.active.size, max(n_pages - self.pages.shape[1], self.pages.shape[1] // 2)),
                np.int32,
            )
            self.pages = np.concatenate([self.pages, more], axis=1)
