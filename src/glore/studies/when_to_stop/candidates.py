"""What the study `when-to-stop` draws: refinements of dev drafts from every mark that a threshold
gives, and of test drafts from those marks that the run did not have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from glore.decisions import GLOBAL, LOCAL_SORM, Decisions, MarkedDraft
from glore.evaluation import EvaluationInputs
from glore.evaluation.decomposition import first_errors
from glore.evaluation.inputs import ORM, SORM, Index
from glore.pipeline import StageContext
from glore.records import Problem, Solution, StepLabels, StepScores
from glore.stages.common import problems_by_id, sample, score
from glore.studies.refining import global_mark, mark_of, refined, refiner_engine

__all__ = ["GRID", "Case", "dev_candidates", "dev_cases", "test_candidates", "test_cases"]

GRID = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Thresholds that are tried."""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One draft with all that can be decided about it."""

    unit: str
    draft: Solution
    orm: tuple[float, ...]
    sorm: tuple[float, ...]
    whole: Solution | None
    """The global refinement."""
    locals: Mapping[int, Solution]
    """Mark → local refinement."""
    right_solution: Solution | None
    """A right solution of the question, scored by the ORM."""
    error: int | None
    """0-based first wrong step of a wrong draft, where it is known."""

    @property
    def is_right(self) -> bool:
        return self.draft.correct == "right"


def dev_candidates(ctx: StageContext) -> None:
    """Greedy drafts of the dev questions, their scores and refinements.

    Parts: `drafts`, `orm`, `sorm`, `global`, `local`, `refined_orm`.
    """
    problems = problems_by_id(ctx, "dev")
    drafts = sample(
        ctx, ctx.model_dir("student"), list(problems.values()), source="student", part="drafts"
    )
    score(ctx, ORM, drafts, problems, part=ORM)
    sorm = score(ctx, SORM, drafts, problems, part=SORM)
    engine = refiner_engine(ctx)
    mark = global_mark(ctx)
    whole = refined(
        ctx,
        [MarkedDraft(d, mark) for d in drafts if d.steps],
        GLOBAL,
        problems,
        engine,
        part=GLOBAL,
    )
    local = refined(ctx, _marks(ctx, drafts, sorm, {}), LOCAL_SORM, problems, engine, part="local")
    ctx.release("refiner")
    score(ctx, ORM, [*whole, *local], problems, part="refined_orm")


def test_candidates(ctx: StageContext) -> None:
    """Local refinements of the test drafts from every mark that a threshold or an oracle asks for.

    Parts: `local`, `refined_orm`.
    """
    problems = problems_by_id(ctx, "test")
    drafts = ctx.read("test_drafts", Solution)
    errors = first_errors(
        EvaluationInputs(
            "",
            (),
            tuple(drafts),
            (),
            draft_labels=tuple(ctx.read("test_labels", StepLabels)),
            draft_truth=tuple(ctx.read("test_labels", StepLabels, "truth")),
        )
    )[1]
    sorm = ctx.read("test_draft_scores", StepScores, SORM)
    marked = _marks(ctx, drafts, sorm, errors)
    local = refined(ctx, marked, LOCAL_SORM, problems, refiner_engine(ctx), part="local")
    ctx.release("refiner")
    score(ctx, ORM, local, problems, part="refined_orm")


def _marks(
    ctx: StageContext,
    drafts: Sequence[Solution],
    scores: Sequence[StepScores],
    errors: Mapping[str, int],
) -> list[MarkedDraft]:
    """Every mark that some threshold gives a draft, and its first wrong step."""
    of = {s.solution_id: s.p_correct for s in scores}
    grid = {*GRID, ctx.config.evaluation.threshold}
    out = []
    for draft in drafts:
        marks = {Decisions(threshold=t).first_bad_step(of[draft.id]) for t in grid}
        marks |= {errors.get(draft.id)}
        out += [MarkedDraft(draft, mark) for mark in sorted(m for m in marks if m is not None)]
    return out


def dev_cases(
    ctx: StageContext, problems: Mapping[str, Problem]
) -> tuple[list[Case], dict[str, tuple[float, ...]]]:
    """The dev drafts with their candidates, and the ORM's scores by solution id."""

    def read(part: str) -> list[Solution]:
        return ctx.read("dev_candidates", Solution, part)

    def scores(part: str) -> dict[str, tuple[float, ...]]:
        return {s.solution_id: s.p_correct for s in ctx.read("dev_candidates", StepScores, part)}

    orm, sorm = scores(ORM), scores(SORM)
    whole = {s.draft_id: s for s in read(GLOBAL)}
    local = _by_mark(read("local"))
    cases = [
        Case(
            " ".join(problems[d.problem_id].question.split()),
            d,
            orm[d.id],
            sorm[d.id],
            whole.get(d.id),
            local.get(d.id, {}),
            None,
            None,
        )
        for d in read("drafts")
    ]
    return cases, orm | scores("refined_orm")


def test_cases(
    ctx: StageContext, inputs: EvaluationInputs, index: Index
) -> tuple[list[Case], dict[str, tuple[float, ...]]]:
    """The test drafts with their candidates, and the ORM's scores by solution id."""
    orm = {s.solution_id: s.p_correct for s in inputs.scores if s.model == ORM}
    new = ctx.read("test_candidates", StepScores, "refined_orm")
    orm |= {s.solution_id: s.p_correct for s in new}
    local = _by_mark(ctx.read("test_candidates", Solution, "local"))
    errors = first_errors(inputs)[1]
    cases = []
    for d in index.drafts:
        right = next(
            (s for s in index.samples_of.get(d.problem_id, ()) if s.correct == "right"), None
        )
        cases.append(
            Case(
                index.cluster_of[d.problem_id],
                d,
                orm.get(d.id, ()),
                index.step_scores(SORM, d) or (),
                index.refinement_of.get((d.id, GLOBAL)),
                local.get(d.id, {}),
                right,
                errors.get(d.id),
            )
        )
    return cases, orm


def _by_mark(refinements: Sequence[Solution]) -> dict[str, dict[int, Solution]]:
    out: dict[str, dict[int, Solution]] = {}
    for s in refinements:
        mark = mark_of(s)
        if s.draft_id is not None and mark is not None:
            out.setdefault(s.draft_id, {})[mark] = s
    return out
