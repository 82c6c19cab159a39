"""The engine's step: admit requests, run the model, postprocess the tokens.

A step reads the prompts of requests that are admitted, or else decodes one token of every row.
Requests take the places of finished rows at once. When pages run out, the youngest rows are
preempted: they are drawn again later, to the same texts, since a completion depends on (model,
prompt, params, seed) alone. When the machine's memory runs out, everything in progress begins again
with smaller limits (`glore.engines.local.memory`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from glore.engines.local.batch import prompt_batches
from glore.engines.local.draw import Drawn, log_probs
from glore.engines.local.memory import Limits
from glore.engines.local.prefix_tree import Node, PrefixTree
from glore.engines.local.queue import LocalJob, RequestQueue
from glore.engines.local.rows import Ints, RowTable
from glore.engines.local.runner import ModelRunner
from glore.engines.local.stops import StopFinder
from glore.engines.local.texts_so_far import TextsSoFar
from glore.engines.partial import IsWanted
from glore.engines.protocol import Request, Result
from glore.errors import EngineError, out_of_memory

__all__ = ["Scheduler"]


@dataclasses.dataclass(slots=True)
class _Finished:
    """A finished completion whose tokens are not text yet."""

    job: LocalJob
    index: int
    """Of its seed."""
    key: tuple[int, int]
    """Equal keys have equal tokens."""
    tokens: list[int]
    text: str | None
    """Where a stop string has cut it."""
    stop: str
    logprobs: tuple[float, ...] | None


class Scheduler:
    """Draws the completions of the requests that are added (`glore.engines.requests.Stepper`)."""

    def __init__(
        self,
        runner: ModelRunner,
        encode: Callable[[Request], LocalJob],
        max_rows: int,
        n_pages: int,
        is_end: Callable[[Ints], npt.NDArray[np.bool_]],
        texts: Callable[[list[list[int]]], list[str]],
        so_far: TextsSoFar,
        is_wanted: IsWanted | None = None,
    ) -> None:
        self._runner, self._encode, self._is_end, self._texts = runner, encode, is_end, texts
        self._stops = StopFinder(texts)
        self._so_far = so_far
        self._is_wanted = is_wanted
        self._n_threads = torch.get_num_threads()
        self._queue = RequestQueue(max_rows)
        self._in_progress: dict[LocalJob, None] = {}
        """Requests that have begun and are not complete."""
        self._finished: list[_Finished] = []
        self._complete: list[LocalJob] = []
        """Requests whose results are to be given out. They survive when memory runs out."""
        self._reset(Limits(max_rows, n_pages, runner.pass_tokens))

    def _reset(self, limits: Limits) -> None:
        """Empty rows, tree and cache of that size."""
        self._kv_cache = self._runner.new_kv_cache(limits.n_pages)
        self._limits = limits
        self.tree = PrefixTree(limits.n_pages)
        self.rows = RowTable(limits.max_rows, self.tree)
        self._partial: LocalJob | None = None
        """The request some of whose seeds still wait for rows."""

    def close(self) -> None:
        """End what is in progress; the memory for keys and values serves the next run."""
        self._runner.give_back(self._kv_cache)

    @property
    def is_busy(self) -> bool:
        """Whether some of the requests are not finished."""
        in_rows = self.rows.n_active or self._partial is not None
        return bool(in_rows or self._finished or self._queue)

    def has_room(self) -> bool:
        """Whether to add a request from the source now."""
        return self._has_free_rows and self._queue.wants_more()

    def add(self, request: Request, is_follow_up: bool) -> None:
        """Queue a request. Raises EngineError for one that can't be drawn."""
        job = self._encode(request)
        self._so_far.add(job)
        self._queue.add(job, is_follow_up)

    def step(self) -> list[Result]:
        """Admit, run, postprocess. Returns the results that became complete."""
        try:
            with _one_thread(self._runner.backend == "native"):
                self._step()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            self._restart_smaller(error)
        complete, self._complete = self._complete, []
        return [job.result() for job in complete]

    def _step(self) -> None:
        if self._is_wanted is not None:
            self._give_up_unwanted(self._is_wanted)
        if not self.rows.n_active:
            self._detokenize()
        admitted = self._admit(self.rows.room) if self._has_free_rows else []
        if admitted:
            self._postprocess(*self._prefill(admitted))
        elif self.rows.n_active:
            self._postprocess(*self._decode())

    @property
    def _has_free_rows(self) -> bool:
        """Whether enough rows are free to admit requests."""
        return self.rows.room >= max(1, self._limits.max_rows // 16)

    # Admit

    def _admit(self, n_free: int) -> list[tuple[LocalJob, int]]:
        """Up to `n_free` seeds, as (job, index), that get a row now; their prompts are in the tree.

        `_new_nodes` are the nodes of the tree that the model has yet to read.
        """
        admitted: list[tuple[LocalJob, int]] = []
        self._new_nodes: list[Node] = []
        while len(admitted) < n_free:
            job = self._partial or self._queue.pop()
            if job is None:
                break
            self._in_progress[job] = None
            if self._is_wanted is not None and not self._is_wanted(job.request):
                self._give_up_pending(job)
                continue
            if job.leaf is None and not self._store_prompt(job, len(admitted)):
                self._queue.put_back(job)
                break
            n = min(len(job.pending), n_free - len(admitted))
            admitted.extend((job, job.pending.popleft()) for _ in range(n))
            self._partial = job if job.pending else None
        return admitted

    def _give_up_unwanted(self, is_wanted: IsWanted) -> None:
        """End what is drawn for requests that nobody waits for any more."""
        unwanted = {job for job in self._in_progress if not is_wanted(job.request)}
        if not unwanted:
            return
        slots = self.rows.order()[1]
        of_them = slots[[self.rows.jobs[slot] in unwanted for slot in slots.tolist()]]
        if of_them.size:
            self._finish(of_them, np.zeros(of_them.size, bool), {})
        if self._partial in unwanted:
            self._give_up_pending(self._partial)

    def _give_up_pending(self, job: LocalJob) -> None:
        """No completion is drawn for the seeds that have no row yet."""
        if job.leaf is not None:
            self._release_prompt(job)
        if self._partial is job:
            self._partial = None
        while job.pending:
            self._end(job, job.pending.popleft(), "", [], "length", None)

    def _store_prompt(self, job: LocalJob, n_admitted: int) -> bool:
        """Give the prompt its place in the tree. Returns False where there are too few pages."""
        is_alone = not (n_admitted or self.rows.n_active)
        if is_alone and job.n_pages > self.tree.n_pages:
            # There was room at the start. If there no longer is, `_restart_smaller` says so.
            self._reset(dataclasses.replace(self._limits, n_pages=job.n_pages))
        # A page for every row's next tokens must remain, or prompts would at once take them from
        # each other.
        needed = len(job.chunks) + self.rows.n_active + n_admitted + 1
        fits = self.tree.n_available >= needed and job.n_pages <= self.tree.n_pages
        found = self.tree.acquire(job.chunks) if is_alone or fits else None
        if found is None:
            return False
        job.leaf = found[0]
        self._new_nodes.extend(found[1])
        return True

    def _release_prompt(self, job: LocalJob) -> None:
        assert job.leaf is not None
        self.tree.release(job.leaf)
        job.leaf = job.logits = None

    # Run

    def _prefill(self, admitted: list[tuple[LocalJob, int]]) -> tuple[Ints, Drawn, Ints]:
        """Read the new prompts and draw the first token of each new completion.

        Returns the slots of the completions, their tokens, and each one's row of logits.
        """
        jobs = list(dict.fromkeys(job for job, _ in admitted))
        wanted = [leaf for job in jobs if job.logits is None and (leaf := job.leaf) is not None]
        logits: dict[Node, torch.Tensor] = {}
        n_tokens = self._limits.prompt_tokens
        for batch, nodes in prompt_batches(self.tree, self._new_nodes, wanted, n_tokens):
            computed = self._runner.forward(batch, self._kv_cache, self._n_threads)
            logits.update(zip(nodes, computed, strict=True))
        for job in jobs:
            if job.logits is None and job.leaf is not None:
                job.logits = logits[job.leaf]
        logits_JV = torch.stack([job.logits for job in jobs if job.logits is not None])
        place = {job: n for n, job in enumerate(jobs)}
        slots = self.rows.add(admitted)
        for job in jobs:
            if not job.pending:
                self._release_prompt(job)
        row = np.array([place[job] for job, _ in admitted])
        draws = self.rows.draws(slots, row)
        return slots, self._runner.draw(logits_JV, draws, self._n_threads), row

    def _decode(self) -> tuple[Ints, Drawn, Ints]:
        """Read the last token of every row and draw the next one of each completion.

        Returns what `_prefill` returns. Finished completions become text while a GPU computes.
        """
        rows = self.rows
        batch = rows.batch()
        while batch is None:
            self._preempt(rows.youngest(max(1, rows.n_rows // 8)))
            batch = rows.batch()
        _, slots, row = rows.order()
        draws = rows.draws(slots, row)
        drawn = self._runner.step(batch, self._kv_cache, draws, self._n_threads)
        self._detokenize()
        return slots, drawn, row

    # Postprocess

    @torch.inference_mode()
    def _postprocess(self, slots: Ints, drawn: Drawn, row: Ints) -> None:
        """Append the drawn tokens, take out the completions that end, fork the rows that differ."""
        rows, logits_RV = self.rows, drawn.logits
        tokens = drawn.tokens()
        rows.append(slots, tokens)
        if (wanted := rows.wants_logprobs[slots]).any():
            of, chosen = (torch.from_numpy(x[wanted]).to(logits_RV.device) for x in (row, tokens))
            rows.set_logprobs(slots[wanted], log_probs(logits_RV[of], chosen).cpu().numpy())
        ended = self._is_end(tokens)
        stopped = self._stopped(slots[rows.stops[slots] & ~ended])
        over = ended | (rows.n_drawn[slots] >= rows.max_new[slots])
        if stopped:
            over |= np.isin(slots, list(stopped))
        if over.any():
            self._finish(slots[over], ended[over], stopped)
        without_row = rows.fork(self._kv_cache.copy)
        if without_row.size:
            self._preempt(without_row)
        if self._so_far.is_due:
            self._so_far.tell(
                (job, int(rows.seed_index[slot]), rows.tokens_of(slot))
                for slot in np.flatnonzero(rows.active).tolist()
                if (job := rows.jobs[slot]) is not None and self._so_far.listens(job)
            )

    def _stopped(self, slots: Ints) -> dict[int, str]:
        """Completions whose text holds its stop string: slot → the text before it."""
        jobs = [(slot, job) for slot in slots.tolist() if (job := self.rows.jobs[slot]) is not None]
        found = self._stops.cut(
            [(self.rows.tokens_of(slot), job.request.params.stop) for slot, job in jobs]
        )
        return {slot: text for (slot, _), text in zip(jobs, found, strict=True) if text is not None}

    def _finish(self, slots: Ints, by_end: npt.NDArray[np.bool_], stopped: dict[int, str]) -> None:
        """Take out completions that ended by an end token, by their stop string or by length."""
        rows = self.rows
        keys = rows.text_keys(slots)
        for slot, key, is_end in zip(slots.tolist(), keys, by_end.tolist(), strict=True):
            job = rows.jobs[slot]
            assert job is not None
            stop = "stop" if slot in stopped else "eos" if is_end else "length"
            index, tokens = int(rows.seed_index[slot]), rows.tokens_of(slot)
            text, logprobs = stopped.get(slot), rows.logprobs_of(slot)
            self._finished.append(_Finished(job, index, key, tokens, text, stop, logprobs))
        rows.drop(slots)
        if not self._runner.overlaps:
            self._detokenize()

    def _detokenize(self) -> None:
        """Turn finished completions into text, equal tokens once, and complete their requests."""
        finished, self._finished = self._finished, []
        whole = {f.key: f.tokens for f in finished if f.text is None}
        texts = dict(zip(whole, self._texts(list(whole.values())), strict=True))
        for f in finished:
            text = texts[f.key] if f.text is None else f.text
            self._end(f.job, f.index, text, f.tokens, f.stop, f.logprobs)

    def _end(
        self,
        job: LocalJob,
        index: int,
        text: str,
        tokens: list[int],
        stop: str,
        logprobs: tuple[float, ...] | None,
    ) -> None:
        """Store a completion. With its last one, the request is complete."""
        ids = None if logprobs is None else tuple(tokens)
        is_last = job.finish(index, text, len(tokens), stop, logprobs, ids)
        self._so_far.finished(job, index)
        if is_last:
            self._complete.append(job)
            del self._in_progress[job]

    # Preempt, and start again

    def _preempt(self, slots: Ints) -> None:
        """Take completions out of their rows; their seeds are drawn again when there is room."""
        if slots.size == self.rows.n_active and self.rows.n_rows == 1:
            self._preempt_partial(slots)
            return
        for slot in slots.tolist():
            job = self.rows.jobs[slot]
            assert job is not None
            is_waiting = bool(job.pending)
            job.pending.append(int(self.rows.seed_index[slot]))
            if not is_waiting:
                self._queue.put_back(job)
        self.rows.drop(slots)

    def _preempt_partial(self, slots: Ints) -> None:
        """The last row needs the pages of the prompt whose other seeds wait for rows."""
        job = self._partial
        if job is None or job is self.rows.jobs[slots[0]]:
            raise EngineError(
                "one completion needs more room for keys and values than there is; raise "
                "engine.max_rows"
            )
        self._release_prompt(job)
        self._queue.put_back(job)
        self._partial = None

    def _restart_smaller(self, error: BaseException) -> None:
        """Out of memory: begin what is in progress again, with half of every limit."""
        self._detokenize()
        in_progress = list(self._in_progress)
        longest = max((job.n_pages for job in in_progress), default=1)
        self._in_progress.clear()
        self._reset(self._limits.halved(longest, error))
        for job in in_progress:
            job.restart()
            self._queue.put_back(job)


@contextlib.contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """torch on one thread: its idle threads would spin on the cores that compiled code uses."""
    n_threads = torch.get_num_threads()
    if not wanted or n_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
