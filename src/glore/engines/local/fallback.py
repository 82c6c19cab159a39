"""Decoding for models that can't use the packed attention: rows of one prompt length together, the
model's own cache.

Slower (every completion reads its prompt, finished rows stay until the wave ends), but without
padding, so it is exact for every kind of cache that the model hands out: recurrent states (Mamba),
hybrid layers, unusual attention.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from glore.engines.local.draw import DrawSettings, draw, log_probs
from glore.engines.local.noise import uniforms
from glore.engines.local.queue import Job, Waiting
from glore.engines.local.stops import StopFinder
from glore.errors import EngineError, ModelError, out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["find_cache", "plain_waves"]

Ints = npt.NDArray[np.int64]
_CACHES = ("past_key_values", "cache_params")
"""What models call their cache, as an output and as an argument: most, and Mamba. RWKV's `state`
mixes up the rows of a batch.
"""
_log = logging.getLogger(__name__)


@torch.inference_mode()
def find_cache(model: PreTrainedModel) -> str:
    """What the model calls its cache. Raises ModelError where it hands out none (RecurrentGemma),
    or none of these (RWKV).
    """
    output = model(
        input_ids=torch.zeros((1, 1), dtype=torch.int64, device=next(model.parameters()).device),
        use_cache=True,
    )
    for name in _CACHES:
        if getattr(output, name, None) is not None:
            return name
    raise ModelError(
        f"{type(model).__name__} keeps no cache that glore knows (it must hand out "
        f"{' or '.join(_CACHES)}); use another model or another engine.kind"
    )


def plain_waves(
    model: PreTrainedModel,
    cache_name: str,
    waiting: Waiting,
    max_rows: int,
    is_end: Callable[[Ints], npt.NDArray[np.bool_]],
    texts: Callable[[list[list[int]]], list[str]],
) -> Iterator[Job]:
    """Draw everything in `waiting` (which may grow meanwhile); yields each request when all its
    completions are there.

    When memory runs out, a wave is begun again with half as many rows.
    """
    rest: list[tuple[Job, int]] = []
    finder = StopFinder(texts)
    while rest or waiting:
        length = rest[0][0].n_tokens if rest else waiting.next_length()
        while len(rest) < max_rows and waiting.next_length() == length:
            job = waiting.pop()
            assert job is not None
            if not job.completions:
                yield job
            rest.extend((job, i) for i in range(len(job.completions)))
        rows, rest = rest[:max_rows], rest[max_rows:]
        try:
            drawn = _wave(model, cache_name, rows, is_end, finder) if rows else []
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            max_rows, rest = _fewer(len(rows), error), rows + rest
            continue
        whole = texts([d.ids for d in drawn]) if drawn else []
        for (job, index), one, text in zip(rows, drawn, whole, strict=True):
            logprobs = tuple(one.logprobs) if job.request.params.logprobs else None
            if job.finish(
                index, len(one.ids), text if one.cut is None else one.cut, one.stop, logprobs
            ):
                yield job


def _fewer(n_rows: int, error: BaseException) -> int:
    """How many rows to try where memory ran out with `n_rows`."""
    if n_rows == 1:
        raise EngineError(
            "not enough memory for a single completion; use a smaller model or another machine"
        ) from error
    _log.warning("out of memory; going on with %d rows at a time", n_rows // 2)
    return n_rows // 2


@dataclasses.dataclass(slots=True)
class _Drawn:
    """A row: its tokens (the end token included), their log-probabilities, why it ended, and the
    text before its stop, if it has one.
    """

    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    stop: str = "length"
    cut: str | None = None


@torch.inference_mode()
def _wave(
    model: PreTrainedModel,
    cache_name: str,
    rows: list[tuple[Job, int]],
    is_end: Callable[[Ints], npt.NDArray[np.bool_]],
    finder: StopFinder,
) -> list[_Drawn]:
    """All rows, until each has ended."""
    params = [job.request.params for job, _ in rows]
    settings = DrawSettings(
        np.array([p.temperature for p in params], np.float32),
        np.array([p.top_k for p in params], np.int64),
        np.array([p.top_p for p in params], np.float32),
    )
    seeds = np.array([job.request.seeds[i] for job, i in rows], np.uint64)
    limit = np.array([job.max_new for job, _ in rows])
    device = next(model.parameters()).device
    given = torch.tensor(
        [[t for chunk in job.chunks for t in chunk] for job, _ in rows], device=device
    )
    cache = None
    alive = np.ones(len(rows), bool)
    tells = any(p.logprobs for p in params)
    drawn = [_Drawn() for _ in rows]
    for step in range(int(limit.max())):
        output = model(input_ids=given, use_cache=True, logits_to_keep=1, **{cache_name: cache})
        cache = output[cache_name]
        logits = output.logits[:, -1].float()
        chosen = draw(logits, uniforms(seeds, np.full(len(rows), step)), settings)
        tokens = chosen.cpu().numpy()
        told = log_probs(logits, chosen).tolist() if tells else [0.0] * len(rows)
        for i in np.flatnonzero(alive).tolist():
            drawn[i].ids.append(int(tokens[i]))
            drawn[i].logprobs.append(told[i])
        for i in np.flatnonzero(alive & is_end(tokens)).tolist():
            drawn[i].stop, alive[i] = "eos", False
        asked = [i for i in np.flatnonzero(alive).tolist() if params[i].stop]
        for i, cut in zip(
            asked, finder.cut([(drawn[i].ids, params[i].stop) for i in asked]), strict=True
        ):
            if cut is not None:
                drawn[i].stop, drawn[i].cut, alive[i] = "stop", cut, False
        alive &= step + 1 < limit
        if not alive.any():
            break
        given = chosen[:, None]
    return drawn
