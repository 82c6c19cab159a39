"""The fallback for models that no backend can read: waves of rows of one prompt length, over the
model's own cache.

It is slower: every completion reads its own prompt, and finished rows stay until the wave ends. But
nothing is padded, so it is exact for every kind of cache that a model has: recurrent states
(Mamba), hybrid layers, unusual attention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from glore.engines.local.draw import DrawSettings, draw, log_probs, on_drawing_device
from glore.engines.local.memory import halved
from glore.engines.local.noise import uniforms
from glore.engines.local.queue import LocalJob, RequestQueue
from glore.engines.local.stops import StopFinder
from glore.engines.local.texts_so_far import TextsSoFar
from glore.engines.protocol import Request, Result
from glore.errors import ModelError, out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FallbackScheduler", "find_cache"]

Ints = npt.NDArray[np.int64]
_CACHES = ("past_key_values", "cache_params")
"""What models call their cache, as an output and as an argument: most, and Mamba. RWKV's `state`
mixes up the rows of a batch.
"""


@torch.inference_mode()
def find_cache(model: PreTrainedModel) -> str:
    """What the model calls its cache.

    Raises ModelError for a model that returns none (RecurrentGemma), or none of these (RWKV).
    """
    output = model(
        input_ids=torch.zeros((1, 1), dtype=torch.int64, device=next(model.parameters()).device),
        use_cache=True,
    )
    for name in _CACHES:
        if getattr(output, name, None) is not None:
            return name
    raise ModelError(
        f"{type(model).__name__} returns no cache that glore knows ({' or '.join(_CACHES)}); use "
        "another model or another engine.kind"
    )


class FallbackScheduler:
    """Draws the completions of the requests that are added, a wave at a time
    (`glore.engines.requests.Stepper`).

    When memory runs out, a wave begins again with half as many rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache_name: str,
        encode: Callable[[Request], LocalJob],
        max_rows: int,
        is_end: Callable[[Ints], npt.NDArray[np.bool_]],
        texts: Callable[[list[list[int]]], list[str]],
        so_far: TextsSoFar,
    ) -> None:
        self._so_far = so_far
        self._model, self._cache_name, self._max_rows = model, cache_name, max_rows
        self._encode, self._is_end, self._texts = encode, is_end, texts
        self._stops = StopFinder(texts)
        self._queue = RequestQueue(max_rows, by_length=True)
        self._rest: list[tuple[LocalJob, int]] = []
        """Seeds, as (job, index), that had no room in their wave."""

    def close(self) -> None:
        """End what is in progress."""

    @property
    def is_busy(self) -> bool:
        """Whether some of the requests are not finished."""
        return bool(self._rest or self._queue)

    def has_room(self) -> bool:
        """Whether to add a request from the source now."""
        return self._queue.wants_more()

    def add(self, request: Request, is_follow_up: bool) -> None:
        """Queue a request. Raises EngineError for one that can't be drawn."""
        job = self._encode(request)
        self._so_far.add(job)
        self._queue.add(job, is_follow_up)

    def step(self) -> list[Result]:
        """Draw a wave. Returns the results that became complete."""
        rows = self._next_rows()
        try:
            drawn = self._wave(rows)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            self._max_rows = halved(len(rows), "rows", error)
            self._rest = rows + self._rest
            return []
        texts = self._texts([d.ids for d in drawn])
        results = []
        for (job, index), d, whole in zip(rows, drawn, texts, strict=True):
            wanted = job.request.params.logprobs
            logprobs, ids = (tuple(d.logprobs), tuple(d.ids)) if wanted else (None, None)
            text = whole if d.cut is None else d.cut
            is_last = job.finish(index, text, len(d.ids), d.stop, logprobs, ids)
            self._so_far.finished(job, index)
            if is_last:
                results.append(job.result())
        return results

    def _next_rows(self) -> list[tuple[LocalJob, int]]:
        """Seeds whose prompts have one length, as many as there are rows."""
        length = self._rest[0][0].n_tokens if self._rest else self._queue.next_length()
        while len(self._rest) < self._max_rows and self._queue.next_length() == length:
            job = self._queue.pop()
            if job is None:
                break
            self._rest.extend((job, i) for i in range(len(job.completions)))
        rows, self._rest = self._rest[: self._max_rows], self._rest[self._max_rows :]
        return rows

    @torch.inference_mode()
    def _wave(self, rows: list[tuple[LocalJob, int]]) -> list[_Drawn]:
        """Draw all rows until each has ended."""
        params = [job.request.params for job, _ in rows]
        settings = DrawSettings(
            np.array([p.temperature for p in params], np.float32),
            np.array([p.top_k for p in params], np.int64),
            np.array([p.top_p for p in params], np.float32),
        )
        seeds = np.array([job.request.seeds[i] for job, i in rows], np.uint64)
        limit = np.array([job.max_new for job, _ in rows])
        prompts = [[t for chunk in job.chunks for t in chunk] for job, _ in rows]
        given = torch.tensor(prompts, device=next(self._model.parameters()).device)
        cache = None
        wanted = any(p.logprobs for p in params)
        alive = np.ones(len(rows), bool)
        drawn = [_Drawn() for _ in rows]
        for step in range(int(limit.max())):
            output = self._model(
                input_ids=given, use_cache=True, logits_to_keep=1, **{self._cache_name: cache}
            )
            cache = output[self._cache_name]
            logits = on_drawing_device(output.logits[:, -1].float())
            chosen = draw(logits, uniforms(seeds, np.full(len(rows), step)), settings)
            tokens = chosen.cpu().numpy()
            logprobs = log_probs(logits, chosen).tolist() if wanted else [0.0] * len(rows)
            for i in np.flatnonzero(alive).tolist():
                drawn[i].ids.append(int(tokens[i]))
                drawn[i].logprobs.append(logprobs[i])
            for i in np.flatnonzero(alive & self._is_end(tokens)).tolist():
                drawn[i].stop, alive[i] = "eos", False
            asked = [i for i in np.flatnonzero(alive).tolist() if params[i].stop]
            found = self._stops.cut([(drawn[i].ids, params[i].stop) for i in asked])
            for i, cut in zip(asked, found, strict=True):
                if cut is not None:
                    drawn[i].stop, drawn[i].cut, alive[i] = "stop", cut, False
            alive &= step + 1 < limit
            if not alive.any():
                break
            if self._so_far.is_due:
                going = [(*rows[i], drawn[i].ids) for i in np.flatnonzero(alive).tolist()]
                self._so_far.tell(row for row in going if self._so_far.listens(row[0]))
            given = chosen[:, None].to(given.device)
        return drawn


@dataclasses.dataclass(slots=True)
class _Drawn:
    """What a row has drawn."""

    ids: list[int] = dataclasses.field(default_factory=list)
    """Tokens, the end token included."""
    logprobs: list[float] = dataclasses.field(default_factory=list)
    stop: str = "length"
    cut: str | None = None
    """The text before its stop string, if it has one."""
