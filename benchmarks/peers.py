"""The same continuations by transformers, in three ways. `benchmarks.processes`: by others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LlamaForCausalLM,
    StoppingCriteria,
)
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from benchmarks.workloads import Ask


class _Lengths(StoppingCriteria):
    """Stops a row when it has its number of tokens, or when it has ended before."""

    def __init__(self, n_prompt: int, n_new: list[int]) -> None:
        self._end = torch.tensor(n_new) + n_prompt

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return input_ids.shape[1] >= self._end


def _batches(asks: list[Ask], n_rows: int) -> Iterator[list[Ask]]:
    """Batches of prompts with like length, and so with like numbers of tokens left. This favours
    `generate`.
    """
    ordered = sorted(asks, key=lambda a: (a.n_new, len(a.ids)))
    batch: list[Ask] = []
    for ask in ordered:
        if batch and sum(a.k for a in batch) + ask.k > n_rows:
            yield batch
            batch = []
        batch.append(ask)
    yield batch


def _padded(prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + [*p] for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


def _check(out: torch.Tensor, n_prompt: int, n_new: list[int], model: LlamaForCausalLM) -> None:
    """Asserts the requested number of tokens, or fewer for a model that knows an end."""
    n = out.shape[1] - n_prompt
    assert n == max(n_new) or (n < max(n_new) and model.generation_config.eos_token_id is not None)


def _count(asks: list[Ask]) -> int:
    return sum(a.k for a in asks)


@torch.inference_mode()
def generate_repeated(model: LlamaForCausalLM, asks: list[Ask], n_rows: int) -> float:
    """`generate`, every prompt repeated k times."""
    for batch in _batches(asks, n_rows):
        ids, mask = _padded([a.ids for a in batch for _ in range(a.k)])
        n_new = [a.n_new for a in batch for _ in range(a.k)]
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=max(n_new),
            stopping_criteria=[_Lengths(ids.shape[1], n_new)],
        )
        _check(out, ids.shape[1], n_new, model)
    return _count(asks)


@torch.inference_mode()
def generate_prefilled(model: LlamaForCausalLM, asks: list[Ask], n_rows: int) -> float:
    """Every prompt read once, its cache repeated k times, then `generate`."""
    for batch in _batches(asks, n_rows):
        ids, mask = _padded([a.ids for a in batch])
        cache = DynamicCache(config=model.config)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        model(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, :-1],
            past_key_values=cache,
            logits_to_keep=1,
        )
        k = batch[0].k
        cache.batch_repeat_interleave(k)
        n_new = [a.n_new for a in batch for _ in range(k)]
        out = model.generate(
            ids.repeat_interleave(k, 0),
            attention_mask=mask.repeat_interleave(k, 0),
            past_key_values=cache,
            do_sample=True,
            top_k=0,
            max_new_tokens=max(n_new),
            stopping_criteria=[_Lengths(ids.shape[1], n_new)],
        )
        _check(out, ids.shape[1], n_new, model)
    return _count(asks)


@torch.inference_mode()
def generate_one_by_one(model: LlamaForCausalLM, asks: list[Ask]) -> float:
    """A typical hand-written labeller: one prefix after another, `num_return_sequences=k`."""
    for ask in asks:
        ids = torch.tensor([ask.ids], device=model.device)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=ask.n_new,
            num_return_sequences=ask.k,
        )
    return _count(asks)


def generate_batch(model: LlamaForCausalLM, asks: list[Ask]) -> float:
    """transformers' continuous batching with a cache sized to the work. (By default it takes most
    of the memory, and is slower.)
    """
    eos = model.generation_config.eos_token_id
    settings = GenerationConfig(
        max_new_tokens=64,
        do_sample=True,
        top_k=0,
        eos_token_id=-1 if eos is None else eos,
        pad_token_id=0,
    )
    config = ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=256)
    with model.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=config
    ) as manager:
        n = 0
        for ask in asks:
            for _ in range(ask.k):
                manager.add_request([*ask.ids], max_new_tokens=ask.n_new)
                n += 1
        done = 0
        while done < n:
            result = manager.get_result(timeout=60)
            if result is None:
                raise RuntimeError("no result for 60 s")
            done += result.is_finished()
    return n
