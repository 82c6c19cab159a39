"""Scores of all steps of many solutions: one tree, one pass per solution, one pass per prefix."""

from __future__ import annotations

import random

import torch

from benchmarks.rounds import Contender, race, show
from benchmarks.workloads import drafts, reward_model, tokenizer
from glore.engines.local.scorer import StepScorer
from glore.prompts import solve_segments

N_QUESTIONS, N_EACH = 6, 24


def table(size: str, n_rounds: int) -> None:
    """24 solutions of each of 6 questions. Half of them begin with steps of another."""
    rng = random.Random(0)
    items = []
    for n, first in enumerate(drafts(N_QUESTIONS, 1, seed=5)):
        for other in drafts(N_EACH, 1, seed=100 + n):
            kept = rng.randrange(1, len(first.steps)) if rng.random() < 0.5 else 0
            items.append((first.question, (*first.steps[:kept], *other.steps[kept:])))
    words = tokenizer()
    tree = StepScorer.of(reward_model(size), words)
    rows = StepScorer.of(reward_model(size), words, backends=("fallback",))
    model = reward_model(size)
    ids = [
        [
            words("".join(solve_segments(q, steps[:i])))["input_ids"]
            for i in range(1, len(steps) + 1)
        ]
        for q, steps in items
    ]

    def scored(scorer: StepScorer) -> float:
        return len(scorer.score(items))

    @torch.inference_mode()
    def by_solution() -> float:
        for prefixes in ids:
            model(input_ids=torch.tensor(prefixes[-1:]), use_cache=False)
        return len(items)

    @torch.inference_mode()
    def by_prefix() -> float:
        for prefixes in ids[::4]:
            for one in prefixes:
                model(input_ids=torch.tensor([one]), use_cache=False)
        return len(items[::4])

    a, b = tree.score(items), rows.score(items)
    worst = max(abs(x - y) for s, t in zip(a, b, strict=True) for x, y in zip(s, t, strict=True))
    others = [
        Contender("one pass a solution, padded batches of like length", lambda: scored(rows)),
        Contender("one pass a solution, one by one", by_solution),
        Contender("one pass a prefix, one by one", by_prefix),
    ]
    lines = race(
        Contender(f"glore ({tree.backend}), one tree", lambda: scored(tree)), others, n_rounds
    )
    show(
        f"Scoring, {size}: {len(items)} solutions, all steps (largest difference {worst:.0e})",
        "solutions per second",
        lines,
    )
