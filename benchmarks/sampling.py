"""`python -m benchmarks.sampling`: the sampler against its peers, every table in one run on the same models, prompts and seeds.

One thread everywhere unless a table says otherwise; medians of interleaved rounds;
`--only rollouts` (drafts, labels, scoring, limit, growth) runs one table, `--sizes 1M` some models.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch

from benchmarks import growth, labels, limit, peers, scoring
from benchmarks.rounds import Contender, race, show
from benchmarks.workloads import Ask, draft_asks, drafts, language_model, prefix_asks, requests, tokenizer
from glore.sampling.torch_engine import TorchEngine

QUESTIONS = {"1M": 8, "3M": 5, "15M": 3}
"""Questions of the sampling workloads; two drafts each."""
PART = {"1M": 1, "3M": 2, "15M": 3}
"""`generate` gets every so-manieth prompt: it takes the others' time many times over, and a rate does not need all."""


def engine_work(size: str, asks: list[Ask], dtype: torch.dtype = torch.float32) -> Callable[[], float]:
    """Our engine drawing all of `asks`."""
    engine = TorchEngine.of(language_model(size).to(dtype), tokenizer())
    todo = requests(asks)

    def work() -> float:
        return sum(len(result.completions) for result in engine.run(todo))

    return work


def contenders(size: str, asks: list[Ask], rows: int, openvino: str | None) -> tuple[list[Contender], Callable[[], None]]:
    """Everybody else, and what to call at the end."""
    model = language_model(size)
    # A rate per rollout does not need all of them; the slowest get a part.
    part = asks[:: max(1, len(asks) // 4)]
    small = [Ask(a.segments, min(a.k, 8), a.n_new) for a in part]
    fewer = asks[:: PART[size]]
    others = [
        Contender("glore, bfloat16 weights", engine_work(size, asks, torch.bfloat16)),
        Contender(f"`generate`, prompt repeated, {rows} rows", functools.partial(peers.generate_repeated, model, fewer, rows)),
        Contender(f"`generate`, one prefill, {rows} rows", functools.partial(peers.generate_prefilled, model, fewer, rows)),
    ]
    continuous = language_model(size)
    try:
        peers.generate_batch(continuous, small[:1])
        others.append(Contender("`generate_batch`", functools.partial(peers.generate_batch, continuous, small)))
    except Exception as error:
        others.append(Contender("`generate_batch`", None, f"does not run: {' '.join(str(error).split())[:200]}"))
    name = "OpenVINO GenAI, prefix caching"
    if openvino is None:
        return [*others, Contender(name, None, "not measured: no --openvino")], lambda: None
    try:
        peer = peers.OpenVino(openvino, language_model(size))
    except (OSError, RuntimeError) as error:
        return [*others, Contender(name, None, f"does not run: {error}")], lambda: None
    return [*others, Contender(name, functools.partial(peer.draw, asks))], peer.close


def sampling_table(size: str, title: str, asks: list[Ask], options: argparse.Namespace) -> None:
    ours = Contender("glore", engine_work(size, asks))
    others, close = contenders(size, asks, options.rows, options.openvino)
    try:
        lines = race(ours, others, options.rounds)
    finally:
        close()
    n_tokens = sum(a.k * a.n_new for a in asks)
    n = sum(a.k for a in asks)
    show(f"{title}, {size}: {n} continuations, {n_tokens:,} tokens", "continuations per second", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["rollouts", "drafts", "labels", "scoring", "limit", "growth"])
    parser.add_argument("--sizes", nargs="*", default=["1M", "3M", "15M"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64, help="rows of a batch of `generate`")
    parser.add_argument("--openvino", default=None, help="python of an environment with benchmarks/requirements.txt")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one thread, {options.rounds} rounds")
    for size in options.sizes:
        if "rollouts" in options.only:
            asks = prefix_asks(drafts(QUESTIONS[size], 2))
            sampling_table(size, "Verifying rollouts, full counts, K = 8", asks, options)
        if "drafts" in options.only:
            sampling_table(size, "Drafts, K = 96", draft_asks(drafts(max(2, QUESTIONS[size] // 2), 1), 96), options)
        if "labels" in options.only and size != "15M":
            labels.table(size, options.rounds)
        if "scoring" in options.only and size != "15M":
            scoring.table(size, options.rounds)
        if "limit" in options.only:
            limit.table(size, prefix_asks(drafts(QUESTIONS[size], 2)), options.rounds)
    if "growth" in options.only:
        growth.table("3M")


if __name__ == "__main__":
    main()
