"""Study `value`: value-based local refinement (App. J) against process-based and global.

The place is the prefix with the highest value: right rollouts in training (full counts), the ORM's
score at test time. The refiner learns to go on from there with another step. It is trained as the
run's refiner is, jointly with global pairs, 1:1. To tell place and model apart, the run's own
refiner is also asked from the place that the ORM's scores give.

Assumptions: ties go to the latest prefix; a draft whose right rollouts all begin with its own next
step gives no pair; as in the paper, rollouts need not repeat the prefix's results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from glore.chat_template import step_format
from glore.config import RunConfig
from glore.decisions import GLOBAL, LOCAL_ORM, LOCAL_SORM, MarkedDraft
from glore.errors import RunError
from glore.evaluation.inputs import ORM
from glore.how import mixed_pairs, value_mark, value_pairs
from glore.pipeline import StageContext, declare
from glore.records import PrefixTrials, RefinementPair, Solution, StepScores
from glore.report.charts import Chart
from glore.report.views import REFINER_NAMES, TableView
from glore.stages.checks import check_engine, check_training
from glore.stages.common import SAMPLING, lazy_engine, model_name, problems_by_id, verdicts
from glore.stages.estimates import draft_tokens, refiner_tokens
from glore.stages.evaluation_set import refined_solutions
from glore.stages.fine_tuning import TRAINING
from glore.stages.labelling import train_drafts
from glore.stages.refining import refiner_opened, train_refiner
from glore.studies.full_counts import full_rollouts
from glore.studies.measured import Measured, dot_chart, pivot, read_measured, share
from glore.studies.paired import differences, estimate, question_index, right
from glore.studies.study import Study
from glore.tasks.grading.answers import with_answer_line

__all__ = ["STUDY"]

MODEL = "value_refiner"
FIXED, DIFFERENCES = "value-fixed", "value-differences"
VALUE = "value-based"
OWN_MODEL = "the run's refiner, from the place of the highest value"
PAPER = {GLOBAL: "20.3", LOCAL_ORM: "18.2", LOCAL_SORM: "21.1", VALUE: "14"}
"""GSM8K, 7B: Table 3 and App. J."""


@declare(
    "value_pairs",
    inputs=(full_rollouts.name, "pairs"),
    reads=("reward.draft_samples",),
    opens=lambda _: (),
)
def pairs(ctx: StageContext) -> None:
    """Value-based and the run's global pairs, 1:1."""
    drafts = [d for d in train_drafts(ctx) if d.correct == "wrong"]
    trials = ctx.read(full_rollouts.name, PrefixTrials)
    steps = step_format(ctx.config.prompt)
    found = value_pairs(drafts, trials, seed=ctx.seed, steps=steps)
    whole = [p for p in ctx.read("pairs", RefinementPair) if p.kind == "global"]
    merge = ctx.config.task.merge_answer_line
    made = [
        dataclasses.replace(p, target_steps=with_answer_line(p.target_steps, merge))
        for p in mixed_pairs(found, whole, seed=ctx.seed)
    ]
    ctx.write(made, RefinementPair)
    ctx.count(wrong_drafts=len(drafts), value_pairs=len(found), pairs=len(made))


@declare(
    MODEL,
    inputs=("base", "student", pairs.name),
    reads=("refiner.init", "refiner.train"),
    uses=TRAINING,
    models=(MODEL,),
    opens=refiner_opened,
    estimate=refiner_tokens,
    checks=(check_training("refiner.train"),),
)
def train(ctx: StageContext) -> None:
    """The refiner of value-based pairs."""
    found = ctx.read(pairs.name, RefinementPair)
    if not found:
        raise RunError(
            "no wrong draft has a right rollout that begins with another step, so there is nothing "
            "to refine from the place of the highest value; draw more rollouts (labels.rollouts)"
        )
    train_refiner(ctx, MODEL, found)


@declare(
    "value_refinements",
    inputs=("test_draft_scores", "refiner", MODEL),
    reads=SAMPLING,
    opens=lambda _: ("refiner", MODEL),
    estimate=lambda c: 2 * draft_tokens(c),
    checks=(check_engine,),
)
def refinements(ctx: StageContext) -> None:
    """Greedy refinements of the test drafts from the place of the highest value. Parts: `refiner`
    (by the run's), `value_refiner`.
    """
    problems = problems_by_id(ctx, "test")
    scores = {s.solution_id: s.p_correct for s in ctx.read("test_draft_scores", StepScores, ORM)}
    drafts = ctx.read("test_drafts", Solution)
    marks = [MarkedDraft(d, value_mark(scores[d.id])) for d in drafts]
    marked = [m for m in marks if m.marked_step is not None]
    for model in ("refiner", MODEL):
        folder = ctx.model_dir(model)
        engine = lazy_engine(ctx, folder)
        made = refined_solutions(ctx, marked, "value", problems, engine, part=model)
        ctx.release(model_name(folder))
        ctx.count(**verdicts(made, model))


@declare(
    "value_results",
    inputs=(refinements.name, "test_refinements"),
    reads=("evaluation.bootstrap_samples",),
    opens=lambda _: (),
    version=2,
)
def results(ctx: StageContext) -> None:
    """Share of wrong test drafts that each refiner fixes, and paired differences."""
    drafts = ctx.read("test_drafts", Solution)
    wrong = [d for d in drafts if d.correct == "wrong"]
    made = {
        kind: ctx.read("test_refinements", Solution, kind)
        for kind in (GLOBAL, LOCAL_ORM, LOCAL_SORM)
    } | {
        OWN_MODEL: ctx.read(refinements.name, Solution, "refiner"),
        VALUE: ctx.read(refinements.name, Solution, MODEL),
    }
    fixed = {REFINER_NAMES.get(k, k): _fixed(wrong, found) for k, found in made.items()}
    index, ids = question_index(ctx, drafts), [d.problem_id for d in wrong]
    pairs_of_ways = [
        (VALUE, REFINER_NAMES[LOCAL_SORM]),
        (VALUE, REFINER_NAMES[GLOBAL]),
        (VALUE, OWN_MODEL),
    ]
    ctx.write(
        [
            *(
                share(FIXED, way, "fixed", estimate(index, ids, values))
                for way, values in fixed.items()
            ),
            *differences(index, DIFFERENCES, ids, fixed, pairs_of_ways),
        ],
        Measured,
    )


def _fixed(wrong: Sequence[Solution], made: Sequence[Solution]) -> list[float]:
    of_draft: Mapping[str | None, Solution] = {s.draft_id: s for s in made}
    return right(of_draft.get(d.id) for d in wrong)


def _tables(config: RunConfig, folder: Path) -> list[TableView]:
    found = read_measured(folder, results.name)
    view = pivot(
        found,
        FIXED,
        "Value-based refinement (App. J) · wrong drafts fixed",
        "Share of wrong test drafts, no reranker. The paper's column is GSM8K with 7B.",
        "refiner",
        n_column=True,
    )
    quoted = {REFINER_NAMES.get(k, k): text for k, text in PAPER.items()}
    rows = tuple((*row, quoted.get(str(row[0]), "–")) for row in view.rows)
    return [
        dataclasses.replace(view, columns=(*view.columns, "paper, %"), rows=rows),
        pivot(
            found,
            DIFFERENCES,
            "Value-based refinement (App. J) · differences",
            "First minus second, paired on the same wrong drafts.",
            ("first", "second"),
            n_column=True,
        ),
    ]


def _charts(config: RunConfig, folder: Path) -> list[Chart]:
    return [
        dot_chart(
            read_measured(folder, results.name),
            FIXED,
            "Wrong drafts fixed, by refiner",
            "Share of wrong test drafts that a refinement makes right. Whiskers: 95 % intervals.",
            "fixed, %",
        )
    ]


STUDY = Study(
    "value",
    "Value-based local refinement against process-based and global (App. J).",
    lambda config: (pairs, train, refinements, results),
    _tables,
    _charts,
    after=("shepherd",),
)
