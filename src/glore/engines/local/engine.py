"""Sampling with a transformers model in this process: a streaming source, continuous batching, a
prefix tree, exact seeds.

Waiting requests take the places of finished rows at once in small groups. Every token of a prompt
is computed and stored once, whichever requests begin with it (`glore.engines.local.prefix_tree`).
The memory for keys and values is fixed at the start; when it runs out, the rows that began last
give way and are drawn again later, to the same texts, since a completion depends on (model, prompt,
params, seed) alone: see `glore.engines.local.noise`. When the machine's memory runs out, the batch
shrinks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glore.engines.encoding import check, new_tokens
from glore.engines.local.draw import NotFiniteError
from glore.engines.local.fallback import find_cache, plain_waves
from glore.engines.local.native.build import no_quantization
from glore.engines.local.prefix_tree import PAGE_SIZE, cut
from glore.engines.local.queue import Job, Waiting
from glore.engines.local.rows import Ints
from glore.engines.local.runner import WAYS, ModelRunner
from glore.engines.local.scheduler import Stream
from glore.engines.protocol import FollowUp, Request, Result, followed
from glore.errors import EngineError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from glore.config import EngineSettings
    from glore.config.engine import Quantization

__all__ = ["TorchEngine"]

_KEPT_SEGMENTS = 16_384
"""So many segments' token ids are remembered."""
_TOKENS_PER_ROW = 256
"""Room for keys and values, where nothing else is asked for."""
_MOST_TOKENS_PER_ROW = 4096
"""On a card: more room is taken only if `cache_tokens` asks for it."""


class TorchEngine:
    """An `Engine` over any causal language model of transformers.

    Raises ModelError when the model can't be loaded or keeps no cache that is known, and
    EngineError for a prompt that can't be continued.
    """

    def __init__(self, model_path: str | Path, settings: EngineSettings) -> None:
        from glore.models import load_causal_lm, load_tokenizer, pick_device

        tokenizer = load_tokenizer(str(model_path))
        model = load_causal_lm(
            str(model_path), dtype=settings.dtype, device=str(pick_device(settings.device))
        )
        self._set_up(model, tokenizer, settings.max_rows, quantization=settings.quantization)
        self.name = str(model_path)

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_rows: int = 256,
        cache_tokens: int | None = None,
        ways: tuple[str, ...] = WAYS,
        quantization: Quantization = "none",
        compiles: bool = False,
    ) -> TorchEngine:
        """An engine over a model that is loaded already. The engine takes it over (evaluation mode,
        own attention).

        `cache_tokens`: room for the keys and values of so many tokens. `ways`: how the model may be
        read (`ModelRunner`). `quantization`: as `engine.quantization`; raises EngineError where it
        can't be had. `compiles`: on a GPU, compile the layers too.
        """
        engine = cls.__new__(cls)
        engine._set_up(model, tokenizer, max_rows, cache_tokens, ways, quantization, compiles)
        return engine

    def _set_up(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_rows: int,
        cache_tokens: int | None = None,
        ways: tuple[str, ...] = WAYS,
        quantization: Quantization = "none",
        compiles: bool = False,
    ) -> None:
        from glore.models import encode_many, encode_segments

        self.model = model.eval()
        self.name = type(model).__name__
        """What errors call it."""
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.runner = ModelRunner(model, ways, quantization, compiles)
        if quantization != "none" and self.runner.products != quantization:
            raise no_quantization(quantization, model.config.model_type)
        self._cache = "" if self.packed else find_cache(model)
        self._eos = _end_tokens(model, tokenizer)
        self._bos = tuple(encode_segments(tokenizer, ()))

        def ids(segment: str) -> tuple[int, ...]:
            return tuple(encode_many(tokenizer, [(segment,)], bos=False)[0])

        # Prefixes of a draft, and the scan's next requests, are the same segments again.
        self._ids = lru_cache(_KEPT_SEGMENTS)(ids)
        self._context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
        # At least one text of full length must fit; its segments may leave some pages half empty.
        least = 2 * min(self._context, 4096)
        self.n_pages = -(-(cache_tokens or max(max_rows * _TOKENS_PER_ROW, least)) // PAGE_SIZE)
        affordable = self.runner.affordable_pages(max_rows) if cache_tokens is None else None
        if affordable is not None:
            # What the card has room for, up to what rows of full length can use.
            self.n_pages = min(
                affordable,
                -(-max_rows * min(self._context, _MOST_TOKENS_PER_ROW) // PAGE_SIZE) + self.n_pages,
            )

    @property
    def packed(self) -> bool:
        """Whether requests share a tree; otherwise every completion reads its own prompt."""
        return self.runner.way != "plain"

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Draw every request's completions. Results come as they finish; `follow_up` is asked
        before a result is handed out.

        Raises EngineError, also where the model gives logits that are no numbers.
        """
        waiting = Waiting(requests, self.job, self.max_rows, by_length=not self.packed)
        if self.packed:
            jobs = Stream(
                self.runner, waiting, self.max_rows, self.n_pages, self.is_end, self.texts
            ).run()
        else:
            jobs = plain_waves(
                self.model, self._cache, waiting, self.max_rows, self.is_end, self.texts
            )
        while (job := self._next(jobs)) is not None:
            result = job.result()
            waiting.add(followed(result, follow_up))
            yield result

    def _next(self, jobs: Iterator[Job]) -> Job | None:
        try:
            return next(jobs, None)
        except NotFiniteError as error:
            raise EngineError(f"{shown(self.name, 300)}: {error}") from error

    def job(self, request: Request) -> Job:
        """The request, encoded and checked. Raises EngineError naming the request."""
        # Segment by segment, so that pages begin where segments do; BOS goes with the first.
        first, *others = [s for s in request.segments if s] or [""]
        parts = [self._bos + self._ids(first), *map(self._ids, others)]
        n_tokens = sum(map(len, parts))
        check(request, n_tokens)
        max_new = new_tokens(request, n_tokens, self._context)
        n = len(request.seeds)
        job = Job(request, cut(parts), n_tokens, max_new, [None] * n, deque(range(n)))
        if self.packed and job.n_pages > self.n_pages:
            raise EngineError(
                f"request {shown(request.id)}: {n_tokens} tokens and {max_new} new ones don't fit "
                f"into the {self.n_pages * PAGE_SIZE} tokens that there is room for; shorten the "
                "prompt or raise engine.max_rows"
            )
        return job

    def is_end(self, tokens: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of the tokens end a text."""
        return (tokens[:, None] == self._eos).any(axis=1)

    def texts(self, token_rows: list[list[int]]) -> list[str]:
        """Token rows as text, special tokens left out."""
        if not token_rows:  # transformers reads this as one text
            return []
        return [
            str(t)
            for t in self.tokenizer.batch_decode(
                token_rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        ]


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Ints:
    ends = {tokenizer.eos_token_id}
    declared = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends |= set(declared) if isinstance(declared, list | tuple) else {declared}
    return np.array(sorted(e for e in ends if e is not None), np.int64)
