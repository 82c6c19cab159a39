"""`python -m benchmarks.pretrained MODEL`: rollouts of K = 8 with a pretrained model on a CPU, in
float32, bfloat16 and int8, against vLLM's CPU build, OpenVINO GenAI and `generate`.

`--vllm` and `--openvino` give the python of an environment with that library. All get the same
prompts (every prefix of made-up drafts, other ones in each round), K and numbers of tokens; no
completion ends early. Numbers are tokens per second, medians of interleaved rounds. Beside each of
our rates stands its share of the processor's peak (`peak.py`), and what the goals would ask of it.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import peers, processes
from benchmarks.peak import operations_of_a_token, peak
from benchmarks.rounds import Contender, Line, race, show
from benchmarks.workloads import Ask, requests
from glore.config.engine import Quantization
from glore.devices import computes_bfloat16
from glore.engines.local.engine import TorchEngine
from glore.models import load_causal_lm, load_tokenizer
from glore.tokenization import encode_segments

GOALS = {"float32": 2, "bfloat16": 3, "int8": 4}
"""How many times as fast as the best of the others."""
NAMES = ("Ann", "Ben", "Carla", "Dev", "Eva", "Finn", "Gita", "Hugo")


def drafts(n: int, seed: int) -> Iterator[tuple[str, ...]]:
    """`n` drafts: a question, then its steps."""
    for i in range(n):
        name, have, more = NAMES[(seed + i) % len(NAMES)], 23 + 3 * i + 7 * seed, 11 + 5 * i + seed
        yield (
            f"Question: {name} has {have} marbles and buys {more} more at the market. Then "
            f"{name} gives half of them to a friend and loses 3 on the way home. How many marbles "
            f"does {name} have left?\nAnswer: ",
            f"{name} has {have} marbles and buys {more} more.\n",
            f"{have} + {more} = {have + more}\n",
            f"{name} gives half of them to a friend.\n",
        )


class Workload:
    """The asks of each round. Every contender goes through the rounds by itself."""

    def __init__(self, model: str, n_drafts: int, k: int, n_new: int) -> None:
        self.tokenizer = load_tokenizer(model)
        self.tokenizer.eos_token = None
        self._n_drafts, self._k, self._n_new = n_drafts, k, n_new

    def asks(self, n: int) -> list[Ask]:
        prefixes = [
            steps[:end] for steps in drafts(self._n_drafts, n) for end in range(1, len(steps) + 1)
        ]
        return [
            Ask(p, self._k, self._n_new, tuple(encode_segments(self.tokenizer, p)))
            for p in prefixes
        ]

    def work(self, draw: Callable[[list[Ask]], object], part: int = 1) -> Callable[[], float]:
        """A round with every `part`-th prompt; returns the number of drawn tokens."""
        rounds = itertools.count()

        def once() -> float:
            asks = self.asks(next(rounds))[::part]
            draw(asks)
            return float(sum(a.k * a.n_new for a in asks))

        return once


def endless(model: str, dtype: str) -> torch.nn.Module:
    """The model, without an end token."""
    loaded = load_causal_lm(model, dtype)
    loaded.generation_config.eos_token_id = None
    return loaded


@dataclasses.dataclass(frozen=True, slots=True)
class Ours:
    """One way to read the model with our engine."""

    contender: Contender
    """Its name says how the model is read."""
    products: str
    operations: int
    """Operations in products of weights, for one drawn token."""


def ours(
    model: str, load: Workload, rows: int, dtype: str, quantization: Quantization = "none"
) -> Ours:
    """Our engine, which reads the model so."""
    engine = TorchEngine.of(
        endless(model, dtype), load.tokenizer, max_rows=rows, quantization=quantization
    )

    def draw(asks: list[Ask]) -> None:
        drawn = [c for result in engine.run(requests(asks)) for c in result.completions]
        assert sum(c.n_tokens for c in drawn) == sum(a.k * a.n_new for a in asks)

    return Ours(
        Contender(f"glore, {engine.backend}", load.work(draw)),
        engine.runner.products,
        operations_of_a_token(engine.runner.model),
    )


def others(
    options: argparse.Namespace, load: Workload
) -> tuple[list[Contender], list[processes.Piped]]:
    """What we are compared with, and the processes to end."""
    found, open_ones = [], []
    makers: list[tuple[str, str | None, Callable[..., processes.Piped], tuple[object, ...]]] = [
        ("vLLM, bfloat16", options.vllm, processes.Vllm, ("bfloat16",)),
        ("OpenVINO GenAI, bfloat16", options.openvino, processes.OpenVino, ("bf16", options.cores)),
    ]
    single = endless(options.model, "float32")
    for name, python, make, arguments in makers:
        if python is None:
            found.append(Contender(name, None, "not measured: no environment given"))
            continue
        try:
            peer = make(python, single, copy.deepcopy(load.tokenizer), *arguments)
        except (OSError, RuntimeError) as error:
            found.append(Contender(name, None, f"does not run: {error}"))
            continue
        open_ones.append(peer)
        found.append(Contender(name, load.work(peer.draw)))
    for dtype in ("float32", "bfloat16"):
        if dtype == "bfloat16" and not computes_bfloat16("cpu"):
            continue
        model = single if dtype == "float32" else endless(options.model, dtype)
        draw = functools.partial(_generate, model, options.rows)
        found.append(Contender(f"`generate`, {dtype}, one prefill", load.work(draw, options.part)))
    return found, open_ones


def _generate(model: torch.nn.Module, rows: int, asks: list[Ask]) -> None:
    peers.generate_prefilled(model, asks, rows)


def told(contender: Contender) -> Contender:
    """The same, which tells each round's rate on standard error: a run may be cut short."""
    work = contender.work
    if work is None:
        return contender

    def once() -> float:
        start = time.perf_counter()
        n = work()
        rate = n / (time.perf_counter() - start)
        print(f"{contender.name}: {rate:.0f}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        return n

    return dataclasses.replace(contender, work=once)


def summary(mine: list[Ours], peaks: dict[str, float | None], lines: list[Line]) -> None:
    """How many times as fast as the best of the others each of ours is, and the share of the
    processor's peak that the products of our rate, and of the goal's, need.
    """
    rates = {line.name: line.rate for line in lines if line.rate is not None}
    names = [x.contender.name for x in mine]
    best = max((name for name in rates if name not in names), key=lambda name: rates[name])
    print(f"\nBest of the others: {best}.\n")
    print("| | against the best | goal | peak, G operations/s | our share of it | the goal's |")
    print("|---|---|---|---|---|---|")
    for x in mine:
        rate, goal, limit = rates[x.contender.name], GOALS[x.products], peaks[x.products]
        said = ["not measured"] * 3
        if limit is not None:
            shares = (r * x.operations / limit for r in (rate, goal * rates[best]))
            said = [f"{limit / 1e9:,.0f}", *(f"{share:.0%}" for share in shares)]
        cells = (x.contender.name, f"{rate / rates[best]:.2f} ×", f"{goal} ×", *said)
        print(f"| {' | '.join(cells)} |")


def processor() -> str:
    """The processor's name, if the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a model")
    parser.add_argument("--vllm", help="python of an environment with vLLM's CPU build")
    parser.add_argument("--openvino", help="python of one with benchmarks/requirements.txt")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drafts", type=int, default=6, help="four prompts each")
    parser.add_argument("--tokens", type=int, default=48, help="of each completion")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--part", type=int, default=2, help="`generate` gets one in this many")
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    load = Workload(options.model, options.drafts, 8, options.tokens)
    n = len(load.asks(0))
    print(
        f"torch {torch.__version__}, {processor()}, {options.cores} threads, load "
        f"{os.getloadavg()[0]:.1f}, {options.rounds} rounds"
    )
    mine = [ours(options.model, load, options.rows, "float32")]
    if computes_bfloat16("cpu"):
        mine.append(ours(options.model, load, options.rows, "bfloat16"))
    mine.append(ours(options.model, load, options.rows, "float32", "int8"))
    found, open_ones = others(options, load)
    try:
        first, *more = (told(x.contender) for x in mine)
        before = {x.products: peak(x.products, options.cores) for x in mine}
        lines = race(first, [*more, *map(told, found)], options.rounds)
        after = {x.products: peak(x.products, options.cores) for x in mine}
    finally:
        for peer in open_ones:
            peer.close()
    show(
        f"Rollouts, K = 8, {options.model}: {8 * n:,} completions of {options.tokens} tokens, "
        f"{n} prompts",
        "tokens per second",
        lines,
    )
    # Other work on the machine lowers what is measured of the peak.
    peaks = {x: max(before[x] or 0.0, after[x] or 0.0) or None for x in before}
    summary(mine, peaks, lines)
    print(f"\nload afterwards: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
