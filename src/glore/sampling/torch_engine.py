"""Sampling with a transformers model in this process: continuous batching, one prefill per prompt, exact seeds.

Waiting requests take the places of finished rows in groups (an eighth of the batch), because reading prompts has a fixed
cost per forward pass; longest prompts go first, so that rows of like length are neighbours in time. Only a window of the
incoming requests is held. A completion depends on (model, prompt, params, seed) alone: see `glore.sampling.noise`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from glore.errors import EngineError, shown
from glore.sampling.draw import draw
from glore.sampling.plain import plain_waves
from glore.sampling.protocol import FollowUp, Request, Result
from glore.sampling.rows import Ints, RowTable
from glore.sampling.runner import ModelRunner, supports_packed
from glore.sampling.waiting import Job, Waiting

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from glore.config import EngineSettings

__all__ = ["TorchEngine"]


class TorchEngine:
    """An `Engine` over any causal language model of transformers.

    Raises ModelError when the model can't be loaded and EngineError for a prompt that can't be continued.
    """

    def __init__(self, model_path: str | Path, settings: EngineSettings) -> None:
        from glore.models import load_causal_lm, load_tokenizer, pick_device

        tokenizer = load_tokenizer(str(model_path))
        model = load_causal_lm(str(model_path), dtype=settings.dtype, device=str(pick_device(settings.device)))
        self._set_up(model, tokenizer, settings.max_rows)

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_rows: int = 256) -> TorchEngine:
        """An engine over a model that is loaded already. The engine takes it over (evaluation mode, own attention)."""
        engine = cls.__new__(cls)
        engine._set_up(model, tokenizer, max_rows)
        return engine

    def _set_up(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_rows: int) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.packed = supports_packed(model)
        self._eos = _end_tokens(model, tokenizer)
        self._context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)

    def run(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Result]:
        """Draw every request's completions. Results come as they finish; `follow_up` is asked before a result is handed out."""
        waiting = Waiting(requests, self.job, self.max_rows)
        if self.packed:
            jobs = _Batch(self, ModelRunner(self.model, self.max_rows), waiting).run()
        else:
            jobs = plain_waves(self.model, waiting, self.max_rows, self.is_end, self.texts)
        for job in jobs:
            result = job.result()
            if follow_up is not None:
                waiting.add(follow_up(result))
            yield result

    def job(self, request: Request) -> Job:
        """The request, encoded and checked. Raises EngineError naming the request."""
        from glore.models import encode_segments

        params = request.params
        tokens = encode_segments(self.tokenizer, request.segments)
        if not tokens:
            raise EngineError(f"request {shown(request.id)}: the prompt is empty; a model needs at least one token to continue")
        if params.max_new_tokens < 1 or params.temperature < 0 or params.top_k < 0 or not 0 < params.top_p <= 1:
            raise EngineError(
                f"request {shown(request.id)}: max_new_tokens >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1 needed, got {params}"
            )
        room = self._context - len(tokens)
        if room < 1:
            raise EngineError(
                f"request {shown(request.id)}: the prompt has {len(tokens)} tokens and the model's context is {self._context}; "
                "shorten the prompt or use a model with a longer context"
            )
        return Job(request, tokens, min(params.max_new_tokens, room), [None] * len(request.seeds))

    def is_end(self, tokens: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of the tokens end a text."""
        return np.isin(tokens, self._eos)

    def texts(self, token_rows: list[list[int]]) -> list[str]:
        """Token rows as text, special tokens left out."""
        return [str(t) for t in self.tokenizer.batch_decode(token_rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)]


class _Batch:
    """The rows that are decoded together, step by step."""

    def __init__(self, engine: TorchEngine, runner: ModelRunner, waiting: Waiting) -> None:
        self.engine, self.runner, self.waiting = engine, runner, waiting
        self.rows = RowTable(engine.max_rows)
        self.partial: Job | None = None
        """A request some of whose seeds still wait for rows."""

    def run(self) -> Iterator[Job]:
        """Every request as it is done."""
        while self.rows.n_active > 0 or self.partial is not None or self.waiting:
            yield from self.step()

    def step(self) -> list[Job]:
        """Let waiting requests in if there is room, else decode one token of every row. Returns the requests that are done."""
        n_active = self.rows.n_active
        n_free = self.rows.max_rows - n_active
        room = n_active == 0 or n_free >= max(1, self.rows.max_rows // 8)
        if room and (self.partial is not None or self.waiting):
            return self._admit(n_free)
        if n_active == 0:
            return []
        if n_active <= 0.75 * self.rows.n_slots and not self.waiting:
            self.rows.compact(self.runner.store, [] if self.partial is None else [self.partial.node])
        return self._decode()

    def _decode(self) -> list[Job]:
        rows = self.rows
        batch = rows.batch(self.runner.store, self.runner.device)
        n_rows = batch.rows.shape[0]
        logits = self.runner.decode(rows.last_tokens(n_rows), rows.positions(n_rows), batch)
        live = np.flatnonzero(rows.node[:n_rows] >= 0)
        if live.size < n_rows:
            logits = logits[torch.from_numpy(live).to(logits.device)]
        return self._advance(live, logits)

    def _admit(self, n_free: int) -> list[Job]:
        """Give free rows to waiting seeds: read the new prompts, draw the first token of each row."""
        begun: list[tuple[Job, int]] = []
        new: list[Job] = []
        done: list[Job] = []
        while len(begun) < n_free:
            job = self.partial or self.waiting.pop()
            if job is None:
                break
            if not job.request.seeds:
                done.append(job)
                continue
            if job is not self.partial:
                new.append(job)
            n = min(job.n_waiting, n_free - len(begun))
            begun.extend((job, job.n_begun + i) for i in range(n))
            job.n_begun += n
            self.partial = job if job.n_waiting else None
        if not begun:
            return done
        if new:
            held = [job.node for job, _ in begun if job.node >= 0]
            for job, node in zip(new, self.rows.free_nodes(len(new), held), strict=True):
                job.node = node
            for job, logits in zip(new, self.runner.prefill([j.tokens for j in new], [j.node for j in new]), strict=True):
                job.logits = logits
        logits_R = torch.stack([_logits_of(job) for job, _ in begun])
        for job, _ in begun:
            if not job.n_waiting:
                job.logits = None
        return done + self._advance(self.rows.add(begun), logits_R)

    @torch.inference_mode()
    def _advance(self, slots: Ints, logits_RV: torch.Tensor) -> list[Job]:
        """Draw one token for each of the rows and take out those that end. Returns the requests that are done."""
        rows, engine = self.rows, self.engine
        tokens = draw(logits_RV, rows.noise(slots), rows.draw_settings(slots)).cpu().numpy()
        rows.append(slots, tokens)
        ended = engine.is_end(tokens)
        over = np.flatnonzero(ended | (rows.n_drawn[slots] >= rows.max_new[slots]))
        if not over.size:
            return []
        places = slots[over].tolist()
        drawn = [rows.tokens[s, : rows.n_drawn[s]].tolist() for s in places]
        done = []
        for slot, ids, by_end, text in zip(places, drawn, ended[over].tolist(), engine.texts(drawn), strict=True):
            job = rows.jobs[slot]
            assert job is not None
            index = int(rows.seed_index[slot])
            if job.finish(index, ids, text, by_end):
                done.append(job)
        rows.drop(slots[over])
        return done


def _logits_of(job: Job) -> torch.Tensor:
    assert job.logits is not None
    return job.logits


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Ints:
    ends = {tokenizer.eos_token_id}
    declared = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends |= set(declared) if isinstance(declared, list | tuple) else {declared}
    return np.array(sorted(e for e in ends if e is not None), np.int64)
