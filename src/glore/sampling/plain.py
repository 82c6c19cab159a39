"""Decoding for models that can't use the packed attention: rows of one prompt length together, the model's own cache.

Slower (every completion reads its prompt, finished rows stay until the wave ends), but without padding, so it is exact for
every kind of cache: recurrent states, hybrid layers, unusual attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from glore.sampling.draw import DrawSettings, draw
from glore.sampling.noise import uniforms
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
    while rest or waiting:
        length = rest[0][0].n_tokens if rest else waiting.next_length()
        while len(rest) < max_rows and waiting.next_length() == length:
            job = waiting.pop()
            assert job is not None
            if not job.completions:
                yield job
            rest.extend((job, i) for i in range(len(job.completions)))
        rows, rest = rest[:max_rows], rest[max_rows:]
        drawn, by_end = _wave(model, rows, is_end) if rows else ([], [])
        for (job, index), ids, ended, text in zip(rows, drawn, by_end, texts(drawn) if drawn else [], strict=True):
            if job.finish(index, ids, text, ended):
                yield job


@torch.inference_mode()
def _wave(
    model: PreTrainedModel, rows: list[tuple[Job, int]], is_end: Callable[[Ints], npt.NDArray[np.bool_]]
) -> tuple[list[list[int]], list[bool]]:
    """Tokens of each row (the end token included) and whether it ended by itself."""
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
    ended = np.zeros(len(rows), bool)
    drawn: list[list[int]] = [[] for _ in rows]
    for step in range(int(limit.max())):
        output = model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        chosen = draw(output.logits[:, -1].float(), uniforms(seeds, np.full(len(rows), step)), settings)
        tokens = chosen.cpu().numpy()
        for i in np.flatnonzero(alive).tolist():
            drawn[i].append(int(tokens[i]))
        ended |= alive & is_end(tokens)
        alive &= ~ended & (step + 1 < limit)
        if not alive.any():
            break
        given = chosen[:, None]
    return drawn, ended.tolist()
