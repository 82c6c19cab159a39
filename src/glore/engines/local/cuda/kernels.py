"""Triton kernels: attention over pages of the prefix tree, the writing and copying of pages, and
drawing.

Triton's interpreter (`TRITON_INTERPRET=1`) runs them on a CPU: tests hold them to
`glore.engines.local.attention.ForwardContext` and `glore.engines.local.draw`.

Attention works on *blocks*: a few consecutive queries of a batch. What their chains have in common
at the beginning (the prompt of siblings, a question) is read once for all of them, then the pages
of each query's own. So one kernel a layer does what cascade attention does in two or three,
without partial results in memory. A query meets its own key in registers; hence a decode step
stores the new keys and values in the same kernel.

Axes: N queries, H key/value heads, Q query heads for each, D head size, P pages, T tokens of a
page, R rows of logits, V vocabulary, C completions. M = (query, query head) pairs of a block, S =
slots: tokens of pages that are read at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "add_norm_kernel",
    "attend_kernel",
    "choose_kernel",
    "copy_kernel",
    "gate_kernel",
    "stats_kernel",
    "store_kernel",
]


@triton.jit
def _capped(scores, CAP: tl.constexpr):
    """softcap · tanh(scores / softcap), by the sigmoid, which the interpreter knows too."""
    if CAP > 0:
        scores = (2 * tl.sigmoid(2 * scores / CAP) - 1) * CAP
    return scores


@triton.jit
def _read(
    x, row_M, row_stride, head, head_stride, d, mask_MD, position_M, norm, cosine, sine, eps,
    D: tl.constexpr, ROPE: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Queries or keys [M, D] of one head, with norm and rotation where the model has them.

    In the type that they are stored in, rounded once. The rotation pairs d with d + D/2, as
    transformers' `rotate_half` does.
    """
    at_M = row_M * row_stride + head * head_stride
    x_MD = tl.load(x + at_M[:, None] + d[None, :], mask=mask_MD, other=0.0)
    if ROPE:
        half = D // 2
        d2 = tl.where(d < half, d + half, d - half)
        other_MD = tl.load(x + at_M[:, None] + d2[None, :], mask=mask_MD, other=0.0)
        a_MD, b_MD = x_MD.to(tl.float32), other_MD.to(tl.float32)
        if NORM:
            scale_M = tl.rsqrt(tl.sum(a_MD * a_MD, axis=1) / D + eps)
            inside = d < D
            a_MD *= scale_M[:, None] * tl.load(norm + d, mask=inside, other=0.0).to(tl.float32)
            b_MD *= scale_M[:, None] * tl.load(norm + d2, mask=inside, other=0.0).to(tl.float32)
        at_angle = position_M[:, None] * D + d[None, :]
        cos_MD = tl.load(cosine + at_angle, mask=mask_MD, other=0.0)
        sin_MD = tl.load(sine + at_angle, mask=mask_MD, other=0.0)
        sign = tl.where(d < half, -1.0, 1.0)
        x_MD = (a_MD * cos_MD + sign[None, :] * b_MD * sin_MD).to(x_MD.dtype)
    return x_MD


@triton.jit
def _slots(
    n, n_shared, n_common, s, own_pages_S, common_at, own_at_S,
    T: tl.constexpr, BN: tl.constexpr, OWN: tl.constexpr,
):  # fmt: skip
    """The tokens of step `n` [S]: the place of their page in its chain, their place in the page,
    whether there is such a page, and its entry in the table.
    """
    is_shared = n < n_shared
    slot_S = tl.where(is_shared, n * BN + s, n_common * T + (n - n_shared) * OWN + s % OWN)
    place_S = slot_S // T
    inside_S = place_S < tl.where(is_shared, n_common, own_pages_S)
    return place_S, slot_S % T, inside_S, tl.where(is_shared, common_at, own_at_S) + place_S


@triton.jit
def attend_kernel(
    q, k, v, out, keys, values,
    table, starts, at_N, n_pages_N, n_last_N, positions_N, write_page_N, write_offset_N,
    block_first, block_count, block_common, q_norm, k_norm, cosine, sine,
    q_row, q_head, k_row, k_head, v_row, v_head, scaling, eps,
    H: tl.constexpr, Q: tl.constexpr, QP: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    BD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, OWN: tl.constexpr, CODE: tl.constexpr,
    WINDOW: tl.constexpr, CAP: tl.constexpr, STORE: tl.constexpr, WIDE: tl.constexpr,
    ROPE: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """One block of queries and one key/value head → out [N, H*Q, D] (contiguous).

    `table` holds chains one after another, a page as `page * CODE + fill`; `at_N`: where a query's
    chain begins. `starts`: as `table`, the position of each page's first token. `OWN`: tokens of
    each query's own pages that are read at once, so that BN / OWN is the most queries of a block.
    `STORE`: the queries' keys and values are written too. `ROPE`, `NORM`: queries and keys are
    still to be rotated, and normalised before. `WIDE`: products of float32 copies of their
    operands, to the same result: the interpreter knows no bfloat16 products.
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
    position_M = tl.load(positions_N + query_M, mask=asked_M, other=0)
    d = tl.arange(0, BD)
    mask_MD = valid_M[:, None] & (d < D)[None, :]
    q_MD = _read(
        q, query_M, q_row, head * Q + group_M, q_head, d, mask_MD, position_M, q_norm, cosine,
        sine, eps, D, ROPE, NORM,
    )  # fmt: skip
    k_MD = _read(
        k, query_M, k_row, head, k_head, d, mask_MD, position_M, k_norm, cosine, sine, eps, D,
        ROPE, NORM,
    )  # fmt: skip
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
    # What the chains have in common is read BN tokens at once, then the pages of every query's own,
    # OWN tokens of each at once.
    s = tl.arange(0, BN)
    mine_S = s // OWN
    row_S = first + tl.minimum(mine_S, count - 1)
    own_pages_S = tl.load(n_pages_N + row_S)
    own_at_S = tl.load(at_N + row_S)
    # All but the query's own token, which is counted already.
    n_own_S = (own_pages_S - 1 - n_common) * T + tl.load(n_last_N + row_S) - 1
    common_at = tl.load(at_N + first)
    n_shared = tl.cdiv(n_common * T, BN)
    n_steps = n_shared + tl.cdiv(tl.max(tl.maximum(n_own_S, 0), axis=0), OWN)
    place_S, offset_S, inside_S, entry_S = _slots(
        0, n_shared, n_common, s, own_pages_S, common_at, own_at_S, T, BN, OWN
    )
    code_S = tl.load(table + entry_S, mask=inside_S, other=0)
    for n in range(n_steps):
        is_shared = n < n_shared
        page_S, fill_S = (code_S // CODE).to(tl.int64), code_S % CODE
        address_S = ((page_S * H + head) * T + offset_S) * D
        k_DS = tl.load(
            keys + address_S[None, :] + d[:, None],
            mask=inside_S[None, :] & (d < D)[:, None],
            other=0.0,
        )
        v_SD = tl.load(
            values + address_S[:, None] + d[None, :],
            mask=inside_S[:, None] & (d < D)[None, :],
            other=0.0,
        )
        # Where the next step's pages are is read while this one's arrive.
        next_place_S, next_offset_S, next_inside_S, next_entry_S = _slots(
            n + 1, n_shared, n_common, s, own_pages_S, common_at, own_at_S, T, BN, OWN
        )
        code_S = tl.load(table + next_entry_S, mask=next_inside_S, other=0)
        if WIDE:
            k_DS = k_DS.to(tl.float32)
        scores = _capped(tl.dot(q_MD, k_DS, input_precision="tf32x3") * scaling, CAP)
        is_last = place_S[None, :] == n_pages_M[:, None] - 1
        limit = tl.where(is_last, n_last_M[:, None] - 1, fill_S[None, :])
        seen = (
            valid_M[:, None]
            & (is_shared | (mine_M[:, None] == mine_S[None, :]))
            & inside_S[None, :]
            & (place_S[None, :] < n_pages_M[:, None])
            & (offset_S[None, :] < limit)
        )
        if WINDOW > 0:
            key_S = tl.load(starts + entry_S, mask=inside_S, other=0) + offset_S
            seen = seen & (key_S[None, :] > position_M[:, None] - WINDOW)
        scores = tl.where(seen, scores, float("-inf"))
        most_M = tl.maximum(top_M, tl.max(scores, axis=1))
        fade_M = tl.exp(top_M - most_M)
        weights = tl.exp(scores - most_M[:, None])
        rounded = weights.to(v_SD.dtype)
        if WIDE:
            rounded, v_SD = rounded.to(tl.float32), v_SD.to(tl.float32)
        part_MD = part_MD * fade_M[:, None] + tl.dot(rounded, v_SD, input_precision="tf32x3")
        total_M = total_M * fade_M + tl.sum(weights, axis=1)
        top_M = most_M
        place_S, offset_S, inside_S, entry_S = (
            next_place_S, next_offset_S, next_inside_S, next_entry_S,
        )  # fmt: skip
    target = (query_M * (H * Q) + head * Q + group_M)[:, None] * D + d[None, :]
    tl.store(out + target, (part_MD / total_M[:, None]).to(out.dtype.element_ty), mask=mask_MD)


@triton.jit(do_not_specialize=["n_queries"])
def store_kernel(
    k, v, keys, values, write_page_N, write_offset_N, positions_N, k_norm, cosine, sine,
    k_row, k_head, v_row, v_head, n_queries, eps,
    H: tl.constexpr, T: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr,
    ROPE: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Store BM queries' keys and values of one head in their pages; nothing if the page is -1."""
    query_M = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    head = tl.program_id(1)
    asked_M = query_M < n_queries
    page_M = tl.load(write_page_N + query_M, mask=asked_M, other=-1).to(tl.int64)
    position_M = tl.load(positions_N + query_M, mask=asked_M, other=0)
    offset_M = tl.load(write_offset_N + query_M, mask=asked_M, other=0)
    d = tl.arange(0, BD)
    mask_MD = (page_M >= 0)[:, None] & (d < D)[None, :]
    k_MD = _read(
        k, query_M, k_row, head, k_head, d, mask_MD, position_M, k_norm, cosine, sine, eps, D,
        ROPE, NORM,
    )  # fmt: skip
    v_MD = tl.load(
        v + query_M[:, None] * v_row + head * v_head + d[None, :], mask=mask_MD, other=0.0
    )
    target = (((page_M * H + head) * T + offset_M) * D)[:, None] + d[None, :]
    tl.store(keys + target, k_MD, mask=mask_MD)
    tl.store(values + target, v_MD, mask=mask_MD)


@triton.jit
def add_norm_kernel(
    x, stream, weight, out, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr
):
    """One row of the residual stream: add x [SIZE] to it (`ADD`), and give its root mean square
    norm.
    """
    i = tl.arange(0, BLOCK)
    at = tl.program_id(0).to(tl.int64) * SIZE + i
    row = tl.load(stream + at, mask=i < SIZE, other=0.0)
    if ADD:
        more = tl.load(x + at, mask=i < SIZE, other=0.0)
        row = (row.to(tl.float32) + more.to(tl.float32)).to(row.dtype)
        tl.store(stream + at, row, mask=i < SIZE)
    wide = row.to(tl.float32)
    wide *= tl.rsqrt(tl.sum(wide * wide, axis=0) / SIZE + eps)
    wide *= tl.load(weight + i, mask=i < SIZE, other=0.0).to(tl.float32)
    tl.store(out + at, wide.to(row.dtype), mask=i < SIZE)


@triton.jit
def gate_kernel(gate_up, out, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """silu(gate) · up of one row [2 * SIZE] → [SIZE]."""
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(0).to(tl.int64)
    gate = tl.load(gate_up + row * 2 * SIZE + i, mask=i < SIZE, other=0.0)
    up = tl.load(gate_up + row * 2 * SIZE + SIZE + i, mask=i < SIZE, other=0.0)
    wide = gate.to(tl.float32)
    value = wide * tl.sigmoid(wide) * up.to(tl.float32)
    tl.store(out + row * SIZE + i, value.to(gate.dtype), mask=i < SIZE)


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
