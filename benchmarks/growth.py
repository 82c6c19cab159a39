"""Time and memory as the work grows, and with a second core: each case in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time


def case(size: str, n_drafts: int, n_threads: int) -> None:
    """Runs in the child: prints seconds, rollouts and peak memory before and after the work (MiB)."""
    import torch

    from benchmarks.workloads import drafts, language_model, prefix_asks, requests, tokenizer
    from glore.sampling.torch_engine import TorchEngine

    torch.set_num_threads(n_threads)
    engine = TorchEngine.of(language_model(size), tokenizer())
    todo = requests(prefix_asks(drafts(n_drafts // 2, 2)))
    list(engine.run(todo[:2]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    n = sum(len(r.completions) for r in engine.run(iter(todo)))
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, n, before / 1024, after / 1024]))


def _child(size: str, n_drafts: int, n_threads: int) -> tuple[float, int, float, float]:
    code = f"from benchmarks.growth import case; case({size!r}, {n_drafts}, {n_threads})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, n, before, after = json.loads(done.stdout.splitlines()[-1])
    return seconds, n, before, after


def table(size: str, smallest: int = 8) -> None:
    """1, 4 and 16 times the drafts; one and two threads."""
    print(f"\n### Growth, {size}, verifying rollouts\n")
    print("| drafts | rollouts | threads | seconds | per second | peak memory, MiB (before) |")
    print("|---|---|---|---|---|---|")
    for times in (1, 4, 16):
        for n_threads in (1, 2):
            seconds, n, before, after = _child(size, times * smallest, n_threads)
            print(
                f"| {times * smallest} | {n:,} | {n_threads} | {seconds:.1f} | {n / seconds:,.0f} | {after:,.0f} ({before:,.0f}) |",
                flush=True,
            )
