"""Correctness on the card, checked before anything is timed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.gpu_shapes import Bench, architectures, small_model
from benchmarks.workloads import drafts, tokenizer
from glore.engines.local.attention import ForwardContext, KVCache
from glore.engines.local.batch import Batch, prompt_batches
from glore.engines.local.cuda.inputs import Inputs, Sizes, chain_blocks, row_blocks
from glore.engines.local.cuda.kv_cache import CudaKVCache
from glore.engines.local.cuda.launch import attend, block_queries, choose, prompt_pairs, row_stats
from glore.engines.local.draw import Draws, DrawSettings, draw_each
from glore.engines.local.engine import TorchEngine
from glore.engines.local.noise import uniforms
from glore.engines.local.prefix_tree import PAGE_SIZE, PrefixTree, cut
from glore.engines.local.runner import BACKENDS, ModelRunner
from glore.engines.local.scorer import StepScorer
from glore.engines.protocol import Request, SamplingParams

_FORMS = [
    # key/value heads, query heads of each, head size, window, softcap
    (3, 3, 64, None, None),
    (4, 8, 64, None, None),
    (8, 4, 128, None, None),
    (2, 1, 96, 40, None),
    (4, 2, 256, 64, 50.0),
    (2, 5, 80, None, 20.0),
    (1, 4, 32, 17, None),
]


def kernels(bench: Bench) -> dict[str, float]:
    """Attention of prompts and of decode steps against the torch twin in float32. Returns the
    largest relative error of each form.
    """
    forms = _FORMS[:2] if bench.is_dry else _FORMS
    worst: dict[str, float] = {}
    print(
        "| heads, each, size, window, softcap | type | pairs of a block | relative error "
        "|\n|---|---|---|---|"
    )
    for n, form in enumerate(forms):
        # Every pair of shape and type is compiled again, so only bfloat16 gets all of them.
        for dtype in (
            torch.bfloat16,
            *((torch.float32,) if n % 2 == 0 else ()),
            *((torch.float16,) if n == 0 else ()),
        ):
            for pairs in (1, 16, 32) if dtype == torch.bfloat16 and not bench.is_dry else (16,):
                error = _attention_error(bench, form, dtype, pairs)
                key = f"{form} {dtype} {pairs}"
                worst[key] = error
                bound = 1e-4 if dtype == torch.float32 else 1e-2
                print(
                    f"| {form} | {dtype} | {pairs} | "
                    f"{error:.1e}{'' if error < bound else ' **WRONG**'} |",
                    flush=True,
                )
    assert all(e < (1e-4 if "float32" in k else 1e-2) for k, e in worst.items()), (
        "a kernel is wrong"
    )
    return worst


def _attention_error(
    bench: Bench,
    form: tuple[int, int, int, int | None, float | None],
    dtype: torch.dtype,
    pairs: int,
) -> float:
    rng, device = random.Random(1), bench.device
    n_texts = 4 if bench.is_dry else 40
    tree = PrefixTree(2048)
    twin, pages = KVCache(2048), CudaKVCache(2048, 1)
    heads = [[rng.randrange(50) for _ in range(rng.randint(20, 60))] for _ in range(4)]
    errors, leaves = [], []
    for n in range(n_texts):
        segments = [heads[n % 4], [rng.randrange(50) for _ in range(rng.randint(1, 30))]]
        found = tree.acquire(cut(segments))
        assert found is not None
        leaves.append(found[0])
        for batch, _ in prompt_batches(tree, found[1], found[1][-1:], 37):
            errors.append(
                _error(
                    batch,
                    twin,
                    pages,
                    form,
                    dtype,
                    block_queries(form[1], prompt_pairs(dtype)),
                    device,
                    is_step=False,
                )
            )
    own: list[list[int]] = [[] for _ in leaves]
    for step in range(2 if bench.is_dry else PAGE_SIZE + 3):
        for row, leaf in enumerate(leaves):
            if step % PAGE_SIZE == 0:
                taken = tree.allocate(1)
                assert taken is not None
                own[row] += taken
                tree.fill[taken[0]], tree.start[taken[0]] = PAGE_SIZE, leaf.end + step
        chains = [[*leaf.pages, *mine] for leaf, mine in zip(leaves, own, strict=True)]
        table = np.zeros((len(chains), max(map(len, chains))), np.int32)
        for row, chain in enumerate(chains):
            table[row, : len(chain)] = chain
        n_pages = np.array([len(c) for c in chains], np.int32)
        rows = np.arange(len(chains), dtype=np.int32)
        batch = Batch(
            tokens=rows,
            positions=np.array([leaf.end + step for leaf in leaves], np.int32),
            write_page=table[rows, n_pages - 1],
            write_offset=np.full(rows.size, step % PAGE_SIZE, np.int32),
            chain=rows,
            n_pages=n_pages,
            n_last=np.full(rows.size, step % PAGE_SIZE + 1, np.int32),
            n_prompt=n_pages,
            table=table,
            fill=tree.fill,
            start=tree.start,
            selected=rows,
            dependent=False,
        )
        errors.append(
            _error(
                batch, twin, pages, form, dtype, block_queries(form[1], pairs), device, is_step=True
            )
        )
    return max(errors)


def _error(
    batch: Batch,
    twin: KVCache,
    pages: CudaKVCache,
    form: tuple[int, int, int, int | None, float | None],
    dtype: torch.dtype,
    n_block: int,
    device: torch.device,
    is_step: bool,
) -> float:
    n_heads, n_each, size, window, softcap = form
    n = batch.tokens.size
    q, k, v = (
        torch.randn(n, h, size, device=device).to(dtype)
        for h in (n_heads * n_each, n_heads, n_heads)
    )
    expected = ForwardContext(twin, batch, device).attend(
        0, q.float(), k.float(), v.float(), size**-0.5, window, softcap
    )
    blocks = row_blocks(batch, n_block, n) if is_step else chain_blocks(batch, n_block)
    inputs = Inputs(
        Sizes(n, blocks.first.size, 0, 0 if is_step else batch.selected.size, batch.table.size),
        device,
    )
    inputs.fill(batch, blocks)
    got = attend(
        q, k, v, *pages.layer(0, k), inputs, n_block, size**-0.5, window, softcap, is_step
    ).float()
    return float((got - expected).norm() / expected.norm())


def drawing(bench: Bench) -> dict[str, float]:
    """Noise equals the twin's to the bit. Tokens equal torch's, except at distribution edges."""
    rng = np.random.default_rng(0)
    results = {}
    for n_vocab in (600, 5000) if bench.is_dry else (600, 32000, 49152, 151936):
        for dtype in (torch.float32, torch.bfloat16):
            n, n_rows = (40, 7) if bench.is_dry else (2000, 500)
            logits = torch.from_numpy(rng.normal(0, 3, (n_rows, n_vocab)).astype(np.float32)).to(
                bench.device, dtype
            )
            row = rng.integers(0, n_rows, n)
            temperature = np.where(
                np.arange(n_rows) % 3 == 0, 0, np.where(np.arange(n_rows) % 3 == 1, 1, 0.7)
            ).astype(np.float32)[row]
            some = DrawSettings(temperature, np.zeros(n, np.int64), np.ones(n, np.float32))
            draws = Draws(
                row, rng.integers(0, 2**63, n).astype(np.uint64), rng.integers(0, 300, n), some
            )
            inputs = Inputs(Sizes(n_rows, 0, n, 0, 0), bench.device)
            inputs.fill_draws(draws)
            tokens, drawn = choose(logits, row_stats(logits, inputs.temperature), inputs, n)
            assert drawn.cpu().numpy().tobytes() == uniforms(draws.seeds, draws.counts).tobytes(), (
                "the noise differs"
            )
            expected = draw_each(logits.float(), row, draws.uniforms(), some)
            share = float((tokens == expected).float().mean())
            print(
                f"vocabulary {n_vocab}, {dtype}: noise equal to the bit, {share:.2%} of tokens "
                "equal to torch's",
                flush=True,
            )
            assert share > 0.97
            results[f"{n_vocab} {dtype}"] = share
    return results


def text(bench: Bench, name: str) -> str:
    """Greedy text in float32 equals `generate`'s on 64 prompts, for an architecture or the 135M
    shape.
    """
    model = (
        bench.model("135M", torch.float32)
        if name == "135M"
        else small_model(name, bench.device, torch.float32)
    )
    n_equal, n = _greedy_equal(bench, model)
    note = "" if n_equal == n else " **DIFFERENT**"
    print(f"{name}: {n_equal} of {n} greedy texts equal `generate`'s{note}", flush=True)
    return f"{n_equal} of {n}"


def _greedy_equal(bench: Bench, model: PreTrainedModel) -> tuple[int, int]:
    n, n_new = (3, 4) if bench.is_dry else (64, 16)
    words = tokenizer(model.config.vocab_size)
    made = drafts(n, 1)
    prompts = [(d.question, *d.steps[: i % 3]) for i, d in enumerate(made)]
    ids = [[int(w[1:]) for s in segments for w in s.split()] for segments in prompts]
    theirs = greedy_tokens(model, ids, n_new)
    engine = TorchEngine.of(model, words, max_rows=64, backends=("cuda", "cuda-layers"))
    assert engine.packed, engine.runner.reason
    print(engine.backend, engine.runner.reason)
    params = SamplingParams(temperature=0.0, max_new_tokens=n_new)
    requests = [Request(str(i), segments, (1,), params) for i, segments in enumerate(prompts)]
    ours = {r.request.id: r.completions[0].text for r in engine.run(requests)}
    return sum(ours[str(i)] == engine.texts([tokens])[0] for i, tokens in enumerate(theirs)), n


@torch.inference_mode()
def greedy_tokens(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], n_new: int
) -> list[list[int]]:
    """New tokens that `generate` chooses after each prompt, one prompt at a time: padding would
    round differently. Before an engine opens the model, which changes its attention.
    """
    made = []
    for one in ids:
        given = torch.tensor([list(one)], device=model.device)
        out = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=n_new,
            pad_token_id=0,
        )
        made.append(out[0, len(one) :].tolist())
    return made


def backends(bench: Bench) -> dict[str, str]:
    """The backend chosen for each type, and whether steps are captured."""
    results = {}
    for name in architectures()[: 2 if bench.is_dry else None]:
        for dtype in (
            torch.float32,
            torch.bfloat16,
            *((torch.float16,) if name == "llama" else ()),
        ):
            asked = ("cuda", "cuda-layers") if bench.is_dry else BACKENDS
            runner = ModelRunner(small_model(name, bench.device, dtype), asked)
            refused = runner._cuda.refusal if runner._cuda is not None else ""
            results[f"{name} {dtype}"] = f"{runner.backend} {runner.reason} {refused}"
            print(f"{name} {dtype}: {runner.backend} {runner.reason} {refused}", flush=True)
    return results


def scores(bench: Bench) -> dict[str, float]:
    """A reward model's scores by our kernels against one pass per solution, in float32; solutions
    per second in bfloat16.
    """
    made = [
        (d.question, d.steps) for d in drafts(1 if bench.is_dry else 40, 2 if bench.is_dry else 8)
    ]
    exact = StepScorer.of(
        bench.reward_model("135M", torch.float32), tokenizer(), backends=("cuda",)
    )
    assert exact.backend == "cuda float32"
    plain = StepScorer.of(
        bench.reward_model("135M", torch.float32), tokenizer(), backends=("fallback",)
    )
    some = made[:16]
    pairs = zip(exact.score(some), plain.score(some), strict=True)
    apart = max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))
    print(f"scores apart by at most {apart:.1e}", flush=True)
    assert apart < 1e-3
    scorer = StepScorer.of(
        bench.reward_model("135M", torch.bfloat16), tokenizer(), backends=("cuda",)
    )
    scorer.score(made)
    start = time.perf_counter()
    scorer.score(made)
    rate = len(made) / (time.perf_counter() - start)
    print(f"bfloat16: {rate:,.0f} solutions/s", flush=True)
    return {"apart": apart, "solutions_per_second": rate}
