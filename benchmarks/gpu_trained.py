"""A run's student on a GPU: its greedy text beside `generate`'s, its rollouts, and step labels.

Unlike a random model it is sure of most tokens, so siblings share rows, and knows when to stop.
"""

from __future__ import annotations

import functools
import time

from benchmarks import peers
from benchmarks.gpu_checks import greedy_tokens
from benchmarks.gpu_rates import engine_of, race_rollouts
from benchmarks.gpu_shapes import Bench
from benchmarks.rounds import Contender, race, show
from benchmarks.student import K, Student
from glore.config import LabelSettings
from glore.engines.protocol import Request, SamplingParams
from glore.progress import SilentProgress
from glore.tasks.open import open_task
from glore.where import verify_prefixes

__all__ = ["labels", "rollouts", "text"]

_N_PREFIXES, _N_LABELLED, _N_NAIVE = 90, 300, 3


def rollouts(bench: Bench, run: str) -> dict[str, object]:
    """Eight rollouts from each of 90 prefixes of wrong drafts, bfloat16."""
    student = Student.of(run)
    model_of = functools.partial(student.model, "bfloat16", bench.device.type)
    asks = student.prefixes(student.wrong)
    asks = asks[:: max(1, len(asks) // (2 if bench.is_dry else _N_PREFIXES))]
    return race_rollouts(bench, model_of, student.tokenizer, asks[:_N_PREFIXES])


def labels(bench: Bench, run: str) -> None:
    """Drafts labelled per second by the backward scan, and as people write it."""
    student = Student.of(run)
    model = student.model("bfloat16", bench.device.type)
    engine = engine_of(model, student.tokenizer, 16 if bench.is_dry else 1024)
    task = open_task(student.config.task, student.config.seed)
    drafts = student.wrong[: 1 if bench.is_dry else _N_LABELLED]
    some = drafts[:: max(1, len(drafts) // _N_NAIVE)][:_N_NAIVE]
    naive = student.prefixes(some)

    def labelled() -> float:
        rule = LabelSettings(
            rollouts=K,
            temperature=1.0,
            max_new_tokens=student.config.labels.max_new_tokens,
        )
        verify_prefixes(
            engine, task, student.problems, drafts, rule, seed=0, progress=SilentProgress()
        )
        bench.sync()
        return len(drafts)

    def one_by_one() -> float:
        peers.generate_one_by_one(plain, naive)
        bench.sync()
        return len(some)

    plain = student.model("bfloat16", bench.device.type)
    lines = race(
        Contender("glore, backward scan", labelled),
        [
            Contender(
                f"a labeller as people write it, {len(some)} of them: "
                "`generate(num_return_sequences=8)`, prefix by prefix",
                one_by_one,
            ),
        ],
        bench.n_rounds,
    )
    show(f"Step labels on {bench.name}: {len(drafts)} wrong drafts", "drafts a second", lines)


def text(bench: Bench, run: str) -> str:
    """Greedy text in float32 for 64 questions, against `generate` on one at a time."""
    student = Student.of(run)
    model = student.model("float32", bench.device.type)
    n, n_new = (2, 4) if bench.is_dry else (64, 48)
    asks = [student.prefixes([d])[0] for d in student.wrong[:n]]
    begun = time.perf_counter()
    theirs = greedy_tokens(model, [ask.ids for ask in asks], n_new)
    engine = engine_of(model, student.tokenizer, 64)
    params = SamplingParams(temperature=0.0, max_new_tokens=n_new)
    requests = [Request(str(i), ask.segments, (1,), params) for i, ask in enumerate(asks)]
    ours = {r.request.id: r.completions[0].text for r in engine.run(requests)}
    ends = {student.tokenizer.eos_token_id}
    texts = engine.texts([[t for t in tokens if t not in ends] for tokens in theirs])
    n_equal = sum(ours[str(i)] == one for i, one in enumerate(texts))
    print(
        f"{n_equal} of {len(asks)} greedy texts equal `generate`'s "
        f"({time.perf_counter() - begun:.0f} s)",
        flush=True,
    )
    return f"{n_equal} of {len(asks)}"
