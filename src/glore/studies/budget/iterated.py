"""GLoRe iterated: what the ORM still calls wrong is refined again, globally and locally, and the
ORM chooses among the candidate and its refinements. It stops where the ORM accepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glore.config import RunConfig
from glore.decisions import CANDIDATES, Decisions, mark_drafts
from glore.evaluation.inputs import ORM, SORM
from glore.pipeline import StageContext, declare
from glore.records import Problem, Solution, StepScores
from glore.stages.checks import check_engine
from glore.stages.common import SAMPLING, lazy_engine, model_name, problems_by_id, score
from glore.stages.estimates import refinement_tokens
from glore.stages.evaluation_set import refined_solutions
from glore.studies.budget.spent import Spent, decisions_of, is_right
from glore.studies.rise.stages import GLORE_RIGHT

__all__ = ["N_ROUNDS", "REFINERS", "glore_rounds"]

N_ROUNDS = 4
REFINERS = {"refiner": "GLoRe", GLORE_RIGHT: "GLoRe, right drafts in training"}
"""Model → name of the way."""


def _tokens(config: RunConfig) -> int:
    return len(REFINERS) * N_ROUNDS * refinement_tokens(config) // 3


@declare(
    "glore_rounds",
    inputs=("test_scores", GLORE_RIGHT),
    reads=("refiner.global_mark", "evaluation.threshold", "evaluation.aggregate", *SAMPLING),
    opens=lambda _: (*REFINERS, ORM, SORM),
    estimate=_tokens,
    checks=(check_engine,),
)
def glore_rounds(ctx: StageContext) -> None:
    """Rounds of refinement of the test drafts by both refiners. Part `spent`: every question after
    every round, 0 being the draft alone.
    """
    problems = problems_by_id(ctx, "test")
    found = [s for model in REFINERS for s in _rounds(ctx, model, problems)]
    ctx.write(found, Spent, "spent")


def _rounds(ctx: StageContext, model: str, problems: Mapping[str, Problem]) -> list[Spent]:
    decisions = decisions_of(ctx)
    folder = ctx.model_dir(model)
    engine = lazy_engine(ctx, folder)
    chosen = {d.problem_id: d for d in ctx.read("test_drafts", Solution)}
    tokens = {i: float(d.n_tokens) for i, d in chosen.items()}
    scores = {
        m: {s.solution_id: s.p_correct for s in ctx.read("test_draft_scores", StepScores, m)}
        for m in (ORM, SORM)
    }
    spent = [_spent(model, 0, i, tokens[i], d) for i, d in chosen.items()]
    for number in range(1, N_ROUNDS + 1):
        going = [d for d in chosen.values() if d.steps and decisions.needs_work(scores[ORM][d.id])]
        part = f"{model}_{number}"
        made: list[Solution] = []
        for kind in CANDIDATES:
            marked = mark_drafts(
                going,
                kind,
                scores[SORM],
                decisions,
                mark_global=ctx.config.refiner.global_mark == "first",
            )
            name = f"{part}_{kind}"
            made += refined_solutions(ctx, marked, kind, problems, engine, name=name, part=name)
        for m in (ORM, SORM):
            new = score(ctx, m, made, problems, part=f"{part}_{m}")
            scores[m] |= {s.solution_id: s.p_correct for s in new}
        _choose(chosen, made, scores[ORM], decisions)
        for s in made:
            tokens[s.problem_id] += s.n_tokens
        spent += [_spent(model, number, i, tokens[i], d) for i, d in chosen.items()]
    ctx.release(model_name(folder))
    return spent


def _choose(
    chosen: dict[str, Solution],
    made: Sequence[Solution],
    orm: Mapping[str, tuple[float, ...]],
    decisions: Decisions,
) -> None:
    """Replace each question's candidate by the best of it and its refinements."""
    candidates = {i: [d] for i, d in chosen.items()}
    for s in made:
        candidates[s.problem_id].append(s)
    for i, found in candidates.items():
        if len(found) > 1:
            chosen[i] = found[decisions.choose([orm[s.id] or None for s in found])]


def _spent(model: str, step: int, problem_id: str, tokens: float, answer: Solution) -> Spent:
    return Spent(REFINERS[model], step, problem_id, tokens, is_right(answer))
