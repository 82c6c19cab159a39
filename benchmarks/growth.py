"""Time and memory for growing work, with a second core as a thread or as a worker. Every worker is
its own process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

WAYS = ((1, 1), (1, 2), (2, 1))
"""(workers, threads of each)"""


def work(size: str, n_drafts: int, n_threads: int, part: int, n_parts: int) -> None:
    """Runs in a worker: reports that it is ready, waits for a line, then prints the rollouts and
    the peak memory before and after them (MiB).
    """
    import torch

    from benchmarks.workloads import drafts, language_model, prefix_asks, requests, tokenizer
    from glore.engines.local.engine import TorchEngine

    torch.set_num_threads(n_threads)
    engine = TorchEngine.of(language_model(size), tokenizer())
    made = drafts(n_drafts // 2, 2)
    of_part = [
        d for i, d in enumerate(made) if i // 2 % n_parts == part
    ]  # by question, so that prefixes stay together
    todo = requests(prefix_asks(of_part))
    list(engine.run(todo[:2]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("ready", flush=True)
    sys.stdin.readline()
    n = sum(len(r.completions) for r in engine.run(iter(todo)))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([n, before / 1024, after / 1024]), flush=True)


def _seconds(
    size: str, n_drafts: int, n_workers: int, n_threads: int
) -> tuple[float, int, float, float]:
    """Returns the seconds until the last worker is done, the rollouts of all workers, and the
    largest worker's peak memory before and after.
    """
    codes = [
        f"from benchmarks.growth import work; work({size!r}, {n_drafts}, {n_threads}, {i}, "
        f"{n_workers})"
        for i in range(n_workers)
    ]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", c], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for c in codes
    ]

    def lines() -> list[str]:
        return [w.stdout.readline() if w.stdout is not None else "" for w in workers]

    if lines() != ["ready\n"] * n_workers:
        raise RuntimeError("a worker did not start")
    start = time.perf_counter()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [json.loads(line) for line in lines()]
    seconds = time.perf_counter() - start
    for worker in workers:
        worker.communicate()
    return (
        seconds,
        sum(n for n, _, _ in said),
        max(b for _, b, _ in said),
        max(a for _, _, a in said),
    )


def table(size: str, smallest: int = 8, n_rounds: int = 3) -> None:
    """1, 4 and 16 times the drafts; one core, two threads, two workers. The best of the rounds."""
    print(f"\n### Growth, {size}, verifying rollouts\n")
    print(
        "| drafts | rollouts | workers × threads | seconds | per second | over one core | peak "
        "memory of a worker, MiB (before) |"
    )
    print("|---|---|---|---|---|---|---|")
    for times in (1, 4, 16):
        best = {
            way: min(_seconds(size, times * smallest, *way) for _ in range(n_rounds))
            for way in WAYS
        }
        for (n_workers, n_threads), (seconds, n, before, after) in best.items():
            print(
                f"| {times * smallest} | {n:,} | {n_workers} × {n_threads} | {seconds:.1f} | "
                f"{n / seconds:,.0f} | {best[1, 1][0] / seconds:.2f} × | {after:,.0f} "
                f"({before:,.0f}) |",
                flush=True,
            )
