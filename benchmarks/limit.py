"""Share of the machine's limit: operations that the work needs, over the rate that one core reaches
on the model's own matrices.
"""

from __future__ import annotations

import statistics
import time

import torch

from benchmarks.workloads import SIZES, VOCAB, Ask, language_model, requests, tokenizer
from glore.engines.local.engine import TorchEngine


def _shapes(size: str) -> list[tuple[int, int]]:
    """(outputs, inputs) of every matrix of a token's forward pass."""
    hidden, inter, layers, _ = SIZES[size]
    return [
        *[(3 * hidden, hidden), (hidden, hidden), (2 * inter, hidden), (hidden, inter)] * layers,
        (VOCAB, hidden),
    ]


def _rate(size: str, n_rows: int) -> float:
    """Operations per second of torch's matrix products of these shapes, in turn, on one thread."""
    weights = [torch.randn(shape) for shape in _shapes(size)]
    inputs = [torch.randn(n_rows, n_in) for _, n_in in _shapes(size)]
    times = []
    for _ in range(8):
        start = time.perf_counter()
        for x, w in zip(inputs, weights, strict=True):
            torch.nn.functional.linear(x, w)
        times.append(time.perf_counter() - start)
    return 2 * n_rows * sum(a * b for a, b in _shapes(size)) / min(times)


def _operations(size: str, asks: list[Ask]) -> float:
    """Operations in products of weights and of attention, with every prompt token once (as the tree
    computes them) and every new token.
    """
    hidden, _, layers, _ = SIZES[size]
    per_token = 2 * sum(a * b for a, b in _shapes(size))
    head = 2 * VOCAB * hidden
    total = 0.0
    read = set()
    for ask in asks:
        start = 0
        for i in range(1, len(ask.segments) + 1):
            n = len(ask.segments[i - 1].split())
            if ask.segments[:i] not in read:
                read.add(ask.segments[:i])
                total += n * (per_token - head) + 4 * hidden * layers * sum(
                    range(start + 1, start + n + 1)
                )
            start += n
        # The last token is sampled, but not read by the model.
        total += head + ask.k * (
            (ask.n_new - 1) * per_token
            + 4 * hidden * layers * sum(range(start + 1, start + ask.n_new))
        )
    return total


def table(size: str, asks: list[Ask], n_rounds: int) -> None:
    """Share of the limit, in wall time and interleaved with measuring the limit."""
    engine = TorchEngine.of(language_model(size), tokenizer())
    todo = requests(asks)
    shares, rates = [], []
    for n in range(n_rounds + 1):
        before = _rate(size, 256)
        start = time.perf_counter()
        for _ in engine.run(todo):
            pass
        seconds = time.perf_counter() - start
        rate = max(before, _rate(size, 256))
        if n:
            shares.append(_operations(size, asks) / rate / seconds)
            rates.append(rate)
    print(f"\n### Share of the limit, {size}\n")
    print(
        "| operations | rate of the matrices alone | share of the limit (rounds from–to) "
        "|\n|---|---|---|"
    )
    print(
        f"| {_operations(size, asks) / 1e9:.1f} G | {statistics.median(rates) / 1e9:.0f} G/s ",
        end="",
    )
    print(f"| {statistics.median(shares):.0%} ({min(shares):.0%}–{max(shares):.0%}) |", flush=True)
