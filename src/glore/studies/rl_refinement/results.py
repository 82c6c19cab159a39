"""The results of the study: accuracy after refining every test draft, what changed, what the rounds
of PPO did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from glore.evaluation.inputs import Index
from glore.pipeline import Stage, StageContext
from glore.records import Solution
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.studies.measured import (
    Measured,
    dot_chart,
    find,
    line_chart,
    percent_of,
    pivot,
    points_of,
    read_measured,
    share,
)
from glore.studies.paired import differences, estimate, question_index, right
from glore.studies.ppo_rounds import of_rounds
from glore.studies.rl_refinement.settings import (
    EI,
    EI_MODEL,
    PROMPTED,
    RlRefinementSettings,
    Variant,
    variants,
)
from glore.studies.rl_refinement.stages import DRAFTS, PROMPTED_STAGE, STUDENT, TESTED

__all__ = ["charts", "findings", "results_of", "tables"]

RESULTS = "rl_results"
TABLE, DIFFERENCES = "rl-refinement", "rl-differences"
ROUNDS, CURVES = "rl-rounds", "rl-curves"
SHARES = ("right", "fixed", "broken", "copied", "draft_right")
"""Columns of the rounds' table."""
NO_REFINEMENT, OWN = "drafts", "its own drafts"
BEFORE = "the student, before PPO"
PAPER = {NO_REFINEMENT: "36", PROMPTED: "15", EI: "39", "PPO": "36", "PPO with the ORM": "36"}
"""Table 6."""
CURVE_NAMES = {
    "copied": "copies of the draft, %",
    "right": "right, %",
    "reward": "mean reward, hundredths",
    "kl": "KL, hundredths of a nat",
}


def results_of(settings: RlRefinementSettings) -> Stage:
    """The stage that computes all numbers."""
    trained = variants(settings)

    def run(ctx: StageContext) -> None:
        names = {v.model: v.about for v in trained}
        by_round = of_rounds(ctx, ROUNDS, CURVES, names, SHARES)
        found = [*_by_way(ctx, trained), *by_round]
        ctx.write(found, Measured)
        ctx.count(numbers=len(found))

    return Stage(
        RESULTS,
        run,
        inputs=(TESTED, PROMPTED_STAGE, *(v.model for v in trained)),
        reads=("evaluation.bootstrap_samples",),
        opens=lambda _: (),
        version=2,
    )


def _by_way(ctx: StageContext, trained: Sequence[Variant]) -> list[Measured]:
    drafts = ctx.read("test_drafts", Solution)
    index, ids = question_index(ctx, drafts), [d.problem_id for d in drafts]
    made = {
        PROMPTED: ctx.read(PROMPTED_STAGE, Solution),
        BEFORE: ctx.read(TESTED, Solution, STUDENT),
        EI: ctx.read(TESTED, Solution, EI_MODEL),
        **{v.about: ctx.read(TESTED, Solution, v.model) for v in trained},
    }
    own = {
        v.about: ctx.read(TESTED, Solution, f"{DRAFTS}_{v.model}")
        for v in trained
        if v.draws_drafts
    }
    values = {NO_REFINEMENT: right(drafts)}
    found = [share(TABLE, NO_REFINEMENT, "right", estimate(index, ids, values[NO_REFINEMENT]))]
    for way, refinements in made.items():
        of_way = own.get(way, drafts)
        if way in own:
            name = f"{way}: {OWN}"
            values[name] = right(of_way)
            found.append(share(TABLE, name, "right", estimate(index, ids, values[name])))
        of_draft = {s.draft_id: s for s in refinements}
        values[way] = right(of_draft.get(d.id) for d in of_way)
        found.append(share(TABLE, way, "right", estimate(index, ids, values[way])))
        found += _changes(index, way, of_way, of_draft)
    pairs = [
        *((way, NO_REFINEMENT) for way in made),
        *((f"{way}: {OWN}", NO_REFINEMENT) for way in own),
        *((v.about, BEFORE) for v in trained if not v.from_ei),
        *((v.about, EI) for v in trained),
        *((v.about, trained[0].about) for v in trained[1:]),
    ]
    return [*found, *differences(index, DIFFERENCES, ids, values, pairs)]


def _changes(
    index: Index, way: str, drafts: Sequence[Solution], of_draft: Mapping[str | None, Solution]
) -> list[Measured]:
    """Of wrong drafts: fixed; of right ones: broken; of all: copied. A draft without steps has no
    refinement, and is not right after it.
    """
    wrong = [d for d in drafts if d.correct == "wrong"]
    good = [d for d in drafts if d.correct == "right"]
    columns: dict[str, tuple[Sequence[Solution], list[float]]] = {
        "wrong drafts fixed": (wrong, right(of_draft.get(d.id) for d in wrong)),
        "right drafts broken": (good, [1 - x for x in right(of_draft.get(d.id) for d in good)]),
        "copies": (
            drafts,
            [float(d.id in of_draft and of_draft[d.id].steps == d.steps) for d in drafts],
        ),
    }
    return [
        share(TABLE, way, name, estimate(index, [d.problem_id for d in of], x) if of else None)
        for name, (of, x) in columns.items()
    ]


def tables(folder: Path, settings: RlRefinementSettings) -> list[TableView]:
    """The tables of the study, from its folder."""
    found = read_measured(folder, RESULTS)
    view = pivot(
        found,
        TABLE,
        "RL for refinement (App. C) · every test draft refined globally, greedy",
        "Right: share of all test questions. Fixed and broken: shares of wrong and of right "
        "drafts. Copies: refinements with the draft's text. The paper's column is Table 6: other "
        "models and data.",
        "refiner",
        n_column=True,
    )
    rows = tuple((*row, PAPER.get(str(row[0]), "–")) for row in view.rows)
    n_episodes = settings.prompts * settings.samples
    return [
        dataclasses.replace(view, columns=(*view.columns, "paper, %"), rows=rows),
        pivot(
            found,
            DIFFERENCES,
            "RL for refinement (App. C) · differences",
            "First minus second, paired on the same test questions.",
            ("first", "second"),
            n_column=True,
        ),
        pivot(
            found,
            ROUNDS,
            "RL for refinement (App. C) · the first and the last round of PPO",
            f"Refinements that the policy drew of training drafts: {n_episodes} a round, at "
            f"T = {settings.temperature:g}. KL from the model that it started from, in nats a "
            "refinement (what is drawn estimates it, so it may be negative); entropy in nats a "
            "token. Value explains: share of the returns' variance.",
            ("PPO", "round"),
        ),
    ]


def charts(folder: Path) -> list[Chart]:
    """The charts of the study."""
    found = read_measured(folder, RESULTS)
    return [
        dot_chart(
            found,
            TABLE,
            "Refiners by how they learn",
            "Share of test questions right after refining every draft. Whiskers: 95 % intervals.",
            "right, %",
            columns=["right"],
            by_row=False,
        ),
        *(
            line_chart(
                found,
                CURVES,
                f"PPO by round: {label.partition(',')[0]}",
                "Refinements that the policy drew of training drafts in each round."
                + ("" if name == "kl" else " Bands: 95 % intervals."),
                "round",
                label,
                id=f"{CURVES}-{name}",
                column=name,
            )
            for name, label in CURVE_NAMES.items()
        ),
    ]


def findings(folder: Path) -> list[str]:
    """What came out, in sentences."""
    found = read_measured(folder, RESULTS)
    ways = list(dict.fromkeys(m.row[0] for m in found if m.table == TABLE and len(m.row) == 1))
    said = []
    for way in ways:
        gains = [m for m in found if m.table == DIFFERENCES and m.row == (way, NO_REFINEMENT)]
        copies = [m for m in found if (m.table, m.row, m.column) == (TABLE, (way,), "copies")]
        if not gains or not copies:
            continue
        accuracy = find(found, TABLE, way, "right")
        said.append(
            f"{way}: {percent_of(accuracy)} % right, {points_of(gains[0])} points against "
            f"the drafts; {percent_of(copies[0])} % copies."
        )
    return said
