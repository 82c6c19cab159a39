"""The batch of rows that are decoded together, step by step, and how requests enter and leave it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from glore.engines.local.batch import prompt_batches
from glore.engines.local.draw import Drawn, log_probs
from glore.engines.local.prefix_tree import PAGE_SIZE, Node, PageTree
from glore.engines.local.queue import Job, Waiting
from glore.engines.local.rows import Ints, RowTable
from glore.engines.local.runner import ModelRunner
from glore.engines.local.stops import StopFinder
from glore.errors import EngineError, out_of_memory

__all__ = ["Stream"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class _Ended:
    """A completion that has come to its end."""

    job: Job
    index: int
    """Of its seed."""
    key: tuple[int, int]
    """Equal keys have drawn equal tokens."""
    tokens: list[int]
    text: str | None
    """Where a stop has cut it."""
    stop: str
    logprobs: tuple[float, ...] | None


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
        self._prompt_tokens, self._n_threads = runner.pass_tokens, torch.get_num_threads()
        self._live: dict[Job, None] = {}
        """Requests that have begun and are not done."""
        self._done: list[Job] = []
        """Requests to be handed out; what is done stays so when memory runs out."""
        self._ended: list[_Ended] = []
        """Completions that have ended and are not in their requests yet."""
        self._begin(max_rows, n_pages)

    def _begin(self, max_rows: int, n_pages: int) -> None:
        self._store = self._runner.pages_for(n_pages)
        self.tree = PageTree(n_pages)
        self.rows = RowTable(max_rows, self.tree)
        self._partial: Job | None = None
        """A request some of whose seeds still wait for rows."""

    def run(self) -> Iterator[Job]:
        """Every request as it is done."""
        while self.rows.n_active or self._ended or self._partial is not None or self._waiting:
            if self._has_room:
                # Here and not on the way: what the source raises is its own, even if it ran out of
                # memory.
                self._waiting.refill()
            try:
                with _one_thread(self._runner.way == "native"):
                    self._step()
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._shrink(error)
            done, self._done = self._done, []
            yield from done

    @property
    def _has_room(self) -> bool:
        """Whether enough rows are free to let requests in."""
        return self.rows.room >= max(1, self.rows.max_rows // 16)

    def _step(self) -> None:
        """Let waiting requests in if there is room, else decode one token of every row."""
        if not self.rows.n_active:
            self._settle()
        if self._has_room:
            begun = self._admit(self.rows.room)
            if begun:
                self._prompts(begun)
                return
            if self._done or not self.rows.n_active:
                return
        self._decode()

    def _admit(self, n_free: int) -> list[tuple[Job, int]]:
        """Seeds that get a row now, their prompts in the tree. Requests that need none are done."""
        begun: list[tuple[Job, int]] = []
        self._new: list[Node] = []
        while len(begun) < n_free:
            job = self._partial or self._waiting.pop()
            if job is None:
                break
            self._live[job] = None
            if job.is_done:
                self._over(job)
                continue
            if job.leaf is None:
                is_alone = not (begun or self.rows.n_active)
                if is_alone and job.n_pages > self.tree.n_pages:
                    # There was room at the start; if there is no longer, `_shrink` says so.
                    self._begin(self.rows.max_rows, job.n_pages)
                # A page for every row's next tokens must remain, or the prompts would at once take
                # them from each other.
                needed = len(job.chunks) + self.rows.n_active + len(begun) + 1
                fits = is_alone or (
                    self.tree.n_reachable >= needed and job.n_pages <= self.tree.n_pages
                )
                found = self.tree.acquire(job.chunks) if fits else None
                if found is None:
                    self._waiting.put_back(job)
                    break
                job.leaf = found[0]
                self._new.extend(found[1])
            n = min(len(job.pending), n_free - len(begun))
            begun.extend((job, job.pending.popleft()) for _ in range(n))
            self._partial = job if job.pending else None
        return begun

    def _prompts(self, begun: list[tuple[Job, int]]) -> None:
        """Read the new prompts and draw the first token of each new row."""
        jobs = list(dict.fromkeys(job for job, _ in begun))
        wanted = [leaf for job in jobs if job.logits is None and (leaf := job.leaf) is not None]
        logits: dict[Node, torch.Tensor] = {}
        for batch, nodes in prompt_batches(self.tree, self._new, wanted, self._prompt_tokens):
            logits.update(
                zip(nodes, self._runner.forward(batch, self._store, self._n_threads), strict=True)
            )
        for job in jobs:
            if job.logits is None and job.leaf is not None:
                job.logits = logits[job.leaf]
        logits_JV = torch.stack([job.logits for job in jobs if job.logits is not None])
        place = {job: n for n, job in enumerate(jobs)}
        slots = self.rows.add(begun)
        for job in jobs:
            if not job.pending:
                self._let_go(job)
        row = np.array([place[job] for job, _ in begun])
        self._advance(slots, self._runner.draw(logits_JV, self.rows.draws(slots, row)), row)

    def _decode(self) -> None:
        rows = self.rows
        batch = rows.batch()
        while batch is None:
            self._give_way(rows.youngest(max(1, rows.n_rows // 8)))
            batch = rows.batch()
        _, slots, row = rows.order()
        drawn = self._runner.step(batch, self._store, rows.draws(slots, row), self._n_threads)
        self._settle()
        self._advance(slots, drawn, row)

    @torch.inference_mode()
    def _advance(self, slots: Ints, drawn: Drawn, row: Ints) -> None:
        """One token for each of the completions, drawn from the logits of its `row`; take out those
        that end, part those that differ.
        """
        rows, logits_RV = self.rows, drawn.logits
        tokens = drawn.tokens()
        rows.append(slots, tokens)
        if (tells := rows.tells[slots]).any():
            of, chosen = (torch.from_numpy(x[tells]).to(logits_RV.device) for x in (row, tokens))
            rows.note(slots[tells], log_probs(logits_RV[of], chosen).cpu().numpy())
        ended = self._is_end(tokens)
        stopped = self._stopped(slots[rows.stops[slots] & ~ended])
        over = ended | (rows.n_drawn[slots] >= rows.max_new[slots])
        if stopped:
            over |= np.isin(slots, list(stopped))
        if over.any():
            self._finish(slots[over], ended[over], stopped)
        homeless = rows.part(self._store.copy)
        if homeless.size:
            self._give_way(homeless)

    def _finish(self, slots: Ints, by_end: npt.NDArray[np.bool_], stopped: dict[int, str]) -> None:
        """Those completions have come to their end: by an end token, by their stop, or by their
        length.
        """
        rows = self.rows
        for slot, key, is_end in zip(
            slots.tolist(), rows.alike(slots), by_end.tolist(), strict=True
        ):
            job = rows.jobs[slot]
            assert job is not None
            stop = "stop" if slot in stopped else "eos" if is_end else "length"
            drawn = rows.drawn(slot)
            self._ended.append(
                _Ended(
                    job,
                    int(rows.seed_index[slot]),
                    key,
                    drawn,
                    stopped.get(slot),
                    stop,
                    rows.told(slot),
                )
            )
        rows.drop(slots)
        if not self._runner.overlaps:
            self._settle()

    def _settle(self) -> None:
        """Completions that have ended become texts, those of equal tokens at once. A GPU computes
        the next step meanwhile.
        """
        ended, self._ended = self._ended, []
        whole = {e.key: e.tokens for e in ended if e.text is None}
        texts = dict(zip(whole, self._texts(list(whole.values())), strict=True))
        for e in ended:
            if e.job.finish(
                e.index,
                len(e.tokens),
                texts[e.key] if e.text is None else e.text,
                e.stop,
                e.logprobs,
            ):
                self._over(e.job)

    def _over(self, job: Job) -> None:
        """All completions of the request are there."""
        self._done.append(job)
        del self._live[job]

    def _stopped(self, slots: Ints) -> dict[int, str]:
        """Those of the rows whose text has come to its stop: slot → the text before it."""
        jobs = [(slot, job) for slot in slots.tolist() if (job := self.rows.jobs[slot]) is not None]
        found = self._stops.cut(
            [(self.rows.drawn(slot), job.request.params.stop) for slot, job in jobs]
        )
        return {slot: text for (slot, _), text in zip(jobs, found, strict=True) if text is not None}

    def _give_way(self, slots: Ints) -> None:
        """Take those completions out; their seeds are drawn again from the start when there is
        room.
        """
        if slots.size == self.rows.n_active and self.rows.n_rows == 1:
            self._partial_gives_way(slots)
            return
        for slot in slots.tolist():
            job = self.rows.jobs[slot]
            assert job is not None
            waits = bool(job.pending)
            job.pending.append(int(self.rows.seed_index[slot]))
            if not waits:
                self._waiting.put_back(job)
        self.rows.drop(slots)

    def _partial_gives_way(self, slots: Ints) -> None:
        """The last row needs the pages of the prompt whose other seeds wait for rows."""
        job = self._partial
        if job is None or job is self.rows.jobs[slots[0]]:
            raise EngineError(
                "one completion needs more room for keys and values than there is; raise "
                "engine.max_rows"
            )
        self._let_go(job)
        self._waiting.put_back(job)
        self._partial = None

    def _let_go(self, job: Job) -> None:
        assert job.leaf is not None
        self.tree.release(job.leaf)
        job.leaf = job.logits = None

    def _shrink(self, error: BaseException) -> None:
        """Out of memory: begin again what was under way, with half as much at a time of all that
        takes memory.

        Pages for the longest completion under way remain; one that needs more gets them when it is
        alone.
        """
        self._settle()
        under_way = list(self._live)
        n_rows, n_pages, n_tokens = self.rows.max_rows, self.tree.n_pages, self._prompt_tokens
        least = min(n_pages, max((job.n_pages for job in under_way), default=1))
        fewer_rows, fewer_pages = max(1, n_rows // 2), max(least, n_pages // 2)
        self._prompt_tokens = max(PAGE_SIZE, n_tokens // 2)
        if (fewer_rows, fewer_pages, self._prompt_tokens) == (n_rows, n_pages, n_tokens):
            raise EngineError(
                "not enough memory for a single completion; use a smaller model or another machine"
            ) from error
        _log.warning(
            "out of memory; going on with %d rows and %d tokens' keys and values",
            fewer_rows,
            fewer_pages * PAGE_SIZE,
        )
        self._live.clear()
        self._begin(fewer_rows, fewer_pages)
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
