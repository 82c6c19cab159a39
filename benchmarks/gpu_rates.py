"""Speed: the card's own limits, one decode step and the parts of its time, rollouts against
transformers.

The bandwidth bound of a step: its weights, the distinct pages of keys and values, and the logits,
each moved once, over the card's peak. The share of it counts the whole run, including the host's
work. Beside it stands what the step's products alone would take at the rate of large products: with
many rows they are the longer of the two.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from benchmarks.gpu_shapes import Bench
from benchmarks.workloads import Ask, requests, tokenizer
from glore.engines.local.batch import Batch
from glore.engines.local.draw import Drawn, Draws
from glore.engines.local.engine import TorchEngine
from glore.engines.local.runner import ModelRunner

_PEAKS = {"H200": 4.8e12, "H100 80GB HBM3": 3.35e12}
"""Bytes per second by the vendor's datasheet, by a part of the card's name."""
Timed = Callable[[bool], tuple[int, float]]
"""Does the work once, or a part that warms up: tokens, seconds."""


def card(bench: Bench) -> dict[str, float]:
    """Copy bandwidth (bytes read and written) and the rate of bfloat16 products on random data."""
    if bench.is_dry:
        bench.card = {"copy": 1e10, "peak": 1e10}
        return bench.card
    source = torch.randn(1 << 30, device=bench.device)
    target = torch.empty_like(source)
    seconds = _median_seconds(lambda: target.copy_(source), 10)
    a, b = (torch.randn(8192, 8192, device=bench.device, dtype=torch.bfloat16) for _ in "ab")
    product = _median_seconds(lambda: a @ b, 10)
    copy = 2 * source.numel() * 4 / seconds
    peak = next((rate for name, rate in _PEAKS.items() if name in bench.name), copy)
    bench.card = {
        "copy": copy,
        "peak": peak,
        "flops": 2 * 8192**3 / product,
        "free": float(torch.cuda.mem_get_info()[0]),
    }
    print(
        f"{bench.name}: copy {copy / 1e12:.2f} TB/s, datasheet {peak / 1e12:.2f} TB/s, bfloat16 "
        f"{bench.card['flops'] / 1e12:.0f} TFLOP/s"
    )
    return bench.card


def _median_seconds(work: Callable[[], object], n: int) -> float:
    work()
    times = []
    for _ in range(n):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


# --- one step
# --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _watched(
    seen: list[tuple[int, float, float]], bytes_of: Callable[[Batch], int]
) -> Iterator[None]:
    """Records (rows, bytes that must move, seconds since the step before) of every decode step."""
    step = ModelRunner.step

    def noting(
        self: ModelRunner, batch: Batch, store: object, draws: Draws, n_threads: int = 1
    ) -> Drawn:
        seen.append((batch.tokens.size, bytes_of(batch), time.perf_counter()))
        return step(self, batch, store, draws, n_threads)  # type: ignore[arg-type]

    ModelRunner.step = noting  # type: ignore[method-assign]
    try:
        yield
    finally:
        ModelRunner.step = step  # type: ignore[method-assign]


def step(bench: Bench, size: str) -> dict[str, object]:
    """1,024 rows side by side: seconds per step of the whole engine, of the graph alone, and the
    share of the bandwidth bound.
    """
    peak = bench.card.get("peak") or card(bench)["peak"]
    results: dict[str, object] = {}
    n_rows = 16 if bench.is_dry else 1024
    asks = bench.asks(128)
    print(
        "| variant | rows | step, engine (ms) | card alone (ms) | bound (ms) | share of it "
        "| card alone | products alone (ms) |\n|" + "---|" * 8
    )
    variants: dict[str, dict[str, object]] = {
        "as shipped": {},
        "the model's own layers": {"backends": ("cuda-layers",)},
    }
    for name, options in variants.items():
        begun = time.perf_counter()
        model = bench.model(size)
        words = tokenizer(model.config.vocab_size)
        engine = engine_of(model, words, n_rows, **options)
        results[name] = _step_rates(bench, engine, asks, name, peak)
        print(f"(set up and measured in {time.perf_counter() - begun:.0f} s)", flush=True)
        if name == "as shipped":
            _profile(bench, engine, asks)
        engine.runner.close()
        del engine
        bench.free()
    return results


def engine_of(
    model: PreTrainedModel, words: PreTrainedTokenizerBase, n_rows: int, **options: object
) -> TorchEngine:
    """Our engine; on the fastest backend, unless `backends` says otherwise."""
    options = {"backends": ("cuda",), **options}
    engine = TorchEngine.of(model, words, max_rows=n_rows, **options)
    assert engine.runner.backend in options["backends"], engine.runner.reason
    return engine


def _run(bench: Bench, engine: TorchEngine, asks: list[Ask]) -> tuple[int, float]:
    bench.sync()
    start = time.perf_counter()
    n = sum(c.n_tokens for r in engine.run(requests(asks)) for c in r.completions)
    bench.sync()
    return n, time.perf_counter() - start


def _step_rates(
    bench: Bench, engine: TorchEngine, asks: list[Ask], name: str, peak: float
) -> dict[str, float]:
    cuda = engine.runner._cuda
    assert cuda is not None
    model = engine.model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    n_vocab, width = model.config.vocab_size, next(model.parameters()).element_size()

    def bytes_of(batch: Batch) -> int:
        page_bytes = cuda._pages.bytes_per_page if cuda._pages is not None else 0
        rows = np.arange(batch.table.shape[1])[None] < batch.n_pages[:, None]
        return (
            weights
            + np.unique(batch.table[rows]).size * page_bytes
            + batch.tokens.size * n_vocab * width
        )

    for _ in range(2):
        _run(bench, engine, asks)  # graphs are captured, kernels compiled
    counted: list[tuple[int, float, float]] = []
    with _watched(counted, bytes_of):
        _run(bench, engine, asks)
    timed: list[tuple[int, float, float]] = []
    with _watched(timed, lambda _: 0):
        _run(bench, engine, asks)
    # Steps of the full batch that follow each other: prompts are read in between at the start.
    most = max(n for n, _, _ in timed)
    full = [i for i in range(len(timed) - 1) if timed[i][0] == timed[i + 1][0] == most]
    seconds = statistics.median([timed[i + 1][2] - timed[i][2] for i in full] or [float("nan")])
    bound = statistics.median([counted[i][1] for i in full] or [float("nan")]) / peak
    graph = max(cuda._plans.items())[1].graph
    alone = float("nan") if graph is None else _median_seconds(graph.replay, 20)
    # Two operations for each weight of a matrix and row, at the rate of large products.
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    if not model.config.tie_word_embeddings:
        matrices -= model.get_input_embeddings().weight.numel()
    products = 2 * matrices * most / bench.card.get("flops", float("nan"))
    print(
        f"| {name} | {most} | {seconds * 1e3:.2f} | {alone * 1e3:.2f} | {bound * 1e3:.2f} | "
        f"{bound / seconds:.0%} | {bound / alone:.0%} | {products * 1e3:.2f} |",
        flush=True,
    )
    return {
        "rows": most,
        "step_ms": seconds * 1e3,
        "graph_ms": alone * 1e3,
        "bound_ms": bound * 1e3,
        "share": bound / seconds,
        "products_ms": products * 1e3,
    }


def _profile(bench: Bench, engine: TorchEngine, asks: list[Ask]) -> None:
    """The kernels that take most of the card's time, and the share of the wall time that it is
    busy.
    """
    from torch.profiler import ProfilerActivity, profile

    if bench.is_dry:
        return
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as trace:
        _, seconds = _run(bench, engine, asks)
    events = [e for e in trace.key_averages() if e.self_device_time_total > 0]
    busy = sum(e.self_device_time_total for e in events) / 1e6
    print(
        f"\ncard busy {busy:.2f} s of {seconds:.2f} s (under the profiler)\n\n| kernel | calls | "
        "ms |\n|---|---|---|"
    )
    for e in sorted(events, key=lambda e: -e.self_device_time_total)[:14]:
        print(f"| `{e.key[:90]}` | {e.count} | {e.self_device_time_total / 1e3:.1f} |", flush=True)


# --- rollouts
# --------------------------------------------------------------------------------------------------


def rollouts(bench: Bench, size: str) -> dict[str, object]:
    """720 rollouts from 90 prefixes: tokens per second, in turn, medians of the rounds."""
    return race_rollouts(
        bench, lambda: bench.model(size), tokenizer(bench.config(size).vocab_size), bench.asks()
    )


def race_rollouts(
    bench: Bench,
    model_of: Callable[[], LlamaForCausalLM],
    words: PreTrainedTokenizerBase,
    asks: list[Ask],
) -> dict[str, object]:
    """The continuations `asks` by our engine and by transformers. `model_of` gives the same weights
    at every call.
    """
    contenders: dict[str, Timed] = {}
    engines = []
    rows = (4, 8) if bench.is_dry else (256, 1024)
    for n_rows in rows:
        with _or_reason(f"glore {n_rows}"):
            # Room for what is asked, not all of the card: several engines and the peers stand side
            # by side here.
            engine = engine_of(model_of(), words, n_rows, cache_tokens=n_rows * 512)
            engines.append(engine)
            contenders[f"glore, {n_rows} rows"] = lambda _, engine=engine: _run(bench, engine, asks)
    model = model_of()
    for n_rows in rows:
        # At 256 rows every batch is alike, so a part of the prompts gives the rate.
        some = (
            asks[:: len(asks) * asks[0].k // n_rows or 1]
            if n_rows < len(asks) * asks[0].k
            else asks
        )
        contenders[f"generate, prompts repeated, {n_rows} rows"] = (
            lambda warm, n=n_rows, some=some: _generate(bench, model, some[:2] if warm else some, n)
        )
    if not bench.is_dry:
        contenders["generate_batch, CUDA graphs"] = lambda warm: _generate_batch(
            bench, model_of(), asks[:2] if warm else asks
        )
    return _race(bench, contenders)


def _race(bench: Bench, contenders: dict[str, Timed]) -> dict[str, object]:
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    dead: set[str] = set()
    for n in range(bench.n_rounds + 1):
        for name, work in contenders.items():
            if name in dead:
                continue
            try:
                tokens, seconds = work(n == 0)
            except Exception as error:
                dead.add(name)
                print(
                    f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:400]}",
                    flush=True,
                )
                continue
            print(f"  round {n}: {name}: {tokens} tokens in {seconds:.2f} s", flush=True)
            if n:
                rates[name].append(tokens / seconds)
    medians = {name: statistics.median(got) for name, got in rates.items() if got}
    theirs = {name: rate for name, rate in medians.items() if not name.startswith("glore")}
    print(
        "\n| | tok/s (least–most) | against the best `generate` | against `generate_batch` "
        "|\n|---|---|---|---|"
    )
    best = max(
        (rate for name, rate in theirs.items() if name.startswith("generate,")),
        default=float("nan"),
    )
    batch = next(
        (rate for name, rate in theirs.items() if name.startswith("generate_batch")), float("nan")
    )
    for name, rate in medians.items():
        spread = f"{min(rates[name]):,.0f}–{max(rates[name]):,.0f}"
        print(
            f"| {name} | {rate:,.0f} ({spread}) | {rate / best:.1f} × | {rate / batch:.1f} × |",
            flush=True,
        )
    return {"medians": medians, "rates": rates, "failed": sorted(dead)}


@contextlib.contextmanager
def _or_reason(name: str) -> Iterator[None]:
    """A contender; one that can't be set up is left out, with its reason."""
    try:
        yield
    except Exception as error:
        print(
            f"{name} left out: {type(error).__name__}: {' '.join(str(error).split())[:400]}",
            flush=True,
        )


class _Lengths(StoppingCriteria):
    """Stops a row when it has its number of tokens."""

    def __init__(self, n_prompt: int, n_new: list[int], device: torch.device) -> None:
        self._end = torch.tensor(n_new, device=device) + n_prompt

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return input_ids.shape[1] >= self._end


@torch.inference_mode()
def _generate(
    bench: Bench, model: LlamaForCausalLM, asks: list[Ask], n_rows: int
) -> tuple[int, float]:
    """`generate`, every prompt repeated; prompts with like numbers of tokens to draw together."""
    bench.sync()
    start = time.perf_counter()
    ordered = sorted(asks, key=lambda a: (a.n_new, len(a.ids)))
    n_prompts = max(1, n_rows // ordered[0].k)
    n = 0
    for at in range(0, len(ordered), n_prompts):
        rows = [a for a in ordered[at : at + n_prompts] for _ in range(a.k)]
        longest = max(len(a.ids) for a in rows)
        ids = torch.tensor(
            [[0] * (longest - len(a.ids)) + [*a.ids] for a in rows], device=bench.device
        )
        mask = torch.tensor(
            [[0] * (longest - len(a.ids)) + [1] * len(a.ids) for a in rows], device=bench.device
        )
        n_new = [a.n_new for a in rows]
        stop = _Lengths(longest, n_new, bench.device)
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=max(n_new),
            stopping_criteria=[stop],
        )
        n += _drawn(out[:, longest:], n_new, model)
    bench.sync()
    return n, time.perf_counter() - start


def _drawn(new: torch.Tensor, n_new: list[int], model: LlamaForCausalLM) -> int:
    """Tokens that were asked for: up to the end token, where the model has one."""
    end = model.generation_config.eos_token_id
    if end is None:
        return sum(n_new)
    ends = torch.isin(new, torch.tensor(end, device=new.device))
    lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, new.shape[1])
    return int(torch.minimum(lengths, torch.tensor(n_new, device=new.device)).sum())


def _generate_batch(bench: Bench, model: LlamaForCausalLM, asks: list[Ask]) -> tuple[int, float]:
    """transformers' continuous batching with CUDA graphs. Its start and warm-up are not counted."""
    end = model.generation_config.eos_token_id
    settings = GenerationConfig(
        max_new_tokens=512,
        do_sample=True,
        top_k=0,
        eos_token_id=-1 if end is None else end,
        pad_token_id=0,
    )
    config = ContinuousBatchingConfig(use_cuda_graph=True, max_memory_percent=0.4)
    with model.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=config
    ) as manager:
        for tries in range(2):
            part = asks[:2] if tries == 0 else asks  # the first is a warm-up of this manager
            start = time.perf_counter()
            for ask in part:
                for _ in range(ask.k):
                    manager.add_request([*ask.ids], max_new_tokens=ask.n_new)
            wanted, done, n = sum(a.k for a in part), 0, 0
            while done < wanted:
                result = manager.get_result(timeout=60)
                if result is None:
                    raise RuntimeError("no result for 60 s")
                if result.is_finished():
                    done += 1
                    n += len(result.generated_tokens)
            seconds = time.perf_counter() - start
    return n, seconds
