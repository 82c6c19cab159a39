"""Decoding for models that can't use the packed attention: rows of one prompt length together, the model's own cache.

Slower (every completion reads its prompt, finished rows stay until the wave ends), but without padding, so it is exact for
every kind of cache: recurrent states, hybrid layers, unusual attention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from glore.sampling.draw import DrawSettings, draw, log_probs
from glore.sampling.noise import uniforms
from glore.sampling.stops import StopFinder
from glore.sampling.waiting import Job, Waiting

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["plain_waves"]

Ints = npt.NDArray[np.int64]


def plain_waves(
    model: PreTrainedModel,
    waiting: Waiting,
    max_rows: int,
    is_end: Callable[[Ints], npt.NDArray[np.bool_]],
    texts: Callable[[list[list[int]]], list[str]],
) -> Iterator[Job]:
    """Draw everything in `waiting` (which may grow meanwhile); yields each request when all its completions are there."""
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
        drawn = _wave(model, rows, is_end, finder) if rows else []
        whole = texts([d.ids for d in drawn]) if drawn else []
        for (job, index), one, text in zip(rows, drawn, whole, strict=True):
            logprobs = tuple(one.logprobs) if job.request.params.logprobs else None
            if job.finish(index, len(one.ids), text if one.cut is None else one.cut, one.stop, logprobs):
                yield job


@dataclasses.dataclass(slots=True)
class _Drawn:
    """A row: its tokens (the end token included), their log-probabilities, why it ended, and the text before its stop, if it has one."""

    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    stop: str = "length"
    cut: str | None = None


@torch.inference_mode()
def _wave(
    model: PreTrainedModel, rows: list[tuple[Job, int]], is_end: Callable[[Ints], npt.NDArray[np.bool_]], finder: StopFinder
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
    given = torch.tensor([[t for chunk in job.chunks for t in chunk] for job, _ in rows], device=device)
    cache = None
    alive = np.ones(len(rows), bool)
    tells = any(p.logprobs for p in params)
    drawn = [_Drawn() for _ in rows]
    for step in range(int(limit.max())):
        output = model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
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
        for i, cut in zip(asked, finder.cut([(drawn[i].ids, params[i].stop) for i in asked]), strict=True):
            if cut is not None:
                drawn[i].stop, drawn[i].cut, alive[i] = "stop", cut, False
        alive &= step + 1 < limit
        if not alive.any():
            break
        given = chosen[:, None]
    return drawn
