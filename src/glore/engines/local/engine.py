"""Sampling with a transformers model in this process: continuous batching over a prefix tree, with
a seed for every completion.

`run` reads requests as they are needed. The scheduler's step is in `glore.engines.local.scheduler`,
what a request shares with others in `prefix_tree` and `rows`, the memory it may use in `memory`,
and how a model is read in `runner`. A completion depends on (model, prompt, params, seed) alone:
see `glore.engines.local.noise`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glore.engines.encoding import check, new_tokens
from glore.engines.lifetime import Closable
from glore.engines.local.draw import NotFiniteError
from glore.engines.local.fallback import FallbackScheduler, find_cache
from glore.engines.local.memory import free_unused, plan_pages
from glore.engines.local.native.build import no_quantization
from glore.engines.local.prefix_tree import PAGE_SIZE, cut
from glore.engines.local.queue import LocalJob
from glore.engines.local.rows import Ints
from glore.engines.local.runner import BACKENDS, ModelRunner
from glore.engines.local.scheduler import Scheduler
from glore.engines.local.texts_so_far import TextsSoFar
from glore.engines.partial import IsWanted, ListenerOf, OnCompletion
from glore.engines.protocol import FollowUp, Request, Result
from glore.engines.requests import run_requests
from glore.errors import EngineError, shown
from glore.prompts import ControlText

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from glore.config import TorchEngineSettings
    from glore.config.engine import Quantization

__all__ = ["TorchEngine"]

_KEPT_SEGMENTS = 16_384
"""Segments whose token ids are kept."""


class TorchEngine(Closable):
    """An `Engine` over any causal language model of transformers.

    Raises ModelError when the model can't be loaded or returns no cache that is known, and
    EngineError for a prompt that can't be continued.
    """

    def __init__(self, model_path: str | Path, settings: TorchEngineSettings) -> None:
        from glore.devices import pick_device
        from glore.models import load_causal_lm, load_tokenizer

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
        backends: tuple[str, ...] = BACKENDS,
        quantization: Quantization = "none",
    ) -> TorchEngine:
        """An engine over a loaded model, which it takes over (evaluation mode, own attention).

        `cache_tokens`: tokens whose keys and values have room. `backends`: those that may be used
        (`ModelRunner`). `quantization`: as `engine.quantization`; raises EngineError where it is
        not available.
        """
        engine = cls.__new__(cls)
        engine._set_up(model, tokenizer, max_rows, cache_tokens, backends, quantization)
        return engine

    def _set_up(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_rows: int,
        cache_tokens: int | None = None,
        backends: tuple[str, ...] = BACKENDS,
        quantization: Quantization = "none",
    ) -> None:
        from glore.tokenization import check_embedded, encode_many, encode_segments

        self.model = model.eval()
        self.name = type(model).__name__
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.runner = ModelRunner(model, backends, quantization)
        self.warning = self.runner.warning
        if quantization != "none" and self.runner.products != quantization:
            raise no_quantization(quantization, model.config.model_type, self.runner.fault)
        self._cache = "" if self.packed else find_cache(model)
        self._eos = _end_tokens(model, tokenizer)
        self._bos = tuple(encode_segments(tokenizer, ()))
        n_embeddings = int(model.get_input_embeddings().weight.shape[0])
        check_embedded(tokenizer, n_embeddings, self._bos)

        def ids(segment: str, is_control: bool) -> tuple[int, ...]:
            tokens = encode_many(tokenizer, [(segment,)], bos=False)[0]
            check_embedded(tokenizer, n_embeddings, tokens)
            return tuple(tokens)

        # Prefixes of a draft, and the scan's next requests, are the same segments again.
        self._ids = lru_cache(_KEPT_SEGMENTS)(ids)
        shape = model.config.get_text_config()
        self._context = int(getattr(shape, "max_position_embeddings", 0) or 1 << 30)
        affordable = self.runner.affordable_pages(max_rows) if cache_tokens is None else None
        self.n_pages = plan_pages(max_rows, self._context, cache_tokens, affordable)

    @property
    def backend(self) -> str:
        """What reads the model, and the type of its products: `native int8`, `cuda bfloat16`, …"""
        self.check_open()
        return self.runner.description

    @property
    def packed(self) -> bool:
        """Whether prompts share a prefix tree; otherwise every completion reads its own."""
        return self.runner.backend != "fallback"

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Draw every request's completions; see `glore.engines.protocol.Engine.run`.

        Raises EngineError, also where the model gives logits that are not finite.
        """
        self.check_open()
        return self._guarded(self._results(requests, follow_up))

    def stream(
        self,
        requests: Iterable[Request],
        follow_up: FollowUp | None,
        listener_of: ListenerOf,
        is_wanted: IsWanted | None = None,
        on_completion: OnCompletion | None = None,
    ) -> Iterator[Result]:
        """As `run`, and listeners are told what is drawn (`glore.engines.partial.StreamsText`).

        The fallback ends what it has begun, wanted or not.
        """
        self.check_open()
        so_far = TextsSoFar(self.texts, listener_of, on_completion)
        return self._guarded(self._results(requests, follow_up, so_far, is_wanted))

    def _results(
        self,
        requests: Iterable[Request],
        follow_up: FollowUp | None,
        so_far: TextsSoFar | None = None,
        is_wanted: IsWanted | None = None,
    ) -> Generator[Result]:
        scheduler = self.scheduler(so_far, is_wanted)
        try:
            yield from run_requests(scheduler, requests, follow_up)
        except NotFiniteError as error:
            raise EngineError(f"{shown(self.name, 300)}: {error}") from error
        except BaseException:
            scheduler.close()
            raise
        scheduler.close()

    def _free(self) -> None:
        self.runner.close()
        del self.model, self.tokenizer, self.runner, self._ids
        free_unused()

    def scheduler(
        self, so_far: TextsSoFar | None = None, is_wanted: IsWanted | None = None
    ) -> Scheduler | FallbackScheduler:
        """What draws in one call of `run` or `stream`."""
        parts = self.is_end, self.texts, so_far or TextsSoFar(self.texts)
        if self.packed:
            return Scheduler(
                self.runner, self.encode, self.max_rows, self.n_pages, *parts, is_wanted=is_wanted
            )
        return FallbackScheduler(self.model, self._cache, self.encode, self.max_rows, *parts)

    def encode(self, request: Request) -> LocalJob:
        """The request, encoded and checked. Raises EngineError naming the request."""
        # Segment by segment, so that pages begin where segments do; BOS goes with the first.
        segments = [s for s in request.segments if s] or [""]
        first, *others = (self._ids(s, isinstance(s, ControlText)) for s in segments)
        bos = () if isinstance(segments[0], ControlText) else self._bos
        parts = [bos + first, *others]
        n_tokens = sum(map(len, parts))
        check(request, n_tokens)
        max_new = new_tokens(request, n_tokens, self._context)
        job = LocalJob(request, cut(parts), n_tokens, max_new, deque(range(len(request.seeds))))
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
