"""The batch of rows that are decoded together, step by step, and how requests enter and leave it."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from glore.errors import EngineError
from glore.sampling.batch import prompt_batches
from glore.sampling.draw import log_probs
from glore.sampling.rows import Ints, RowTable
from glore.sampling.runner import ModelRunner
from glore.sampling.stops import StopFinder
from glore.sampling.tree import Node, PageTree
from glore.sampling.waiting import Job, Waiting

__all__ = ["Stream"]

_PROMPT_TOKENS = 2048
"""Prompt tokens of one forward pass."""
_log = logging.getLogger(__name__)


class Stream:
    """Draws what `waiting` holds, which may grow meanwhile."""

    def __init__(
        self,
        runner: ModelRunner,
        waiting: Waiting,
        max_rows: int,
        n_pages: int,
        is_end: Callable[[Ints], npt.NDArray[np.bool_]],
        texts: Callable[[list[list[int]]], list[str]],
    ) -> None:
        self._runner, self._waiting = runner, waiting
        self._is_end, self._texts = is_end, texts
        self._stops = StopFinder(texts)
        self._n_pages, self._n_threads = n_pages, torch.get_num_threads()
        self._live: dict[Job, None] = {}
        """Requests that have begun and are not done."""
        self._begin(max_rows)

    def _begin(self, max_rows: int) -> None:
        self._store = self._runner.pages_for(self._n_pages)
        self.tree = PageTree(self._n_pages)
        self.rows = RowTable(max_rows, self.tree)
        self._partial: Job | None = None
        """A request some of whose seeds still wait for rows."""

    def run(self) -> Iterator[Job]:
        """Every request as it is done."""
        while self.rows.n_active or self._partial is not None or self._waiting:
            try:
                with _one_thread(self._runner.way == "native"):
                    done = self._step()
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                done = []
                self._shrink(error)
            yield from done

    def _step(self) -> list[Job]:
        """Let waiting requests in if there is room, else decode one token of every row. Returns the requests that are done."""
        n_active = self.rows.n_active
        n_free = self.rows.max_rows - n_active
        if n_free >= max(1, self.rows.max_rows // 16) and (self._partial is not None or self._waiting):
            begun, done = self._admit(n_free)
            if begun:
                return done + self._prompts(begun)
            if done or not n_active:
                return done
        return self._decode()

    def _admit(self, n_free: int) -> tuple[list[tuple[Job, int]], list[Job]]:
        """Seeds that get a row now, their prompts in the tree; and requests without seeds."""
        begun: list[tuple[Job, int]] = []
        done: list[Job] = []
        self._new: list[Node] = []
        while len(begun) < n_free:
            job = self._partial or self._waiting.pop()
            if job is None:
                break
            self._live[job] = None
            if not job.completions:
                done.append(job)
                del self._live[job]
                continue
            if job.leaf is None:
                # A page for every row's next tokens must remain, or the prompts would at once take them from each other.
                needed = len(job.chunks) + self.rows.n_active + len(begun) + 1
                found = self.tree.acquire(job.chunks) if self.tree.n_reachable >= needed or not (begun or self.rows.n_active) else None
                if found is None:
                    self._waiting.put_back(job)
                    break
                job.leaf = found[0]
                self._new.extend(found[1])
            n = min(len(job.pending), n_free - len(begun))
            begun.extend((job, job.pending.popleft()) for _ in range(n))
            self._partial = job if job.pending else None
        return begun, done

    def _prompts(self, begun: list[tuple[Job, int]]) -> list[Job]:
        """Read the new prompts and draw the first token of each new row. Returns the requests that are done."""
        jobs = list(dict.fromkeys(job for job, _ in begun))
        wanted = [leaf for job in jobs if job.logits is None and (leaf := job.leaf) is not None]
        logits: dict[Node, torch.Tensor] = {}
        for batch, nodes in prompt_batches(self.tree, self._new, wanted, _PROMPT_TOKENS):
            logits.update(zip(nodes, self._runner.forward(batch, self._store, self._n_threads), strict=True))
        for job in jobs:
            if job.logits is None and job.leaf is not None:
                job.logits = logits[job.leaf]
        logits_R = torch.stack([job.logits for job, _ in begun if job.logits is not None])
        slots = self.rows.add(begun)
        for job in jobs:
            if not job.pending:
                self._let_go(job)
        return self._advance(slots, logits_R)

    def _decode(self) -> list[Job]:
        rows = self.rows
        batch = rows.batch()
        while batch is None:
            self._give_way(rows.youngest(max(1, rows.n_active // 8)))
            batch = rows.batch()
        return self._advance(rows.order(), self._runner.forward(batch, self._store, self._n_threads))

    @torch.inference_mode()
    def _advance(self, slots: Ints, logits_RV: torch.Tensor) -> list[Job]:
        """Draw one token for each of the rows and take out those that end. Returns the requests that are done."""
        rows = self.rows
        chosen = self._runner.draw(logits_RV, rows.noise(slots), rows.draw_settings(slots))
        tokens = chosen.cpu().numpy()
        rows.append(slots, tokens)
        if (tells := rows.tells[slots]).any():
            wanted = torch.from_numpy(np.flatnonzero(tells)).to(logits_RV.device)
            rows.note(slots[tells], log_probs(logits_RV[wanted], chosen[wanted]).cpu().numpy())
        ended = self._is_end(tokens)
        stopped = self._stopped(slots[rows.stops[slots] & ~ended])
        over = ended | (rows.n_drawn[slots] >= rows.max_new[slots])
        if stopped:
            over |= np.isin(slots, list(stopped))
        if not over.any():
            return []
        places = slots[over].tolist()
        whole = [slot for slot in places if slot not in stopped]
        texts = stopped | dict(zip(whole, self._texts([rows.drawn(slot) for slot in whole]), strict=True))
        done = []
        for slot, by_end in zip(places, ended[over].tolist(), strict=True):
            job = rows.jobs[slot]
            assert job is not None
            stop = "stop" if slot in stopped else "eos" if by_end else "length"
            if job.finish(int(rows.seed_index[slot]), int(rows.n_drawn[slot]), texts[slot], stop, rows.told(slot)):
                done.append(job)
                del self._live[job]
        rows.drop(slots[over])
        return done

    def _stopped(self, slots: Ints) -> dict[int, str]:
        """Those of the rows whose text has come to its stop: slot → the text before it."""
        jobs = [(slot, job) for slot in slots.tolist() if (job := self.rows.jobs[slot]) is not None]
        found = self._stops.cut([(self.rows.drawn(slot), job.request.params.stop) for slot, job in jobs])
        return {slot: text for (slot, _), text in zip(jobs, found, strict=True) if text is not None}

    def _give_way(self, slots: Ints) -> None:
        """Take those rows out; their seeds are drawn again from the start when there is room."""
        if slots.size == self.rows.n_active == 1:
            raise EngineError("one completion needs more room for keys and values than there is; raise engine.max_rows")
        for slot in slots.tolist():
            job = self.rows.jobs[slot]
            assert job is not None
            waits = bool(job.pending)
            job.pending.append(int(self.rows.seed_index[slot]))
            if not waits:
                self._waiting.put_back(job)
        self.rows.drop(slots)

    def _let_go(self, job: Job) -> None:
        assert job.leaf is not None
        self.tree.release(job.leaf)
        job.leaf = job.logits = None

    def _shrink(self, error: BaseException) -> None:
        """Out of memory: begin again what was under way, half as many rows at a time."""
        n_rows = self.rows.max_rows // 2
        if n_rows < 1:
            raise EngineError("not enough memory for a single completion; use a smaller model or another machine") from error
        _log.warning("out of memory; going on with %d rows at a time", n_rows)
        under_way = list(self._live)
        self._live.clear()
        self._begin(n_rows)
        for job in under_way:
            job.leaf = job.logits = None
            job.pending = deque(i for i, c in enumerate(job.completions) if c is None)
            self._waiting.put_back(job)


@contextlib.contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """torch on one thread: its idle threads would spin on the cores that the compiled code uses."""
    n_threads = torch.get_num_threads()
    if not wanted or n_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
