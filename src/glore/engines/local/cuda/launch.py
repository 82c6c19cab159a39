"""Calls of the kernels: tensors in, tensors out. Block shapes are chosen here.

Axes as in `glore.engines.local.cuda.kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton

from glore.engines.local.cuda import kernels
from glore.engines.local.noise import GOLDEN
from glore.engines.local.prefix_tree import PAGE_SIZE

if TYPE_CHECKING:
    from glore.engines.local.cuda.inputs import Inputs

__all__ = [
    "Rotation",
    "add_norm",
    "attend",
    "block_queries",
    "choose",
    "copy_pages",
    "gated",
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
_STORED_AT_ONCE = 16
_FEW_PAIRS = 16
_WARPS = {True: 2, False: 4}
"""Of the attention kernel, for blocks of up to `_FEW_PAIRS` and of more."""
_STAGES = 3
_GATED_AT_ONCE = 2048


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


class Rotation(NamedTuple):
    """What queries and keys still need before attention."""

    cosine: torch.Tensor
    """[positions, D] float32"""
    sine: torch.Tensor
    q_norm: torch.Tensor | None = None
    """[D]; none: no norms."""
    k_norm: torch.Tensor | None = None
    eps: float = 0.0


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
    rotation: Rotation | None = None,
) -> torch.Tensor:
    """q [N, H*Q, D], k and v [N, H, D], pages [P, H, T, D] → [N, H*Q, D].

    Stores the keys and values. `n_block`: queries of a block at most. `is_step`: no query reads
    keys that another one of the batch writes. `rotation`: none where q and k have it.
    """
    n_queries, n_heads, size = k.shape
    n_each = q.shape[1] // n_heads
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    q = q.to(keys.dtype)
    out = torch.empty((n_queries, n_heads * n_each, size), dtype=q.dtype, device=q.device)
    padded = max(_LEAST, triton.next_power_of_2(size))
    strides = k.stride(0), k.stride(1), v.stride(0), v.stride(1)
    # Tensors that a kernel does not read are some tensor all the same.
    cosine, sine, q_norm, k_norm, eps = rotation or (q, q, None, None, 0.0)
    turned = {"ROPE": rotation is not None, "NORM": q_norm is not None}
    if q_norm is None or k_norm is None:
        q_norm = k_norm = cosine
    if not is_step:
        kernels.store_kernel[(triton.cdiv(n_queries, _STORED_AT_ONCE), n_heads)](
            k, v, keys, values,
            inputs["write_page"], inputs["write_offset"], inputs["positions"],
            k_norm, cosine, sine, *strides, n_queries, eps,
            H=n_heads, T=PAGE_SIZE, D=size, BD=padded, BM=_STORED_AT_ONCE, **turned, num_warps=4,
        )  # fmt: skip
    per_query = triton.next_power_of_2(n_each)
    at_once = _tokens_at_once(padded, keys.dtype)
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
    block_pairs = max(_LEAST, triton.next_power_of_2(n_block * per_query))
    kernels.attend_kernel[(inputs.sizes.n_blocks, n_heads)](
        q, k, v, out, keys, values, *(inputs[name] for name in names),
        q_norm, k_norm, cosine, sine, q.stride(0), q.stride(1), *strides, float(scaling), eps,
        H=n_heads, Q=n_each, QP=per_query, T=PAGE_SIZE, D=size, BD=padded,
        BM=block_pairs, BN=at_once, OWN=max(1, at_once // triton.next_power_of_2(n_block)),
        CODE=2 * PAGE_SIZE,
        WINDOW=window or 0, CAP=float(softcap or 0.0), STORE=is_step,
        WIDE=is_interpreted() and q.dtype == torch.bfloat16, **turned,
        num_warps=_WARPS[block_pairs <= _FEW_PAIRS], num_stages=_STAGES,
    )  # fmt: skip
    return out


def add_norm(
    x: torch.Tensor | None, stream: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """Add x [N, I] to the residual stream [N, I] in place; its root mean square norm [N, I]."""
    out = torch.empty_like(stream)
    size = stream.shape[1]
    kernels.add_norm_kernel[(stream.shape[0],)](
        stream if x is None else x, stream, weight, out, eps,
        SIZE=size, BLOCK=triton.next_power_of_2(size), ADD=x is not None,
        num_warps=4 if size <= 2048 else 8,
    )  # fmt: skip
    return out


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) · up: [N, 2I] → [N, I]."""
    n, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((n, size), dtype=gate_up.dtype, device=gate_up.device)
    block = min(_GATED_AT_ONCE, triton.next_power_of_2(size))
    kernels.gate_kernel[(n, triton.cdiv(size, block))](
        gate_up, out, SIZE=size, BLOCK=block, num_warps=4
    )
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
