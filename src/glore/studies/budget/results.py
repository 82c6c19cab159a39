"""Every way of answering with what it spends, and paired differences at equal tokens."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glore.config import RunConfig
from glore.decisions import CANDIDATES, Decisions
from glore.evaluation.inputs import ORM, Index
from glore.evaluation.rerank_curves import rerank_at_k
from glore.pipeline import StageContext, declare
from glore.records import Solution, StepScores
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.solutions import by_problem
from glore.stages.checks import check_engine
from glore.stages.common import problems_by_id, score
from glore.studies.budget.cascades import DRAFT_FIRST, cascades, sample_refinements
from glore.studies.budget.iterated import glore_rounds
from glore.studies.budget.spent import (
    Scores,
    Spent,
    decisions_of,
    is_right,
    orm_scores,
    sample_numbers,
    until_accepted,
    voted,
)
from glore.studies.measured import (
    Measured,
    line_chart,
    number,
    pivot,
    points_of,
    read_measured,
    share,
)
from glore.studies.paired import differences, estimate, question_index
from glore.studies.rise.results import played
from glore.studies.rise.stages import N_TURNS, RISE, VARIANTS, turns_name

__all__ = [
    "budget_charts",
    "budget_findings",
    "budget_tables",
    "results",
    "turn_scores",
]

GREEDY, MAJORITY, BEST_OF = "greedy", "majority", "best of N by ORM"
ONE_BY_ONE = "samples until the ORM accepts"
LAST_TURN, TURNS_VOTED, TURNS_ORM = "RISE", "RISE, majority of turns", "RISE until the ORM accepts"
GLORE_ONCE = "GLoRe once, every draft"
BASELINES = (MAJORITY, BEST_OF, ONE_BY_ONE, DRAFT_FIRST)
TABLE, CURVE, EQUAL = "budget", "budget-curve", "budget-differences"
MAX_ROTATIONS = 16
VARIANT = next(v for v in VARIANTS if v.name == RISE)


@declare(
    "rise_turn_scores",
    inputs=(turns_name(VARIANT), "orm"),
    reads=("engine",),
    opens=lambda _: (ORM,),
    checks=(check_engine,),
)
def turn_scores(ctx: StageContext) -> None:
    """The ORM's scores of RISE's greedy turns: parts `t1`, …"""
    problems = problems_by_id(ctx, "test")
    for turn, attempts in enumerate(played(ctx, VARIANT, "greedy").turns, start=1):
        score(ctx, ORM, attempts, problems, part=f"t{turn}")


@declare(
    "budget_results",
    inputs=(turn_scores.name, glore_rounds.name, sample_refinements.name, "test_scores"),
    reads=tuple(f"evaluation.{n}" for n in ("threshold", "aggregate", "bootstrap_samples")),
    opens=lambda _: (),
    version=4,
)
def results(ctx: StageContext) -> None:
    """Parts: `part` (all numbers), `spent` (every way, step and question)."""
    drafts = ctx.read("test_drafts", Solution)
    ids = [d.problem_id for d in drafts]
    decisions, scores = decisions_of(ctx), orm_scores(ctx)
    spent = [
        *_of_samples(ctx, drafts, decisions, scores),
        *_of_turns(ctx, decisions),
        *_of_refinements(ctx, drafts, decisions, scores),
        *cascades(ctx, drafts, decisions, scores),
        *ctx.read(glore_rounds.name, Spent, "spent"),
    ]
    ctx.write(spent, Spent, "spent")
    groups: dict[tuple[str, int], dict[str, Spent]] = {}
    for s in spent:
        groups.setdefault((s.way, s.step), {})[s.problem_id] = s
    places = {
        key: _Place(
            [group[i].tokens for i in ids],
            [group[i].right for i in ids],
        )
        for key, group in groups.items()
    }
    index = question_index(ctx, drafts)
    found: list[Measured] = []
    for (way, step), place in places.items():
        e = estimate(index, ids, place.right)
        tokens = place.mean_tokens
        row = (way, str(step))
        found += [number(TABLE, row, "tokens", round(tokens, 1)), share(TABLE, row, "accuracy", e)]
        found.append(share(CURVE, way, "accuracy", e, tokens))
    found += _at_equal_tokens(index, ids, places)
    ctx.write(found, Measured)
    ctx.count(ways=len({way for way, _ in places}))


class _Place(NamedTuple):
    """One way and step, a value per question each."""

    tokens: list[float]
    right: list[float]

    @property
    def mean_tokens(self) -> float:
        return float(np.mean(self.tokens))


def _of_samples(
    ctx: StageContext,
    drafts: Sequence[Solution],
    decisions: Decisions,
    scores: Mapping[str, Scores],
) -> list[Spent]:
    """The greedy draft; majority and best of N by expectation over subsets of the samples; samples
    one by one, in their order.
    """
    found = [Spent(GREEDY, 1, d.problem_id, float(d.n_tokens), is_right(d)) for d in drafts]
    for problem_id, group in by_problem(ctx.read("test_samples", Solution)).items():
        values = [decisions.score(scores[s.id]) for s in group]
        right = [s.correct == "right" for s in group]
        mean = sum(s.n_tokens for s in group) / len(group)
        for n in sample_numbers(len(group)):
            best = rerank_at_k(values, right, n)
            tokens, accepted = until_accepted(group, [scores[s.id] for s in group], decisions, n)
            found += [
                Spent(MAJORITY, n, problem_id, n * mean, _majority(group, n)),
                Spent(BEST_OF, n, problem_id, n * mean, best),
                Spent(ONE_BY_ONE, n, problem_id, tokens, accepted),
            ]
    return found


def _majority(group: Sequence[Solution], n: int) -> float:
    """Mean over rotations of the samples, the first n of each; with few samples every one counts
    equally.
    """
    k = len(group)
    starts = range(0, k, max(1, k // MAX_ROTATIONS)) if n < k else (0,)
    votes = [voted([group[(start + j) % k] for j in range(n)]) for start in starts]
    return sum(votes) / len(votes)


def _of_turns(ctx: StageContext, decisions: Decisions) -> list[Spent]:
    rise = played(ctx, VARIANT, "greedy")
    scores = [ctx.read(turn_scores.name, StepScores, f"t{t}") for t in range(1, N_TURNS + 1)]
    found = []
    for attempts, scored in zip(
        zip(*rise.turns, strict=True), zip(*scores, strict=True), strict=True
    ):
        problem_id = attempts[0].problem_id
        for n in range(1, N_TURNS + 1):
            tokens = float(sum(a.n_tokens for a in attempts[:n]))
            stopped, answer = until_accepted(attempts, [s.p_correct for s in scored], decisions, n)
            found += [
                Spent(LAST_TURN, n, problem_id, tokens, is_right(attempts[n - 1])),
                Spent(TURNS_VOTED, n, problem_id, tokens, voted(attempts[:n])),
                Spent(TURNS_ORM, n, problem_id, stopped, answer),
            ]
    return found


def _of_refinements(
    ctx: StageContext,
    drafts: Sequence[Solution],
    decisions: Decisions,
    scores: Mapping[str, Scores],
) -> list[Spent]:
    """GLoRe as in Fig. 4: every draft is refined, and the ORM chooses."""
    refined = [s for kind in CANDIDATES for s in ctx.read("test_refinements", Solution, kind)]
    of_draft: dict[str | None, list[Solution]] = {}
    for s in refined:
        of_draft.setdefault(s.draft_id, []).append(s)
    found = []
    for d in drafts:
        candidates = [d, *of_draft.get(d.id, ())]
        chosen = candidates[decisions.choose([scores[c.id] or None for c in candidates])]
        tokens = float(sum(c.n_tokens for c in candidates))
        found.append(Spent(GLORE_ONCE, 1, d.problem_id, tokens, is_right(chosen)))
    return found


def _at_equal_tokens(
    index: Index, ids: Sequence[str], places: Mapping[tuple[str, int], _Place]
) -> list[Measured]:
    """The first step beyond the draft and the last one of every other way, against each baseline
    with at least as many tokens; with the most it has, where that is not enough.
    """
    steps_of: dict[str, list[int]] = {}
    for way, step in places:
        steps_of.setdefault(way, []).append(step)
    draft = places[GREEDY, 1].mean_tokens
    found = []
    for way, step in _compared_steps(steps_of, places, draft):
        mine = places[way, step]
        for baseline in BASELINES:
            steps = sorted(s for w, s in places if w == baseline)
            n = next(
                (s for s in steps if places[baseline, s].mean_tokens >= mine.mean_tokens),
                steps[-1],
            )
            other, row = places[baseline, n], (f"{way}, {step}", baseline)
            values = {way: mine.right, baseline: other.right}
            (gain,) = differences(index, EQUAL, ids, values, [(way, baseline)])
            found += [
                number(EQUAL, row, "tokens of the first", round(mine.mean_tokens, 1)),
                number(EQUAL, row, "step of the second", n),
                number(EQUAL, row, "tokens of the second", round(other.mean_tokens, 1)),
                dataclasses.replace(gain, row=row),
            ]
    return found


def _compared_steps(
    steps_of: Mapping[str, Sequence[int]], places: Mapping[tuple[str, int], _Place], draft: float
) -> Iterator[tuple[str, int]]:
    """Way and step of everything that samples more than the draft, besides the baselines."""
    for way, steps in steps_of.items():
        beyond = [s for s in sorted(steps) if places[way, s].mean_tokens > 1.2 * draft]
        if way not in BASELINES and beyond:
            yield from dict.fromkeys((way, s) for s in (beyond[0], beyond[-1]))


def budget_tables(config: RunConfig, folder: Path) -> list[TableView]:
    """The tables of the study, from its folder."""
    found = read_measured(folder, results.name)
    return [
        pivot(
            found,
            TABLE,
            "Budget · accuracy against sampled tokens",
            "Step: samples, turns or rounds at most. Tokens: mean of those sampled for a question; "
            "what models read is not counted.",
            ("way", "step"),
            n_column=True,
        ),
        pivot(
            found,
            EQUAL,
            "Budget · differences at equal tokens",
            "First minus second, paired on the same test questions. The second has the first step "
            "with at least as many tokens, or the most that the run has sampled.",
            ("first", "second"),
            n_column=True,
        ),
    ]


def budget_charts(config: RunConfig, folder: Path) -> list[Chart]:
    """The figure that somebody choosing a method needs."""
    return [
        line_chart(
            read_measured(folder, results.name),
            CURVE,
            "Accuracy against sampled tokens",
            "Test questions answered right, against tokens sampled for a question on average. "
            "Bands: 95 % intervals.",
            "tokens",
            "accuracy, %",
            id="budget-chart",
            x_scale="log",
        )
    ]


def budget_findings(config: RunConfig, folder: Path) -> list[str]:
    """The most accurate way, and its differences at equal tokens."""
    found = read_measured(folder, results.name)
    rows = [m for m in found if m.table == EQUAL and m.kind == "difference"]
    curve = [m for m in found if m.table == CURVE and m.row[0] not in BASELINES]
    best = max(curve, key=lambda m: (m.value or 0.0, -(m.x or 0.0)))
    mine = re.compile(rf"{re.escape(best.row[0])}, \d+")
    against = [m for m in rows if mine.fullmatch(m.row[0])]
    tokens = {
        m.row: m.value or 0.0
        for m in found
        if (m.table, m.column) == (EQUAL, "tokens of the first")
    }
    shown = "; ".join(
        f"{points_of(m)} against {m.row[1]} ({m.row[0]}: {tokens[m.row]:.0f} tokens)"
        for m in against
    )
    accuracy = 100 * (best.value or 0.0)
    return [
        f"The most accurate way besides sampling in parallel is {best.row[0]}: {accuracy:.1f} % "
        f"with {best.x:.0f} tokens a question. At equal tokens, in points: {shown}."
    ]
