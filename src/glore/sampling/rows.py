"""The running batch as arrays: which row belongs to which request, how far it is, and where its prompt lies.

A request's prompt is one *node*; each of its completions is one *row*. Slots of finished rows stay until new ones take
them (or until `compact`), so that keys and values need not move while there is work waiting.
Axes: R rows up to the highest one in use, P nodes likewise, G rows of a node, T tokens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from glore.sampling.attention import Decode, KeyValueStore
from glore.sampling.draw import DrawSettings
from glore.sampling.noise import uniforms
from glore.sampling.waiting import Job

__all__ = ["Ints", "RowTable"]

Ints = npt.NDArray[np.int64]


class RowTable:
    """State of up to `max_rows` completions; vectorised, so that a step costs the same Python for 1 row or 1,000."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.jobs: list[Job | None] = [None] * max_rows
        self.seed_index = np.zeros(max_rows, np.int64)
        self.node = np.full(max_rows, -1, np.int64)
        self.seed = np.zeros(max_rows, np.uint64)
        self.n_drawn = np.ones(max_rows, np.int64)
        self.prompt_length = np.ones(max_rows, np.int64)
        self.max_new = np.ones(max_rows, np.int64)
        self.temperature = np.zeros(max_rows, np.float32)
        self.top_k = np.zeros(max_rows, np.int64)
        self.top_p = np.ones(max_rows, np.float32)
        self.tokens = np.zeros((max_rows, 64), np.int64)
        self._layout: tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool] | None = None

    @property
    def n_active(self) -> int:
        """Rows that are being decoded."""
        return int((self.node >= 0).sum())

    @property
    def n_slots(self) -> int:
        """R: one more than the highest row in use."""
        used = np.flatnonzero(self.node >= 0)
        return int(used[-1]) + 1 if used.size else 0

    def free_nodes(self, n: int, also_taken: list[int]) -> list[int]:
        """The `n` lowest node slots that no row uses."""
        taken = np.zeros(2 * self.max_rows + n + 1, bool)
        taken[self.node[self.node >= 0]] = True
        taken[also_taken] = True
        return [int(i) for i in np.flatnonzero(~taken)[:n]]

    def add(self, jobs: list[tuple[Job, int]]) -> Ints:
        """Begin one row for each (job, index of the seed). Returns the rows' slots, the lowest free ones."""
        slots = np.flatnonzero(self.node < 0)[: len(jobs)]
        for slot, (job, index) in zip(slots.tolist(), jobs, strict=True):
            params = job.request.params
            self.jobs[slot] = job
            self.seed_index[slot] = index
            self.node[slot] = job.node
            self.seed[slot] = job.request.seeds[index]
            self.n_drawn[slot] = 0
            self.prompt_length[slot] = len(job.tokens)
            self.max_new[slot] = job.max_new
            self.temperature[slot], self.top_k[slot], self.top_p[slot] = params.temperature, params.top_k, params.top_p
        self._layout = None
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
        self.tokens[slots, at] = tokens
        self.n_drawn[slots] = at + 1

    def drop(self, slots: Ints) -> None:
        """Those rows are finished; their slots are free."""
        self.node[slots] = -1
        for slot in slots.tolist():
            self.jobs[slot] = None
        self._layout = None

    def last_tokens(self, n_rows: int) -> Ints:
        """The last drawn token of the first `n_rows` rows."""
        slots = np.arange(n_rows)
        return self.tokens[slots, np.maximum(self.n_drawn[:n_rows] - 1, 0)]

    def positions(self, n_rows: int) -> Ints:
        """Where that token stands in its text (0-based)."""
        return self.prompt_length[:n_rows] + np.maximum(self.n_drawn[:n_rows] - 1, 0)

    def batch(self, store: KeyValueStore, device: torch.device) -> Decode:
        """What attention needs to know for decoding one token of every row."""
        n_rows = self.n_slots
        live = self.node[:n_rows] >= 0
        if self._layout is None:
            self._layout = self._grid(n_rows, device)
        grid, node, place, one_to_one = self._layout
        length = np.where(live, self.prompt_length[:n_rows], 1)
        own = np.where(live, np.maximum(self.n_drawn[:n_rows], 1), 1)
        store.reserve(n_rows if one_to_one else 0, 0, int(own.max()))
        return Decode(
            store,
            grid,
            node,
            place,
            write=torch.from_numpy(own - 1).to(device),
            rows=torch.arange(n_rows, device=device),
            node_length=torch.from_numpy(length).to(device),
            own_length=torch.from_numpy(own).to(device),
            n_node_tokens=int(length.max()),
            n_own_tokens=int(own.max()),
            one_to_one=one_to_one,
        )

    def _grid(self, n_rows: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
        node = self.node[:n_rows]
        live = np.flatnonzero(node >= 0)
        order = live[np.argsort(node[live], kind="stable")]
        counts = np.bincount(node[order])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        place_of_ordered = np.arange(order.size) - starts[node[order]]
        grid = np.zeros((counts.size, int(counts.max())), np.int64)
        grid[node[order], place_of_ordered] = order
        place = np.zeros(n_rows, np.int64)
        place[order] = place_of_ordered
        one_to_one = bool((node[live] == live).all())
        arrays = (grid, np.maximum(node, 0), place)
        grid_PG, node_R, place_R = (torch.from_numpy(a).to(device) for a in arrays)
        return grid_PG, node_R, place_R, one_to_one

    def compact(self, store: KeyValueStore, kept_nodes: list[int]) -> None:
        """Move the highest rows and nodes into free slots, so that fewer are computed; for when nothing waits.

        `kept_nodes`: nodes in use although no row has them now.
        """
        used = np.flatnonzero(self.node >= 0)
        if used.size <= 0.75 * self.n_slots:
            source, target = _moves(used)
            store.move("row", torch.from_numpy(source), torch.from_numpy(target))
            for name in ("seed_index", "node", "seed", "n_drawn", "prompt_length", "max_new", "temperature", "top_k", "top_p", "tokens"):
                array = getattr(self, name)
                array[target] = array[source]
            for s, t in zip(source.tolist(), target.tolist(), strict=True):
                self.jobs[t], self.jobs[s] = self.jobs[s], None
            self.node[source] = -1
            self._layout = None
        nodes = np.unique(self.node[self.node >= 0])
        if not kept_nodes and nodes.size and nodes.size <= 0.75 * (nodes[-1] + 1):
            source, target = _moves(nodes)
            store.move("node", torch.from_numpy(source), torch.from_numpy(target))
            renamed = np.arange(int(nodes[-1]) + 1)
            renamed[source] = target
            live = self.node >= 0
            self.node[live] = renamed[self.node[live]]
            for slot in np.flatnonzero(live).tolist():
                job = self.jobs[slot]
                if job is not None:
                    job.node = int(self.node[slot])
            self._layout = None


def _moves(used: Ints) -> tuple[Ints, Ints]:
    """Which of the `used` slots (ascending) go where, so that they lie in the first `len(used)` slots."""
    n = used.size
    holes = np.setdiff1d(np.arange(n), used)
    return used[used >= n], holes
