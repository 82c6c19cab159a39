"""The Triton kernels in Triton's interpreter against their torch twins: attention over pages,
drawing, noise, copies.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import triton_here  # noqa: F401  # before the kernels are imported

# isort: split
from glore.engines.local.attention import ForwardContext, KVCache
from glore.engines.local.batch import Batch, prompt_batches
from glore.engines.local.cuda.inputs import Inputs, Sizes, chain_blocks, row_blocks
from glore.engines.local.cuda.kv_cache import CudaKVCache
from glore.engines.local.cuda.launch import attend, block_queries, choose, prompt_pairs, row_stats
from glore.engines.local.cuda.model import padded_rows
from glore.engines.local.draw import Draws, DrawSettings, draw_each
from glore.engines.local.noise import uniforms
from glore.engines.local.prefix_tree import PAGE_SIZE, PrefixTree, cut

# Triton's interpreter before 3.9 converts arrays to numbers, which numpy warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

SHAPES = st.fixed_dictionaries(
    {
        "n_heads": st.integers(1, 3),
        "n_each": st.sampled_from([1, 2, 3, 4, 7]),
        "size": st.sampled_from([8, 32, 64, 80, 96, 128]),
        "window": st.sampled_from([None, 5, 20]),
        "softcap": st.sampled_from([None, 3.0]),
        "seed": st.integers(0, 10_000),
    }
)


def random_prompts(rng: random.Random, n_texts: int) -> list[list[list[int]]]:
    """Segments of texts several of which begin alike."""
    heads = [[rng.randrange(50) for _ in range(rng.randint(1, 40))] for _ in range(2)]

    def tail() -> list[int]:
        return [rng.randrange(50) for _ in range(rng.randint(1, 20))]

    return [
        [rng.choice(heads), *(tail() for _ in range(rng.randint(0, 2)))] for _ in range(n_texts)
    ]


def both(
    batch: Batch,
    twin: KVCache,
    pages: CudaKVCache,
    n_block: int,
    shape: dict,
    dtype: torch.dtype,
    is_step: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random queries, keys and values through both; poisoned output of padded rows is dropped."""
    n, n_heads, n_each, size = batch.tokens.size, shape["n_heads"], shape["n_each"], shape["size"]
    generator = torch.Generator().manual_seed(shape["seed"] + n)
    q = torch.randn(n, n_heads * n_each, size, generator=generator).to(dtype)
    k, v = (torch.randn(n, n_heads, size, generator=generator).to(dtype) for _ in "kv")
    scaling = size**-0.5
    expected = ForwardContext(twin, batch, torch.device("cpu")).attend(
        0, q, k, v, scaling, shape["window"], shape["softcap"]
    )
    n_rows = n + 3 if is_step else n
    blocks = row_blocks(batch, n_block, n_rows) if is_step else chain_blocks(batch, n_block)
    inputs = Inputs(
        Sizes(
            n_rows,
            blocks.first.size,
            0,
            0 if is_step else batch.selected.size,
            batch.table.size + 7,
        ),
        torch.device("cpu"),
    )
    inputs.fill(batch, blocks)
    q, k, v = (torch.cat([x, torch.randn(n_rows - n, *x.shape[1:]).to(dtype)]) for x in (q, k, v))
    got = attend(
        q,
        k,
        v,
        *pages.layer(0, k),
        inputs,
        n_block,
        scaling,
        shape["window"],
        shape["softcap"],
        is_step,
    )
    return got[:n], expected


def decode_batches(rng: random.Random, tree: PrefixTree, leaves: list, n_steps: int):
    """Rows that continue the prompts, two siblings of which share a page that is full."""
    n = len(leaves)
    own: list[list[int]] = [[] for _ in leaves]
    for step in range(n_steps):
        for row, leaf in enumerate(leaves):
            if step % PAGE_SIZE == 0:
                (page,) = tree.allocate(1)
                own[row].append(page)
                tree.fill[page], tree.start[page] = PAGE_SIZE, leaf.end + step
        width = max(len(leaf.pages) + len(pages) for leaf, pages in zip(leaves, own, strict=True))
        table = np.zeros((n, width), np.int32)
        for row, leaf in enumerate(leaves):
            chain = [*leaf.pages, *own[row]]
            table[row, : len(chain)] = chain
        n_pages = np.array(
            [len(leaf.pages) + len(pages) for leaf, pages in zip(leaves, own, strict=True)],
            np.int32,
        )
        rows = np.arange(n, dtype=np.int32)
        yield Batch(
            tokens=np.array([rng.randrange(50) for _ in leaves], np.int32),
            positions=np.array([leaf.end + step for leaf in leaves], np.int32),
            write_page=table[rows, n_pages - 1],
            write_offset=np.full(n, step % PAGE_SIZE, np.int32),
            chain=rows,
            n_pages=n_pages,
            n_last=np.full(n, step % PAGE_SIZE + 1, np.int32),
            n_prompt=np.array([len(leaf.pages) for leaf in leaves], np.int32),
            table=table,
            fill=tree.fill,
            start=tree.start,
            selected=rows,
            dependent=False,
        )


def attention_agrees(
    shape: dict, n_texts: int, n_steps: int, pairs: int, dtype: torch.dtype, tolerance: float
) -> None:
    rng = random.Random(shape["seed"])
    tree = PrefixTree(256)
    twin, pages = KVCache(256), CudaKVCache(256, 1)
    leaves = []
    for segments in random_prompts(rng, n_texts):
        leaf, new = tree.acquire(cut(segments))
        leaves.append(leaf)
        for batch, _ in prompt_batches(tree, new, new[-1:], max_tokens=37):
            got, expected = both(
                batch,
                twin,
                pages,
                block_queries(shape["n_each"], prompt_pairs(dtype)),
                shape,
                dtype,
                is_step=False,
            )
            torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    for batch in decode_batches(rng, tree, leaves, n_steps):
        got, expected = both(
            batch, twin, pages, block_queries(shape["n_each"], pairs), shape, dtype, is_step=True
        )
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@settings(max_examples=8, deadline=None)
@given(shape=SHAPES, n_texts=st.integers(1, 6), pairs=st.sampled_from([1, 16, 32]))
def test_attention_equals_its_torch_twin(shape: dict, n_texts: int, pairs: int) -> None:
    attention_agrees(shape, n_texts, 2, pairs, torch.float32, 1e-4)


def test_attention_over_own_pages_that_fill_up() -> None:
    shape = {"n_heads": 2, "n_each": 3, "size": 64, "window": 9, "softcap": None, "seed": 3}
    attention_agrees(shape, 3, 2 * PAGE_SIZE + 2, 16, torch.float32, 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_in_half_precision(dtype: torch.dtype) -> None:
    shape = {"n_heads": 2, "n_each": 4, "size": 64, "window": None, "softcap": 20.0, "seed": 1}
    attention_agrees(shape, 4, 3, 16, dtype, 0.03)


def test_blocks_know_what_chains_have_in_common() -> None:
    table = np.array(
        [[4, 5, 6, 0], [4, 5, 6, 9], [4, 5, 7, 0], [8, 5, 6, 9], [4, 0, 0, 0]], np.int32
    )
    zeros = np.zeros(5, np.int32)
    batch = Batch(
        *([zeros] * 5),
        np.array([3, 4, 3, 4, 1], np.int32),
        zeros,
        zeros,
        table,
        zeros,
        zeros,
        zeros,
        False,
    )
    assert row_blocks(batch, 2, 8).common.tolist() == [3, 0, 1, 0]
    assert row_blocks(batch, 4, 8).common.tolist() == [0, 1]
    assert row_blocks(batch, 1, 6).length.tolist() == [1] * 6


def test_drawn_tokens_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    for n_vocab, scale in ((61, 3.0), (1024, 1.0), (5000, 4.0)):
        logits = torch.from_numpy(rng.normal(0, scale, (7, n_vocab)).astype(np.float32))
        logits[2, :10] = -torch.inf
        logits[3, 5:] = -torch.inf
        logits[4] = 1.0
        row = rng.integers(0, 7, 60)
        temperature = np.array([1, 0, 0.7, 1, 0, 2, 1], np.float32)[row]
        some = DrawSettings(temperature, np.zeros(60, np.int64), np.ones(60, np.float32))
        draws = Draws(
            row, rng.integers(0, 2**63, 60).astype(np.uint64), rng.integers(0, 300, 60), some
        )
        inputs = Inputs(Sizes(7, 0, 60, 0, 0), torch.device("cpu"))
        inputs.fill_draws(draws)
        tokens, drawn = choose(logits, row_stats(logits, inputs.temperature), inputs, 60)
        assert drawn.numpy().tobytes() == uniforms(draws.seeds, draws.counts).tobytes(), (
            "the noise is the same to the bit"
        )
        expected = draw_each(logits, row, draws.uniforms(), some)
        for c in np.flatnonzero(tokens.numpy() != expected.numpy()).tolist():
            cdf = torch.softmax(
                logits[row[c]].double() / max(float(temperature[c]), 1e-9), 0
            ).cumsum(0)
            assert temperature[c] > 0
            assert min(abs(cdf[tokens[c]] - drawn[c]), abs(cdf[expected[c]] - drawn[c])) < 1e-5, (
                "apart only on the edge"
            )
        assert (tokens == expected).float().mean() > 0.95
        assert torch.isfinite(logits[row, tokens]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy, at infinities
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_are_not_finite_are_told(bad: float, temperature: float) -> None:
    logits = torch.zeros(2, 1500)
    logits[1, 1200] = bad
    if bad < 0:
        logits[1] = bad
    some = DrawSettings(
        np.full(2, temperature, np.float32), np.zeros(2, np.int64), np.ones(2, np.float32)
    )
    draws = Draws(np.arange(2), np.array([5, 6], np.uint64), np.array([0, 1]), some)
    inputs = Inputs(Sizes(2, 0, 2, 0, 0), torch.device("cpu"))
    inputs.fill_draws(draws)
    tokens, _ = choose(logits, row_stats(logits, inputs.temperature), inputs, 2)
    assert tokens[0] >= 0
    assert tokens[1] == -1


def test_pages_are_copied_in_every_layer() -> None:
    pages = CudaKVCache(6, 3)
    pages.layer(0, torch.zeros(1, 2, 24))
    assert pages.data is not None
    pages.data.normal_()
    before = pages.data.clone()
    pages.copy([0, 3], [5, 1])
    before[:, [5, 1]] = before[:, [0, 3]]
    assert torch.equal(pages.data, before)
    with pytest.raises(NotImplementedError, match="different shapes"):
        pages.layer(1, torch.zeros(1, 2, 16))


@given(sizes=st.builds(Sizes, *[st.integers(0, 70)] * 5))
def test_fields_of_the_inputs_are_aligned_whatever_their_lengths(sizes: Sizes) -> None:
    """Triton compiles a kernel again for every pattern of alignments: seconds each."""
    inputs = Inputs(sizes, torch.device("cpu"))
    names = ("seeds", "tokens", "at", "n_last", "first", "common", "row", "selected", "table")
    for name in (*names, "starts"):
        assert inputs[name].data_ptr() % 16 == 0 or not inputs[name].numel()
    assert inputs["at"].numel() == sizes.n_queries
    assert inputs["starts"].numel() == sizes.n_entries


def test_padded_row_counts_are_few_and_close() -> None:
    counts = [padded_rows(n) for n in range(1, 1025)]
    assert all(n <= c < 2 * n for n, c in enumerate(counts, 1))
    assert sorted(set(counts)) == [
        1,
        2,
        4,
        8,
        16,
        32,
        48,
        64,
        96,
        128,
        192,
        256,
        384,
        512,
        768,
        1024,
    ]
