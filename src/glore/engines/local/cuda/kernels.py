"""Triton kernels: attention over pages of the prefix tree, the writing and copying of pages, and
drawing.

Triton's interpreter (`TRITON_INTERPRET=1`) runs them on a CPU: tests hold them to
`glore.engines.local.attention.ForwardContext` and `glore.engines.local.draw`.

Attention works on *blocks*: a few consecutive queries of a batch. What their chains have in common
at the beginning (the prompt of siblings, a question) is read once for all of them, then each
query's own pages in turn. So one kernel a layer does what cascade attention does in two or three,
without partial results in memory. A query meets its own key in registers; hence a decode step
stores the new keys and values in the same kernel.

Axes: N queries, H key/value heads, Q query heads for each, D head size, P pages, T tokens of a
page, R rows of logits, V vocabulary, C completions. M = (query, query head) pairs of a block.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend_kernel", "choose_kernel", "copy_kernel", "stats_kernel", "store_kernel"]


@triton.jit
def _capped(scores, CAP: tl.constexpr):
    """softcap · tanh(scores / softcap), by the sigmoid, which the interpreter knows too."""
    if CAP > 0:
        scores = (2 * tl.sigmoid(2 * scores / CAP) - 1) * CAP
    return scores


@triton.jit
def _fold(
    q_MD, top_M, total_M, part_MD, owner_M, n_pages_M, n_last_M, position_M,
    keys, values, table, starts, at, first_slot, end_page, head, scaling,
    H: tl.constexpr, T: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
    CODE: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Fold the next BN tokens of a chain into the running softmax of the queries that `owner_M`
    names.
    """
    slot_N = first_slot + tl.arange(0, BN)
    place_N, offset_N = slot_N // T, slot_N % T
    inside_N = place_N < end_page
    code_N = tl.load(table + at + place_N, mask=inside_N, other=0)
    page_N, fill_N = (code_N // CODE).to(tl.int64), code_N % CODE
    d = tl.arange(0, BD)
    address_N = ((page_N * H + head) * T + offset_N) * D
    k_DN = tl.load(
        keys + address_N[None, :] + d[:, None], mask=inside_N[None, :] & (d < D)[:, None], other=0.0
    )
    if WIDE:
        k_DN = k_DN.to(tl.float32)
    scores = _capped(tl.dot(q_MD, k_DN, input_precision="tf32x3") * scaling, CAP)
    is_last = place_N[None, :] == n_pages_M[:, None] - 1
    limit = tl.where(
        is_last, n_last_M[:, None] - 1, fill_N[None, :]
    )  # without the query's own token, which is counted already
    seen = (
        owner_M[:, None]
        & inside_N[None, :]
        & (place_N[None, :] < n_pages_M[:, None])
        & (offset_N[None, :] < limit)
    )
    if WINDOW > 0:
        key_N = tl.load(starts + at + place_N, mask=inside_N, other=0) + offset_N
        seen = seen & (key_N[None, :] > position_M[:, None] - WINDOW)
    scores = tl.where(seen, scores, float("-inf"))
    most_M = tl.maximum(top_M, tl.max(scores, axis=1))
    fade_M = tl.exp(top_M - most_M)
    weights = tl.exp(scores - most_M[:, None])
    v_ND = tl.load(
        values + address_N[:, None] + d[None, :],
        mask=inside_N[:, None] & (d < D)[None, :],
        other=0.0,
    )
    rounded = weights.to(v_ND.dtype)
    if WIDE:
        rounded, v_ND = rounded.to(tl.float32), v_ND.to(tl.float32)
    part_MD = part_MD * fade_M[:, None] + tl.dot(rounded, v_ND, input_precision="tf32x3")
    return most_M, total_M * fade_M + tl.sum(weights, axis=1), part_MD


@triton.jit
def attend_kernel(
    q, k, v, out, keys, values,
    table, starts, at_N, n_pages_N, n_last_N, positions_N, write_page_N, write_offset_N,
    block_first, block_count, block_common,
    q_row, q_head, k_row, k_head, v_row, v_head, scaling,
    H: tl.constexpr, Q: tl.constexpr, QP: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    BD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CODE: tl.constexpr,
    WINDOW: tl.constexpr, CAP: tl.constexpr, STORE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One block of queries and one key/value head → out [N, H*Q, D] (contiguous).

    `table` holds chains one after another, a page as `page * CODE + fill`; `at_N`: where a query's
    chain begins. `starts`: as `table`, the position of each page's first token. `STORE`: the
    queries' keys and values are written too. `WIDE`: products of float32 copies of their operands,
    to the same result: the interpreter knows no bfloat16 products.
    """
    block, head = tl.program_id(0), tl.program_id(1)
    first, count, n_common = (
        tl.load(block_first + block),
        tl.load(block_count + block),
        tl.load(block_common + block),
    )
    m = tl.arange(0, BM)
    mine_M, group_M = m // QP, m % QP
    query_M = (first + mine_M).to(tl.int64)
    asked_M = mine_M < count
    valid_M = asked_M & (group_M < Q)
    d = tl.arange(0, BD)
    mask_MD = valid_M[:, None] & (d < D)[None, :]
    q_MD = tl.load(
        q + query_M[:, None] * q_row + (head * Q + group_M)[:, None] * q_head + d[None, :],
        mask=mask_MD,
        other=0.0,
    )
    k_MD = tl.load(
        k + query_M[:, None] * k_row + head * k_head + d[None, :], mask=mask_MD, other=0.0
    )
    v_MD = tl.load(
        v + query_M[:, None] * v_row + head * v_head + d[None, :], mask=mask_MD, other=0.0
    )
    if STORE:
        page_M = tl.load(write_page_N + query_M, mask=asked_M, other=-1).to(tl.int64)
        offset_M = tl.load(write_offset_N + query_M, mask=asked_M, other=0)
        target = (((page_M * H + head) * T + offset_M) * D)[:, None] + d[None, :]
        written = mask_MD & ((page_M >= 0) & (group_M == 0))[:, None]
        tl.store(keys + target, k_MD, mask=written)
        tl.store(values + target, v_MD, mask=written)
    top_M = _capped(tl.sum(q_MD.to(tl.float32) * k_MD.to(tl.float32), axis=1) * scaling, CAP)
    if WIDE:
        q_MD = q_MD.to(tl.float32)
    total_M = tl.full((BM,), 1.0, tl.float32)
    part_MD = v_MD.to(tl.float32)
    n_pages_M = tl.load(n_pages_N + query_M, mask=asked_M, other=0)
    n_last_M = tl.load(n_last_N + query_M, mask=asked_M, other=0)
    position_M = tl.load(positions_N + query_M, mask=asked_M, other=0)
    # What the chains have in common, then each query's own: one loop, since its body is most of the
    # code.
    for n in range(count + 1):
        row = first + tl.maximum(n - 1, 0)
        own_pages = tl.load(n_pages_N + row)
        n_pages = tl.where(n == 0, n_common, own_pages)
        begin = tl.where(n == 0, 0, n_common * T)
        end = tl.where(n == 0, n_common * T, (own_pages - 1) * T + tl.load(n_last_N + row) - 1)
        owner_M = valid_M & ((mine_M == n - 1) | (mine_M * 0 + n == 0))
        at = tl.load(at_N + row)
        for slot in range(begin, end, BN):
            top_M, total_M, part_MD = _fold(
                q_MD, top_M, total_M, part_MD, owner_M, n_pages_M, n_last_M, position_M,
                keys, values, table, starts, at, slot, n_pages, head, scaling,
                H, T, D, BD, BN, CODE, WINDOW, CAP, WIDE,
            )  # fmt: skip
    target = (query_M * (H * Q) + head * Q + group_M)[:, None] * D + d[None, :]
    tl.store(out + target, (part_MD / total_M[:, None]).to(out.dtype.element_ty), mask=mask_MD)


@triton.jit
def store_kernel(
    k, v, keys, values, write_page_N, write_offset_N, k_row, k_head, v_row, v_head,
    H: tl.constexpr, T: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Store one query's keys and values of one head in its page; nothing if the page is -1."""
    query, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    page = tl.load(write_page_N + query).to(tl.int64)
    d = tl.arange(0, BD)
    mask = d < tl.where(page >= 0, D, 0)
    target = ((page * H + head) * T + tl.load(write_offset_N + query)) * D + d
    tl.store(keys + target, tl.load(k + query * k_row + head * k_head + d, mask=mask), mask=mask)
    tl.store(values + target, tl.load(v + query * v_row + head * v_head + d, mask=mask), mask=mask)


@triton.jit
def copy_kernel(pages, sources, targets, n_pages, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Copy one page of one layer of `pages` [L, P, SIZE] to another place."""
    n, layer = tl.program_id(0), tl.program_id(1).to(tl.int64)
    source = (layer * n_pages + tl.load(sources + n)) * SIZE
    target = (layer * n_pages + tl.load(targets + n)) * SIZE
    for start in range(0, SIZE, BLOCK):
        i = start + tl.arange(0, BLOCK)
        tl.store(pages + target + i, tl.load(pages + source + i, mask=i < SIZE), mask=i < SIZE)


@triton.jit
def stats_kernel(
    logits, temperature_R, tops, sums, n_vocab, row_stride, n_blocks, BLOCK: tl.constexpr
):
    """Per row and block of the vocabulary: the largest logit (over the temperature) and the sum of
    exponentials above it.

    Anything not finite makes the sum NaN.
    """
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature = tl.load(temperature_R + row)
    i = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row * row_stride + i, mask=i < n_vocab, other=float("-inf")).to(tl.float32)
    x = x / tl.where(temperature > 0, temperature, 1.0)
    top = tl.max(x, axis=0)
    base = tl.where(top == float("-inf"), 0.0, top)
    tl.store(tops + row * n_blocks + block, top)
    tl.store(sums + row * n_blocks + block, tl.sum(tl.exp(x - base), axis=0))


@triton.jit
def _mixed(x):
    """SplitMix64's finaliser, as in `glore.engines.local.noise`."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def choose_kernel(
    logits, temperature_R, tops, sums, row_C, seeds_C, counts_C, tokens_C, uniforms_C,
    n_vocab, row_stride, n_blocks,
    NB: tl.constexpr, BLOCK: tl.constexpr, GOLDEN: tl.constexpr,
):  # fmt: skip
    """One completion's token, by inverse of the distribution function at its uniform number; the
    lowest of the likeliest where greedy.

    -1 where the row's logits are not finite. `uniforms_C` gets the random numbers.
    """
    c = tl.program_id(0)
    row = tl.load(row_C + c).to(tl.int64)
    temperature = tl.load(temperature_R + row)
    seed = tl.load(seeds_C + c).to(tl.uint64, bitcast=True)
    count = tl.load(counts_C + c).to(tl.uint64)
    bits = _mixed(_mixed(seed + GOLDEN) + (count + 1) * GOLDEN) >> 40
    uniform = bits.to(tl.float32) * (1.0 / 16777216.0)
    tl.store(uniforms_C + c, uniform)
    b = tl.arange(0, NB)
    tops_B = tl.load(tops + row * n_blocks + b, mask=b < n_blocks, other=float("-inf"))
    sums_B = tl.load(sums + row * n_blocks + b, mask=b < n_blocks, other=0.0)
    top = tl.max(tops_B, axis=0)
    weights_B = tl.where(tops_B == float("-inf"), sums_B * 0.0, sums_B * tl.exp(tops_B - top))
    cdf_B = tl.cumsum(weights_B, axis=0)
    total = tl.sum(tl.where(b == NB - 1, cdf_B, 0.0), axis=0)
    finite = (total < float("inf")) & (top < float("inf")) & (top > float("-inf"))
    # Strictly below the total, so that the last token with a positive probability is the last that
    # can come out.
    point = tl.minimum(uniform * total, total * 0.99999994)
    drawn_block = tl.sum((cdf_B <= point).to(tl.int32), axis=0)
    best_block = tl.min(tl.where(tops_B == top, b, NB), axis=0)
    block = tl.where(temperature > 0, drawn_block, best_block)
    block = tl.where(finite, block, 0)
    before = tl.sum(tl.where(b == block - 1, cdf_B, 0.0), axis=0)
    n = tl.arange(0, BLOCK)
    i = block * BLOCK + n
    x = tl.load(logits + row * row_stride + i, mask=i < n_vocab, other=float("-inf")).to(tl.float32)
    x = x / tl.where(temperature > 0, temperature, 1.0)
    best = tl.min(tl.where(x == top, n, BLOCK), axis=0)
    weights = tl.exp(x - top)
    last = tl.max(tl.where(weights > 0, n, 0), axis=0)
    drawn = tl.minimum(
        tl.sum((before + tl.cumsum(weights, axis=0) <= point).to(tl.int32), axis=0), last
    )
    token = block * BLOCK + tl.where(temperature > 0, drawn, best)
    tl.store(tokens_C + c, tl.where(finite, token, -1).to(tl.int64))
