"""Step labels: the backward scan against full counts on our engine, and against a typical
hand-written labeller.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence

from benchmarks import peers
from benchmarks.rounds import Contender, race, show
from benchmarks.workloads import (
    Draft,
    drafts,
    language_model,
    prefix_asks,
    quantizations,
    tokenizer,
)
from glore.config import LabelSettings
from glore.config.engine import Quantization
from glore.engines.local.engine import TorchEngine
from glore.engines.protocol import Engine, FollowUp, Request, Result
from glore.progress import SilentProgress
from glore.records import PrefixTrials, Problem, Solution
from glore.tasks.protocol import Grade
from glore.where import expected_rollouts, label_drafts, verify_prefixes

K = 8
N_NAIVE = 8
"""Drafts that the naive labeller gets."""
_LIKELY, _UNLIKELY = 0.35, 0.02
"""Chance of a right rollout before and after a draft's first wrong step."""


@dataclasses.dataclass(slots=True)
class _Engine:
    """Draws rollouts with the draft's remaining number of tokens, and counts them."""

    engine: Engine
    left: dict[tuple[str, ...], int]
    n_drawn: int = 0

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        def cut(request: Request) -> Request:
            n_new = self.left[request.segments[1:]]
            self.n_drawn += len(request.seeds)
            return dataclasses.replace(
                request, params=dataclasses.replace(request.params, max_new_tokens=n_new)
            )

        def more(result: Result) -> list[Request]:
            return [cut(r) for r in follow_up(result)] if follow_up is not None else []

        return self.engine.run(map(cut, requests), more)


class _Task:
    """Grades by a hash of the text: right with the probability that belongs to the number of steps
    before it.
    """

    name = "chance"

    def __init__(self, first_wrong: dict[tuple[str, ...], int]) -> None:
        self._first_wrong = first_wrong

    def chance(self, kept: tuple[str, ...]) -> float:
        """Success rate of a rollout from these steps."""
        return _LIKELY if len(kept) <= self._first_wrong[kept] else _UNLIKELY

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        digest = hashlib.blake2b("\n".join(steps).encode(), digest_size=8).digest()
        right = int.from_bytes(digest, "big") / 2**64 < self.chance(tuple(steps[:-1]))
        return Grade("right" if right else "wrong", None)


class Case:
    """Wrong drafts, the success rate of rollouts from each prefix, and an engine."""

    def __init__(self, size: str, n_questions: int, quantization: Quantization = "none") -> None:
        self.drafts = drafts(n_questions, 2, seed=7)
        rng = random.Random(3)
        first_wrong, left = {}, {}
        for d in self.drafts:
            wrong = rng.randrange(len(d.steps))
            for i in range(1, len(d.steps)):
                first_wrong[d.steps[:i]] = wrong
                left[tuple(f"{s}\n" for s in d.steps[:i])] = sum(
                    len(s.split()) for s in d.steps[i:]
                )
        self.task = _Task(first_wrong)
        self.engine = _Engine(
            TorchEngine.of(language_model(size), tokenizer(), quantization=quantization), left
        )
        self.problems = {
            d.question: Problem(d.question, d.question, "1", None, "train") for d in self.drafts
        }
        self.solutions = [
            Solution(str(n), d.question, d.steps, None, "wrong", "student", None, 1, "eos", 0, 1.0)
            for n, d in enumerate(self.drafts)
        ]

    def trials(self, full: bool, waves: tuple[int, ...] = (1, 3)) -> list[PrefixTrials]:
        """Rollouts of all drafts."""
        rule = LabelSettings(consistency="off", full_counts=full)
        return verify_prefixes(
            self.engine,
            self.task,
            self.problems,
            self.solutions,
            rule,
            seed=0,
            progress=SilentProgress(),
            waves=waves,
        )  # type: ignore[arg-type]  # a task that only grades

    def labels(self, trials: list[PrefixTrials], full: bool) -> list[tuple[bool, ...] | None]:
        """Trials → step labels."""
        rule = LabelSettings(consistency="off", full_counts=full)
        return [r.labels for r in label_drafts(self.solutions, trials, rule, seed=0)[0]]

    def expected(self, d: Draft) -> float:
        """Expected rollouts of one draft, by the formula of method 3."""
        return expected_rollouts([self.task.chance(d.steps[:i]) for i in range(1, len(d.steps))], K)


def table(size: str, n_rounds: int) -> None:
    """Counts first, then drafts per second."""
    n_questions = 120 if size == "1M" else 40
    many = Case(size, n_questions)
    found, counts = [], []
    for is_full, waves in ((True, ()), (False, (1, 3)), (False, (1,) * K)):
        before = many.engine.n_drawn
        found.append(many.trials(is_full, waves))
        counts.append(many.engine.n_drawn - before)
    (full, lazy, one), (n_full, n_lazy, n_one) = found, counts
    same = many.labels(full, True) == many.labels(lazy, False) == many.labels(one, False)
    formula = sum(many.expected(d) for d in many.drafts)
    print(f"\n### Backward scan, {size}: {len(many.drafts)} wrong drafts\n")
    print("| rollouts drawn | | fewer by | labels |\n|---|---|---|---|")
    print(f"| full counts | {n_full:,} | | |")
    print(
        f"| scan, one rollout at a time | {n_one:,} | {n_full / n_one:.2f} × | "
        f"{'identical' if same else 'DIFFERENT'} |"
    )
    print(f"| formula of method 3 for that | {formula:,.0f} | {n_full / formula:.2f} × | |")
    print(
        f"| scan, in waves of 1, 3 and 4 (the default) | {n_lazy:,} | {n_full / n_lazy:.2f} × | "
        f"{'identical' if same else 'DIFFERENT'} |"
    )

    model, n = language_model(size), len(many.drafts)
    # Its rate doesn't grow with the work: one prefix at a time. Ours has its rows full with so many
    # drafts, as with a run's thousands.
    some = many.drafts[:: max(1, n // N_NAIVE)]
    naive = prefix_asks(some)

    def drawn(case: Case, full: bool) -> float:
        case.trials(full)
        return n

    def one_by_one() -> float:
        peers.generate_one_by_one(model, naive)
        return len(some)

    ours = Contender("glore, backward scan", functools.partial(drawn, many, False))
    others = [
        Contender("glore, full counts", functools.partial(drawn, many, True)),
        *(
            Contender(
                f"glore, backward scan, {kind} products",
                functools.partial(drawn, Case(size, n_questions, kind), False),
            )
            for kind in quantizations(model)
        ),
        Contender(
            f"a labeller as people write it, {len(some)} of them: "
            "`generate(num_return_sequences=8)`, prefix by prefix",
            one_by_one,
        ),
    ]
    show(
        f"Step labels, {size}: {n} wrong drafts",
        "drafts labelled per second",
        race(ours, others, n_rounds),
    )
