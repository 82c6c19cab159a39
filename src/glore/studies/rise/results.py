"""The results of the study: accuracy by turn, what each turn changes, differences taken one at a
time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from glore.config import RunConfig
from glore.evaluation.inputs import Index
from glore.evaluation.rerank_curves import majority
from glore.pipeline import StageContext, declare
from glore.records import Solution
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.solutions import by_problem, first_of_each
from glore.studies.measured import (
    Measured,
    find,
    line_chart,
    number,
    pivot,
    points_of,
    read_measured,
    share,
)
from glore.studies.paired import differences, estimate, question_index, right
from glore.studies.rise.stages import (
    GLORE,
    GLORE_RIGHT,
    N_TURNS,
    ONLY_TARGETS,
    ONLY_WRONG,
    PARALLEL,
    RISE,
    ROUND_1,
    VARIANTS,
    Variant,
    turns_name,
)

__all__ = ["Played", "played", "results", "rise_charts", "rise_findings", "rise_tables"]

GREEDY_TURNS, SAMPLED_TURNS = "rise-turns", "rise-sampled"
CHANGES, ONE_AT_A_TIME, IN_FRAME = "rise-changes", "rise-differences", "rise-sampled-differences"
VOTED = f"majority of turns 1–{N_TURNS}"


class Played(NamedTuple):
    """The turns of one variant."""

    parallel: list[list[Solution]]
    """Several first attempts at each question; the first of them is turn 1."""
    turns: list[list[Solution]]
    """Turn → one attempt at each question, in the order of the questions."""

    def right(self, turn: int) -> list[float]:
        """Per question: is the attempt of that turn right? 1: the first turn."""
        return right(self.turns[turn - 1])

    def voted(self) -> list[float]:
        """Per question: is the majority over the turns right?"""
        return [_voted(attempts) for attempts in zip(*self.turns, strict=True)]

    def solved(self) -> list[float]:
        """Per question: is any turn right? An oracle would stop there."""
        return [
            float(any(s.correct == "right" for s in attempts))
            for attempts in zip(*self.turns, strict=True)
        ]

    def tokens(self, n_turns: int) -> list[float]:
        """Sampled tokens per question until the end of that turn."""
        return [
            float(sum(s.n_tokens for s in attempts[:n_turns]))
            for attempts in zip(*self.turns, strict=True)
        ]


def _voted(attempts: Sequence[Solution]) -> float:
    chosen = majority(attempts)
    return float(chosen is not None and chosen.correct == "right")


def played(ctx: StageContext, variant: Variant, mode: str) -> Played:
    """The turns of a variant on the test questions. `mode`: `greedy` or `sampled`."""
    stage = turns_name(variant)
    if variant.has_own_first:
        first = ctx.read(stage, Solution, f"{mode}_t1")
    else:
        first = ctx.read("test_drafts" if mode == "greedy" else "test_samples", Solution)
    later = [ctx.read(stage, Solution, f"{mode}_t{t}") for t in range(2, N_TURNS + 1)]
    return Played(list(by_problem(first).values()), [first_of_each(first, 1), *later])


@declare(
    "rise_results",
    inputs=tuple(map(turns_name, VARIANTS)),
    reads=("evaluation.bootstrap_samples",),
    opens=lambda _: (),
    version=3,
)
def results(ctx: StageContext) -> None:
    """All numbers of the tables."""
    drafts = ctx.read("test_drafts", Solution)
    index, ids = question_index(ctx, drafts), [d.problem_id for d in drafts]
    greedy = {v.about: played(ctx, v, "greedy") for v in VARIANTS}
    sampled = {v.about: played(ctx, v, "sampled") for v in VARIANTS}
    found = [
        *_by_turn(index, ids, greedy, GREEDY_TURNS),
        *_by_turn(index, ids, sampled, SAMPLED_TURNS, parallel=True),
        *_changes(index, ids, greedy),
        *_one_at_a_time(index, ids, greedy),
        *_in_frame(index, ids, sampled),
    ]
    ctx.write(found, Measured)
    ctx.count(numbers=len(found))


def _by_turn(
    index: Index,
    ids: Sequence[str],
    found: dict[str, Played],
    table: str,
    parallel: bool = False,
) -> list[Measured]:
    out = []
    for way, p in found.items():
        columns = {f"turn {t}": p.right(t) for t in range(1, N_TURNS + 1)}
        columns[VOTED] = p.voted()
        columns["stopped by an oracle"] = p.solved()
        if parallel and all(len(group) >= PARALLEL for group in p.parallel):
            voted = [_voted(group[:PARALLEL]) for group in p.parallel]
            columns[f"majority of {PARALLEL} at turn 1"] = voted
        for place, (name, values) in enumerate(columns.items(), start=1):
            x = float(place) if place <= N_TURNS else None
            out.append(share(table, way, name, estimate(index, ids, values), x))
        mean = estimate(index, ids, p.tokens(N_TURNS)).value
        out.append(number(table, way, f"tokens, {N_TURNS} turns", mean))
    return out


def _changes(index: Index, ids: Sequence[str], found: dict[str, Played]) -> list[Measured]:
    """Shares of all questions, turn by turn: wrong → right, right → not right, text unchanged."""
    out = []
    for way, p in found.items():
        for t in range(1, N_TURNS):
            pairs = list(zip(p.right(t), p.right(t + 1), strict=True))
            texts = zip(p.turns[t - 1], p.turns[t], strict=True)
            for name, values in (
                ("fixed", [float(b > a) for a, b in pairs]),
                ("broken", [float(b < a) for a, b in pairs]),
                ("untouched", [float(a.steps == b.steps) for a, b in texts]),
            ):
                row = (way, f"{t} → {t + 1}")
                out.append(share(CHANGES, row, name, estimate(index, ids, values)))
    return out


def _one_at_a_time(index: Index, ids: Sequence[str], found: dict[str, Played]) -> list[Measured]:
    """Each variant against the one that differs in one thing, at turn 2 and at the last turn: a
    model that changes every attempt looks harmless at every other turn.
    """
    about = {v.name: v.about for v in VARIANTS}
    pairs = [
        (about[GLORE_RIGHT], about[GLORE]),
        (about[ROUND_1], about[ONLY_WRONG]),
        (about[ROUND_1], about[ONLY_TARGETS]),
        (about[RISE], about[ROUND_1]),
        (about[RISE], f"{about[RISE]}, {VOTED}"),
        *((way, f"{way}, turn 1") for way in found),
    ]
    out = []
    for turn in (2, N_TURNS):
        values = {way: p.right(turn) for way, p in found.items()}
        values |= {f"{way}, turn 1": p.right(1) for way, p in found.items()}
        values[f"{about[RISE]}, {VOTED}"] = found[about[RISE]].voted()
        out += differences(index, ONE_AT_A_TIME, ids, values, pairs, f"turn {turn}")
    return out


def _in_frame(index: Index, ids: Sequence[str], found: dict[str, Played]) -> list[Measured]:
    """RISE's own comparison, attempts sampled: m1@t1, m5@t1, m1@t5."""
    rise = found[next(v.about for v in VARIANTS if v.name == RISE)]
    values = {
        "m1@t1": rise.right(1),
        "m5@t1": [_voted(group[:PARALLEL]) for group in rise.parallel],
        "m1@t5": rise.voted(),
        "turn 5": rise.right(N_TURNS),
    }
    pairs = [("m1@t5", "m1@t1"), ("m1@t5", "m5@t1"), ("turn 5", "m5@t1")]
    return differences(index, IN_FRAME, ids, values, pairs)


def rise_tables(config: RunConfig, folder: Path) -> list[TableView]:
    """The tables of the study, from its folder."""
    found = read_measured(folder, results.name)
    temperature = config.evaluation.temperature
    return [
        pivot(
            found,
            GREEDY_TURNS,
            "RISE · accuracy by turn, greedy",
            "Share of test questions right at each turn. Every turn sees the attempt before it; "
            "with `window=K`, RISE's see the last K. All models learned from as many examples.",
            "variant",
            n_column=True,
        ),
        pivot(
            found,
            SAMPLED_TURNS,
            f"RISE · accuracy by turn, sampled at T = {temperature:g}",
            "As before. The paper's m1@t1 is turn 1, m5@t1 the majority of five attempts at turn 1 "
            "and m1@t5 the majority of turns 1–5. GSM8K, quoted second-hand, m5@t1 → m1@t5: "
            "Llama2 49.7 → 50.7 and 51.0 → 55.0, Mistral 50.6 → 59.2.",
            "variant",
            n_column=True,
        ),
        pivot(
            found,
            CHANGES,
            "RISE · fixed, broken and untouched by turn, greedy",
            "Shares of all test questions. Fixed: wrong before, right after. Broken: the reverse. "
            "Untouched: the same text.",
            ("variant", "turn"),
            n_column=True,
        ),
        pivot(
            found,
            ONE_AT_A_TIME,
            "RISE · one difference at a time, greedy",
            "First minus second, paired on the same test questions, at two turns.",
            ("first", "second"),
            n_column=True,
        ),
        pivot(
            found,
            IN_FRAME,
            "RISE · turns against parallel attempts of the same model, sampled",
            "First minus second, paired on the same test questions, of the model of round 2. Five "
            "turns and five attempts sample about as many tokens.",
            ("first", "second"),
            n_column=True,
        ),
    ]


def rise_charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Accuracy by turn."""
    turned = [m for m in read_measured(folder, results.name) if m.x is not None]
    return [
        line_chart(
            [dataclasses.replace(m, column="accuracy") for m in turned],
            GREEDY_TURNS,
            "RISE: accuracy by turn, greedy",
            "Share of test questions right. Bands: 95 % intervals.",
            "turn",
            "accuracy, %",
        )
    ]


def rise_findings(config: RunConfig, folder: Path) -> list[str]:
    """What carries the gain, in a few sentences."""
    found = read_measured(folder, results.name)
    about = {v.name: v.about for v in VARIANTS}

    def effect(first: str, second: str, turn: int = N_TURNS) -> str:
        m = find(found, ONE_AT_A_TIME, (first, second), f"turn {turn}")
        return points_of(m)

    rise, glore = about[RISE], about[GLORE]
    return [
        f"Asked once more, RISE moves by {effect(rise, f'{rise}, turn 1', 2)} points without a "
        f"reward model, and GLoRe's refiner by {effect(glore, f'{glore}, turn 1', 2)}.",
        f"Right drafts in training move turn 2 of GLoRe's refiner by "
        f"{effect(about[GLORE_RIGHT], glore, 2)} points, and that of RISE's first round by "
        f"{effect(about[ROUND_1], about[ONLY_WRONG], 2)}.",
        f"Of the other differences, at turn {N_TURNS}: reward weights instead of right targets "
        f"alone {effect(about[ROUND_1], about[ONLY_TARGETS])} points, own turns "
        f"{effect(rise, about[ROUND_1])}, the last turn instead of the majority "
        f"{effect(rise, f'{rise}, {VOTED}')}.",
    ]
