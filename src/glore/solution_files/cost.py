"""Tokens and time of verifying rollouts, said before they are drawn.

A rollout from P_i writes what the draft still had to write, about: the tokens of the steps after i,
at most `labels.max_new_tokens`. Full counts draw K of them at every prefix of every draft. The scan
draws none for a right draft. For a wrong one, the first wrong step is taken to be any of its steps,
equally likely: after it no rollout succeeds, and before it as large a share as the file's solutions
are right. Drafts go wrong at different places, so expect this within a factor of two or three. The
speed is measured with a few short rollouts of the very policy: loading is not in it, and larger
batches are faster.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from glore.config import LabelSettings
from glore.engines.protocol import Engine, Request, SamplingParams
from glore.progress import duration
from glore.prompts import PromptLayout
from glore.records import Problem, Solution
from glore.seeds import stable_seed
from glore.tokenization import encode_many
from glore.where import expected_rollouts

__all__ = ["Cost", "measured_rate", "rollout_cost", "scanned_tokens"]

PROBES = 32
PROBE_TOKENS = 32
"""Rollouts that are drawn to measure the speed, and their longest length."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What labelling a file takes, roughly."""

    n_drafts: int
    n_drawn: int
    """Drafts that need rollouts."""
    expected: int
    """Tokens."""
    at_most: int
    full: int
    """Tokens of full counts for the same file."""

    def said(self, rate: float | None) -> str:
        """One line for the user; `rate`: tokens per second."""
        time_ = (
            "" if rate is None else f", {duration(self.expected / rate)} at {rate:,.0f} tokens/s"
        )
        most = "" if rate is None else f", {duration(self.at_most / rate)}"
        bound = "" if self.expected == self.at_most else f" (at most {self.at_most:,}{most})"
        counts = "" if self.full == self.at_most else f"; full counts: {self.full:,} tokens"
        return (
            f"cost: {self.n_drafts:,} solutions, {self.n_drawn:,} of which need rollouts; about "
            f"{self.expected:,} tokens{time_}{bound}{counts}"
        )


def rollout_cost(drafts: Sequence[Solution], settings: LabelSettings, policy: str | Path) -> Cost:
    """The cost of labels for these drafts, with the policy's tokenizer. Raises ModelError."""
    from glore.models import load_tokenizer

    tokenizer = load_tokenizer(policy)
    lengths = encode_many(tokenizer, [(f"{s}\n",) for d in drafts for s in d.steps], bos=False)
    sizes = iter(map(len, lengths))
    graded = [d for d in drafts if d.correct != "unknown"]
    share = sum(d.correct == "right" for d in graded) / max(1, len(graded))
    n_drawn, expected, at_most, full = 0, 0.0, 0, 0
    for draft in drafts:
        steps = [next(sizes) for _ in draft.steps]
        if draft.correct == "unknown" or len(steps) < 2:
            continue
        rest = [min(sum(steps[i:]) + 1, settings.max_new_tokens) for i in range(1, len(steps))]
        full += settings.rollouts * sum(rest)
        if settings.full_counts or draft.correct == "wrong":
            n_drawn += 1
            at_most += settings.rollouts * sum(rest)
            if settings.full_counts:
                expected += settings.rollouts * sum(rest)
            else:
                expected += scanned_tokens(rest, settings.rollouts, share)
    return Cost(len(drafts), n_drawn, round(expected), at_most, full)


def scanned_tokens(rest: Sequence[int], k: int, p: float) -> float:
    """Expected tokens that the scan draws for a wrong draft of L steps, whose first wrong step is
    any of them. `rest[i-1]`: tokens of a rollout from P_i, i < L; `p`: success rate before it.
    """
    first_success = expected_rollouts([p], k)
    total = 0.0
    for n_good in range(len(rest) + 1):  # steps before the first wrong one
        total += k * sum(rest[n_good:]) + (first_success * rest[n_good - 1] if n_good else 0.0)
    return total / (len(rest) + 1)


def measured_rate(
    engine: Engine,
    drafts: Sequence[Solution],
    problems: Mapping[str, Problem],
    settings: LabelSettings,
    layout: PromptLayout,
) -> float | None:
    """Tokens per second of a few short rollouts of these drafts; none without any."""
    n_tokens = min(PROBE_TOKENS, settings.max_new_tokens)
    params = SamplingParams.of(settings, n_tokens)
    chosen = [d for d in drafts if len(d.steps) > 1][:PROBES]
    each = max(1, PROBES // max(1, len(chosen)))
    requests = [
        Request(
            id=f"probe/{draft.id}",
            segments=layout.solve(problems[draft.problem_id].question, draft.steps[:1]),
            seeds=tuple(stable_seed(0, "probe", draft.id, k) for k in range(each)),
            params=params,
        )
        for draft in chosen
    ]
    list(engine.run(requests[:1]))  # what the first call sets up
    begin = time.monotonic()
    drawn = sum(c.n_tokens for r in engine.run(requests) for c in r.completions)
    seconds = time.monotonic() - begin
    return drawn / seconds if drawn and seconds > 0 else None
