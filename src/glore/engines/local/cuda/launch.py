"""Calls of the kernels: tensors in, tensors out. Block shapes are chosen here.

Axes as in `glore.engines.local.cuda.kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton

from glore.engines.local.cuda import kernels
from glore.engines.local.noise import GOLDEN
from glore.engines.local.prefix_tree import PAGE_SIZE

if TYPE_CHECKING:
    from glore.engines.local.cuda.inputs import Inputs

__all__ = [
    "attend",
    "block_queries",
    "choose",
    "copy_pages",
    "is_interpreted",
    "prompt_pairs",
    "row_stats",
]

_LEAST = 16
"""Rows and columns of the smallest product of matrices in Triton."""
_MOST_PAIRS = 64
"""(query, query head) pairs of a block, half as many in float32. With large heads, more don't fit
into registers.
"""
_VOCABULARY_BLOCK = 1024
_COPY_BLOCK = 1024


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, on a CPU."""
    return not isinstance(kernels.copy_kernel, triton.JITFunction)


def prompt_pairs(dtype: torch.dtype) -> int:
    """(query, query head) pairs of a block where prompts are read."""
    return _MOST_PAIRS if dtype.itemsize <= 2 else _MOST_PAIRS // 2


def block_queries(n_each: int, pairs: int) -> int:
    """Queries that fill a block of `pairs` (query, query head) pairs, for `n_each` query heads per
    key/value head.
    """
    return max(1, pairs // triton.next_power_of_2(n_each))


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    inputs: Inputs,
    n_block: int,
    scaling: float,
    window: int | None,
    softcap: float | None,
    is_step: bool,
) -> torch.Tensor:
    """q [N, H*Q, D], k and v [N, H, D], pages [P, H, T, D] → [N, H*Q, D].

    Stores the keys and values. `n_block`: queries of a block at most. `is_step`: no query reads
    keys that another one of the batch writes.
    """
    n_queries, n_heads, size = k.shape
    n_each = q.shape[1] // n_heads
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    q = q.to(keys.dtype)
    out = torch.empty((n_queries, n_heads * n_each, size), dtype=q.dtype, device=q.device)
    padded = max(_LEAST, triton.next_power_of_2(size))
    strides = k.stride(0), k.stride(1), v.stride(0), v.stride(1)
    if not is_step:
        kernels.store_kernel[(n_queries, n_heads)](
            k, v, keys, values, inputs["write_page"], inputs["write_offset"], *strides,
            H=n_heads, T=PAGE_SIZE, D=size, BD=padded, num_warps=1,
        )  # fmt: skip
    per_query = triton.next_power_of_2(n_each)
    names = (
        "table",
        "starts",
        "at",
        "n_pages",
        "n_last",
        "positions",
        "write_page",
        "write_offset",
        "first",
        "length",
        "common",
    )
    kernels.attend_kernel[(inputs.sizes.n_blocks, n_heads)](
        q, k, v, out, keys, values, *(inputs[name] for name in names),
        q.stride(0), q.stride(1), *strides, float(scaling),
        H=n_heads, Q=n_each, QP=per_query, T=PAGE_SIZE, D=size, BD=padded,
        BM=max(_LEAST, triton.next_power_of_2(n_block * per_query)),
        BN=_tokens_at_once(padded, keys.dtype), CODE=2 * PAGE_SIZE,
        WINDOW=window or 0, CAP=float(softcap or 0.0), STORE=is_step,
        WIDE=is_interpreted() and q.dtype == torch.bfloat16, num_warps=4,
    )  # fmt: skip
    return out


def _tokens_at_once(padded_size: int, dtype: torch.dtype) -> int:
    """Keys in a step of the kernel's loop, as many as fit into shared memory."""
    return 64 if padded_size <= 128 and dtype.itemsize <= 2 else 32


def copy_pages(data: torch.Tensor, places: torch.Tensor) -> None:
    """In every layer of `data` [L, P, …], copy the pages `places[0]` [n] to `places[1]` [n]."""
    n_layers, n_pages = data.shape[:2]
    size = data[0, 0].numel()
    kernels.copy_kernel[(places.shape[1], n_layers)](
        data, places[0], places[1], n_pages, SIZE=size, BLOCK=_COPY_BLOCK, num_warps=4
    )


def row_stats(logits: torch.Tensor, temperature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For `choose`: each row's [R, V] largest logit and sum of exponentials, per block of the
    vocabulary.
    """
    n_rows, n_vocab = logits.shape
    n_blocks = triton.cdiv(n_vocab, _VOCABULARY_BLOCK)
    tops = torch.empty((n_rows, n_blocks), dtype=torch.float32, device=logits.device)
    sums = torch.empty_like(tops)
    kernels.stats_kernel[(n_rows, n_blocks)](
        logits,
        temperature,
        tops,
        sums,
        n_vocab,
        logits.stride(0),
        n_blocks,
        BLOCK=_VOCABULARY_BLOCK,
        num_warps=4,
    )
    return tops, sums


def choose(
    logits: torch.Tensor,
    stats: tuple[torch.Tensor, torch.Tensor],
    inputs: Inputs,
    n_completions: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token for each completion [C] int64, -1 where its row is not finite, and the uniform
    numbers [C] float32 that they came from.
    """
    tokens = torch.empty(n_completions, dtype=torch.int64, device=logits.device)
    uniforms = torch.empty(n_completions, dtype=torch.float32, device=logits.device)
    n_blocks = stats[0].shape[1]
    kernels.choose_kernel[(n_completions,)](
        logits, inputs.temperature, *stats, inputs["row"], inputs.seeds, inputs["counts"],
        tokens, uniforms, logits.shape[1], logits.stride(0), n_blocks,
        NB=triton.next_power_of_2(n_blocks), BLOCK=_VOCABULARY_BLOCK, GOLDEN=int(GOLDEN),
        num_warps=4,
    )  # fmt: skip
    return tokens, uniforms
