"""The attention kernel of a decode step alone, by the shape of its blocks: microseconds a layer.

    python -m benchmarks.gpu_attention                   on a GPU
    TRITON_INTERPRET=1 python -m benchmarks.gpu_attention --dry      tries the script on a CPU

720 rows, eight siblings for each prefix of 120 tokens, with 40 tokens of their own, and 64 rows.
Layers lie one after another in memory, as a model reads them, and are one CUDA graph.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys

import numpy as np
import torch

from glore.engines.local.batch import Batch
from glore.engines.local.cuda import launch
from glore.engines.local.cuda.inputs import Inputs, Sizes, row_blocks
from glore.engines.local.cuda.kv_cache import CudaKVCache
from glore.engines.local.prefix_tree import PAGE_SIZE

__all__ = ["main"]

_SHAPES = {"135M": (3, 3, 64, 30), "1.1B": (4, 8, 64, 22)}
"""key/value heads, query heads for each, head size, layers"""
_PREFIX, _OWN, _SIBLINGS = 120, 40, 8
_OPTIONS = tuple(
    (pairs, warps, stages)
    for pairs, warps, stages in itertools.product((1, 16, 32, 64), (1, 2, 4, 8), (1, 2, 3))
    if warps <= max(2, pairs // 8)
)
"""(query, query head) pairs of a block, warps, loads under way"""


def batch_of(n: int) -> tuple[Batch, int]:
    """A decode step of `n` rows, and how many pages there are."""
    n_prefix, n_own = -(-_PREFIX // PAGE_SIZE), -(-_OWN // PAGE_SIZE)
    families = np.arange(n) // _SIBLINGS
    rng = np.random.default_rng(0)
    n_all = (int(families[-1]) + 1) * n_prefix + n * n_own
    pages = rng.permutation(n_all).astype(np.int32)
    shared = pages[: n_all - n * n_own].reshape(-1, n_prefix)[families]
    own = pages[n_all - n * n_own :].reshape(n, n_own)
    table = np.ascontiguousarray(np.concatenate([shared, own], axis=1))
    fill = np.full(n_all, PAGE_SIZE, np.int32)
    fill[shared[:, -1]] = _PREFIX - (n_prefix - 1) * PAGE_SIZE
    rows = np.arange(n, dtype=np.int32)
    numbers = np.full(n, 1, np.int32)
    last = (_OWN - 1) % PAGE_SIZE
    return Batch(
        tokens=rows,
        positions=numbers * (_PREFIX + _OWN - 1),
        write_page=table[:, -1].copy(),
        write_offset=numbers * last,
        chain=rows,
        n_pages=numbers * (n_prefix + n_own),
        n_last=numbers * (last + 1),
        n_prompt=numbers * n_prefix,
        table=table,
        fill=fill,
        start=np.zeros(n_all, np.int32),
        selected=rows,
        dependent=False,
    ), n_all


def seconds_a_layer(size: str, n: int, pairs: int, device: torch.device, dry: bool) -> float:
    """Median of ten replays. The kernel's warps and stages are those of `launch`."""
    n_heads, n_each, head, n_layers = _SHAPES[size]
    if dry:
        n, n_layers = 8, 1
    batch, n_pages = batch_of(n)
    pages = CudaKVCache(n_pages, n_layers)
    n_block = 1 if pairs == 1 else launch.block_queries(n_each, pairs)
    blocks = row_blocks(batch, n_block, n)
    inputs = Inputs(Sizes(n, blocks.first.size, 0, 0, batch.table.size), device)
    inputs.fill(batch, blocks)
    joined = torch.randn(n, (n_each + 2) * n_heads * head, device=device).to(torch.bfloat16)
    split = joined.split([n_each * n_heads * head, n_heads * head, n_heads * head], 1)
    q, k, v = (x.view(n, -1, head) for x in split)
    angles = torch.rand(512, head, device=device), torch.rand(512, head, device=device)

    def layers() -> None:
        for layer in range(n_layers):
            launch.attend(
                q, k, v, *pages.layer(layer, k), inputs, n_block, head**-0.5, None, None, True,
                launch.Rotation(*angles),
            )  # fmt: skip

    layers()
    if dry:
        return float("nan")
    assert pages.data is not None
    pages.data.normal_()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layers()
    times = []
    for _ in range(11):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times[1:]) / n_layers


def _with(
    option: tuple[int, int, int], size: str, n: int, device: torch.device, dry: bool
) -> float:
    launch._WARPS, launch._STAGES = dict.fromkeys((True, False), option[1]), option[2]
    return seconds_a_layer(size, n, option[0], device, dry)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--compile-part", type=int, default=-1, help="used by itself")
    asked = parser.parse_args()
    device = torch.device("cpu" if asked.dry else "cuda")
    options = _OPTIONS[:2] if asked.dry else _OPTIONS
    n_parts = min(12, os.cpu_count() or 1)
    if asked.compile_part >= 0:
        for option in options[asked.compile_part :: n_parts]:
            for size in _SHAPES:
                _with(option, size, 64, device, asked.dry)
        return
    if not asked.dry:  # compiled side by side, found in Triton's cache afterwards
        command = [sys.executable, "-m", "benchmarks.gpu_attention", "--compile-part"]
        for worker in [subprocess.Popen([*command, str(n)]) for n in range(n_parts)]:
            worker.wait()
    print("| pairs, warps, stages | " + " | ".join(
        f"{size}, {n} rows (µs)" for size in _SHAPES for n in (720, 64)
    ) + " |\n|" + "---|" * 5)  # fmt: skip
    for option in options:
        got = [
            _with(option, size, n, device, asked.dry) * 1e6 for size in _SHAPES for n in (720, 64)
        ]
        print(f"| {option} | " + " | ".join(f"{x:.1f}" for x in got) + " |", flush=True)


if __name__ == "__main__":
    main()
