"""`python -m benchmarks.sampling`: the sampler against other libraries, every table in one run with
the same models, prompts and seeds.

Everything runs on one thread unless a table says otherwise. Numbers are medians of interleaved
rounds. `--only rollouts` (drafts, labels, scoring, limit, growth) runs one table, `--sizes 1M` some
models. `--run runs/quickstart` adds the student of a finished quickstart, its questions and its
wrong drafts.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch

from benchmarks import growth, labels, limit, peers, processes, scoring, student
from benchmarks.rounds import Contender, race, show
from benchmarks.workloads import Ask, Subject, quantizations, random_subject, requests
from glore.config.engine import Quantization
from glore.devices import computes_bfloat16
from glore.engines.local.engine import TorchEngine


def engine_work(
    subject: Subject,
    asks: list[Ask],
    dtype: torch.dtype = torch.float32,
    backends: tuple[str, ...] = ("native", "paged"),
    quantization: Quantization = "none",
) -> Callable[[], float]:
    """A function with which our engine draws all of `asks`."""
    engine = TorchEngine.of(
        subject.model().to(dtype), subject.tokenizer, backends=backends, quantization=quantization
    )
    todo = requests(asks)

    def work() -> float:
        return sum(len(result.completions) for result in engine.run(todo))

    return work


def contenders(
    subject: Subject, asks: list[Ask], rows: int, openvino: str | None
) -> tuple[list[Contender], Callable[[], None]]:
    """All other contenders, and a function that ends them."""
    model = subject.model()
    # A rate per rollout does not need all of them: the slowest contenders get a part.
    small = [dataclasses.replace(a, k=min(a.k, 8)) for a in asks[:: max(1, len(asks) // 4)]]
    fewer = asks[:: subject.part]
    others = [
        *(
            [Contender("glore, bfloat16 products", engine_work(subject, asks, torch.bfloat16))]
            if computes_bfloat16("cpu")
            else []
        ),
        *(
            Contender(f"glore, {kind} products", engine_work(subject, asks, quantization=kind))
            for kind in quantizations(subject.model())
        ),
        Contender(
            "glore, the plain loop for unusual models",
            engine_work(subject, fewer, backends=("fallback",)),
        ),
        Contender(
            f"`generate`, prompt repeated, {rows} rows",
            functools.partial(peers.generate_repeated, model, fewer, rows),
        ),
        Contender(
            f"`generate`, one prefill, {rows} rows",
            functools.partial(peers.generate_prefilled, model, fewer, rows),
        ),
    ]
    continuous = subject.model()
    try:
        peers.generate_batch(continuous, small[:1])
        others.append(
            Contender(
                "`generate_batch`", functools.partial(peers.generate_batch, continuous, small)
            )
        )
    except Exception as error:
        others.append(
            Contender(
                "`generate_batch`", None, f"does not run: {' '.join(str(error).split())[:200]}"
            )
        )
    name = "OpenVINO GenAI, prefix caching"
    if openvino is None:
        return [*others, Contender(name, None, "not measured: no --openvino")], lambda: None
    try:
        peer = processes.OpenVino(openvino, subject.model(), subject.tokenizer)
    except (OSError, RuntimeError) as error:
        return [*others, Contender(name, None, f"does not run: {error}")], lambda: None
    return [*others, Contender(name, functools.partial(peer.draw, asks))], peer.close


def sampling_table(
    subject: Subject, title: str, asks: list[Ask], options: argparse.Namespace
) -> None:
    ours = Contender("glore", engine_work(subject, asks))
    others, close = contenders(subject, asks, options.rows, options.openvino)
    try:
        lines = race(ours, others, options.rounds)
    finally:
        close()
    n = sum(a.k for a in asks)
    show(
        f"{title}, {subject.name}: {n:,} continuations of {len(asks)} prompts",
        "continuations per second",
        lines,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", default=["rollouts", "drafts", "labels", "scoring", "limit", "growth"]
    )
    parser.add_argument("--sizes", nargs="*", default=["1M", "3M", "15M"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64, help="rows of a batch of `generate`")
    parser.add_argument("--run", default=None, help="folder of a finished run of the quickstart")
    parser.add_argument(
        "--openvino", default=None, help="python of an environment with benchmarks/requirements.txt"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, Python {sys.version.split()[0]}, one thread, {options.rounds} "
        "rounds"
    )
    of_run = student.Student.of(options.run) if options.run else None
    if of_run is not None and "labels" in options.only:
        of_run.labels_table(options.rounds)
    subjects = [*([of_run.subject()] if of_run else []), *map(random_subject, options.sizes)]
    for subject in subjects:
        size = subject.name
        if "rollouts" in options.only:
            sampling_table(
                subject, "Verifying rollouts, full counts, K = 8", subject.rollouts, options
            )
        if "drafts" in options.only:
            sampling_table(subject, "Drafts, K = 96", subject.drafts, options)
        if size not in options.sizes:
            continue
        if "labels" in options.only and size != "15M":  # a quarter of an hour, and nothing new
            labels.table(size, options.rounds)
        if "scoring" in options.only:
            scoring.table(size, options.rounds)
        if "limit" in options.only:
            limit.table(size, subject.rollouts, options.rounds)
    if "growth" in options.only:
        growth.table("3M")


if __name__ == "__main__":
    main()
