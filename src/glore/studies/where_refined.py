"""Study `where-refined`: which wrong drafts global and local refinement fix, by the position of the
first error, and whether the two complement each other (the paper's Fig. 2 and Table 3 in numbers).

The paper finds that the union of both fixes far more than either (28 % by one, 41 % by both). The
study measures the overlap, and why it is large or small:

- on two sets of wrong solutions: the greedy drafts of the run, and samples at the run's temperature
  (several different errors of one question), apart for those with one own mistake and with several;
- against a second try of the *same* refiner: the union of global and local refinement is compared
  with that of the greedy global refinement and one sampled at T = 1, and with that of the greedy
  and a sampled local one. If another kind of refinement adds no more than another draw, the kinds
  don't complement each other;
- by text: how often both refinements are the same, and how often the global one keeps all steps
  before the first error, so that it is a local one in effect.

An own mistake is the first wrong step, and each later one that writes an equation that does not
hold (`error_kinds`). Local refinements start at the first wrong step (exact truth, else labels from
rollouts), and, for the greedy drafts, also at the SORM's mark, as in the run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from glore.config import RunConfig, Settings
from glore.decisions import GLOBAL, LOCAL_SORM, MarkedDraft
from glore.evaluation import EvaluationInputs
from glore.evaluation.decomposition import first_errors
from glore.evaluation.inputs import Index
from glore.pipeline import Stage, StageContext
from glore.records import Problem, Solution, StepLabels
from glore.report.charts import Chart
from glore.report.views import TableView, percent, points
from glore.seeds import stable_seed
from glore.solutions import same_text
from glore.stages.checks import check_engine
from glore.stages.common import SAMPLING, problems_by_id, truth_of
from glore.stages.estimates import draft_tokens
from glore.statistics import Difference
from glore.studies.error_kinds import EQUATION, error_kind
from glore.studies.measured import (
    Measured,
    difference,
    dot_chart,
    estimate_of,
    find,
    number,
    pivot,
    read_measured,
    share,
)
from glore.studies.records import first_false, reading
from glore.studies.refining import refined, refiner_engine
from glore.studies.study import Study

__all__ = ["STUDY", "WhereRefinedSettings"]

MEASURE = "where_refined_measured"
POSITION, OVERLAP, TEXTS = "refined-by-position", "refined-overlap", "refined-texts"
GREEDY, SAMPLED = "greedy drafts", "samples"
LOCAL, GLOBAL_AGAIN, LOCAL_AGAIN = "local", "global, sampled", "local, sampled"
LAST_POSITION = 7
"""0-based; later ones are counted with it."""


class WhereRefinedSettings(Settings):
    """Of the study `where-refined`."""

    samples: int = Field(800, ge=0)
    """Most wrong samples that are refined; they are chosen by hash."""


@dataclasses.dataclass(frozen=True, slots=True)
class WrongSolution:
    """A wrong solution that is refined, and its first error."""

    solution_id: str
    where: str
    """GREEDY or SAMPLED."""
    error: int
    """0-based first wrong step."""
    n_mistakes: int
    """Its own mistakes; 1 if only the labels of rollouts are known."""


def study(settings: Settings) -> Study:
    """The study with these settings."""
    assert isinstance(settings, WhereRefinedSettings)
    limit = settings.samples

    def refine(ctx: StageContext) -> None:
        """Parts: `wrong`, and a part of refinements for each way."""
        problems = problems_by_id(ctx, "test")
        wrong = _wrong(ctx, problems, limit)
        ctx.write([w for w, _ in wrong], WrongSolution, "wrong")
        first = 0 if ctx.config.refiner.global_mark == "first" else None
        whole = [MarkedDraft(s, first) for _, s in wrong]
        local = [MarkedDraft(s, w.error) for w, s in wrong]
        engine = refiner_engine(ctx)
        for way, marked, temperature in (
            (GLOBAL, whole, 0.0),
            (LOCAL, local, 0.0),
            (GLOBAL_AGAIN, whole, 1.0),
            (LOCAL_AGAIN, local, 1.0),
        ):
            part = _part(way)
            refined(ctx, marked, way, problems, engine, part=part, temperature=temperature)

    def stages(config: RunConfig) -> tuple[Stage, ...]:
        refining = Stage(
            "wrong_solutions_refined",
            refine,
            inputs=("test_labels", "test_samples", "refiner"),
            reads=("refiner.global_mark", *SAMPLING),
            opens=lambda _: ("refiner",),
            estimate=lambda c: 4 * draft_tokens(c),
            checks=(check_engine,),
            own={"samples": limit},
        )
        return refining, reading(MEASURE, config, measure, inputs=("wrong_solutions_refined",))

    return Study(
        "where-refined",
        "Drafts fixed by global and by local refinement, by the position of the first error, and "
        "whether the two complement each other (Fig. 2, Table 3).",
        stages,
        tables,
        charts,
        findings,
        settings=settings,
        build=study,
    )


def _part(way: str) -> str:
    return way.replace(", ", "_")


def _wrong(
    ctx: StageContext, problems: Mapping[str, Problem], limit: int
) -> list[tuple[WrongSolution, Solution]]:
    """The wrong greedy drafts and some wrong samples, with their first errors where known."""
    drafts, samples = ctx.read("test_drafts", Solution), ctx.read("test_samples", Solution)
    truth = tuple(ctx.read("test_labels", StepLabels, "truth"))
    labels = tuple(ctx.read("test_labels", StepLabels))
    known = EvaluationInputs("", (), tuple(drafts), (), draft_labels=labels, draft_truth=truth)
    source, errors = first_errors(known)
    found = [
        (WrongSolution(d.id, GREEDY, errors[d.id], _mistakes(d, errors[d.id], source)), d)
        for d in drafts
        if d.id in errors
    ]
    seen = {(d.problem_id, same_text(d.steps)) for d in drafts}
    distinct = []
    for s in samples:
        key = (s.problem_id, same_text(s.steps))
        if s.correct == "wrong" and s.steps and key not in seen:
            seen.add(key)
            distinct.append(s)
    distinct.sort(key=lambda s: (stable_seed(ctx.seed, "where-refined", s.id), s.id))
    for record, s in zip(truth_of(ctx, distinct, problems), distinct, strict=False):
        error = first_false(record)
        if error is not None and sum(w.where == SAMPLED for w, _ in found) < limit:
            found.append((WrongSolution(s.id, SAMPLED, error, _mistakes(s, error, "truth")), s))
    return found


def _mistakes(solution: Solution, error: int, source: str | None) -> int:
    if source != "truth":
        return 1
    return 1 + sum(error_kind(step) == EQUATION for step in solution.steps[error + 1 :])


@dataclasses.dataclass(frozen=True, slots=True)
class _Case:
    """A wrong solution with what each way made of it."""

    wrong: WrongSolution
    solution: Solution
    unit: str
    made: Mapping[str, Solution]

    def fixed(self, *ways: str) -> float:
        """1 if one of the ways makes it right."""
        return float(any(w in self.made and self.made[w].correct == "right" for w in ways))


def measure(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """Fixed by position; overlaps by set; texts."""
    cases = _cases(ctx, index)
    found = _by_position(index, [c for c in cases if c.wrong.where == GREEDY])
    for name, mine in _sets(cases).items():
        found += _overlap(index, name, mine)
        found += _texts(index, name, mine)
    return found


def _cases(ctx: StageContext, index: Index) -> list[_Case]:
    stage = "wrong_solutions_refined"
    made: dict[str, dict[str, Solution]] = {}
    for way in (GLOBAL, LOCAL, GLOBAL_AGAIN, LOCAL_AGAIN):
        for s in ctx.read(stage, Solution, _part(way)):
            made.setdefault(s.draft_id or "", {})[way] = s
    solutions = {s.id: s for s in index.drafts}
    solutions |= {s.id: s for group in index.samples_of.values() for s in group}
    cases = []
    for w in ctx.read(stage, WrongSolution, "wrong"):
        s = solutions[w.solution_id]
        of = made.get(s.id, {})
        by_sorm = index.refinement_of.get((s.id, LOCAL_SORM))
        own = {} if by_sorm is None else {LOCAL_SORM: by_sorm}
        cases.append(_Case(w, s, index.cluster_of[s.problem_id], {**of, **own}))
    return cases


def _sets(cases: Sequence[_Case]) -> dict[str, list[_Case]]:
    sets = {
        GREEDY: [c for c in cases if c.wrong.where == GREEDY],
        SAMPLED: [c for c in cases if c.wrong.where == SAMPLED],
        "samples, one mistake": [
            c for c in cases if c.wrong.where == SAMPLED and c.wrong.n_mistakes == 1
        ],
        "samples, two or more": [
            c for c in cases if c.wrong.where == SAMPLED and c.wrong.n_mistakes > 1
        ],
    }
    return {name: mine for name, mine in sets.items() if mine}


def _by_position(index: Index, cases: Sequence[_Case]) -> list[Measured]:
    found = []
    for position in sorted({min(c.wrong.error, LAST_POSITION) for c in cases}):
        mine = [c for c in cases if min(c.wrong.error, LAST_POSITION) == position]
        row = f"step {position + 1}" + (" and later" if position == LAST_POSITION else "")
        units = [c.unit for c in mine]
        found.append(number(POSITION, row, "drafts", len(mine), total=True))
        for name, ways in (
            ("global", (GLOBAL,)),
            ("local + SORM", (LOCAL_SORM,)),
            ("local from the error", (LOCAL,)),
            ("global or local", (GLOBAL, LOCAL)),
        ):
            values = [c.fixed(*ways) for c in mine]
            found.append(share(POSITION, row, name, index.resampler.mean(units, values)))
    return found


def _overlap(index: Index, name: str, cases: Sequence[_Case]) -> list[Measured]:
    units = [c.unit for c in cases]
    mean, paired = index.resampler.mean, index.resampler.paired
    whole = [c.fixed(GLOBAL) for c in cases]
    local = [c.fixed(LOCAL) for c in cases]
    both = [min(a, b) for a, b in zip(whole, local, strict=True)]
    union = [c.fixed(GLOBAL, LOCAL) for c in cases]
    again = [c.fixed(GLOBAL, GLOBAL_AGAIN) for c in cases]
    local_again = [c.fixed(LOCAL, LOCAL_AGAIN) for c in cases]
    n = len(cases)
    alone = sum(whole) / n + sum(local) / n - sum(whole) * sum(local) / n**2
    return [
        number(OVERLAP, name, "wrong", n, total=True),
        share(OVERLAP, name, "global", mean(units, whole)),
        share(OVERLAP, name, "local", mean(units, local)),
        share(OVERLAP, name, "both fix", mean(units, both)),
        share(OVERLAP, name, "global ∪ local", mean(units, union)),
        number(OVERLAP, name, "∪ if independent, %", 100 * alone),
        difference(OVERLAP, name, "∪ − global", paired(units, union, whole)),
        difference(OVERLAP, name, "∪ − global and a sampled one", paired(units, union, again)),
        difference(OVERLAP, name, "∪ − local and a sampled one", paired(units, union, local_again)),
    ]


def _texts(index: Index, name: str, cases: Sequence[_Case]) -> list[Measured]:
    units = [c.unit for c in cases]
    mean = index.resampler.mean

    def kept(case: _Case) -> float:
        """Does the global refinement keep all steps before the error?"""
        made, n = case.made.get(GLOBAL), case.wrong.error
        return float(made is not None and made.steps[:n] == case.solution.steps[:n])

    def same(case: _Case) -> float:
        pair = case.made.get(GLOBAL), case.made.get(LOCAL)
        return float(all(pair) and same_text(pair[0].steps) == same_text(pair[1].steps))  # type: ignore[union-attr]

    def same_answer(case: _Case) -> float:
        pair = case.made.get(GLOBAL), case.made.get(LOCAL)
        return float(all(pair) and pair[0].answer == pair[1].answer)  # type: ignore[union-attr]

    late = [c for c in cases if c.wrong.error > 0]
    failing = [c for c in cases if not c.fixed(GLOBAL) and not c.fixed(LOCAL)]
    return [
        share(TEXTS, name, "same text", mean(units, [same(c) for c in cases])),
        share(TEXTS, name, "same answer", mean(units, [same_answer(c) for c in cases])),
        share(
            TEXTS,
            name,
            "global keeps the steps before the error",
            mean([c.unit for c in late], [kept(c) for c in late]),
        ),
        share(
            TEXTS,
            name,
            "same wrong answer, where neither fixes",
            mean([c.unit for c in failing], [same_answer(c) for c in failing]),
        ),
    ]


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """By position, overlaps, texts."""
    found = read_measured(folder, MEASURE)
    return [
        pivot(
            found,
            POSITION,
            "Wrong drafts fixed, by the position of the first error",
            "Greedy drafts and refinements. Intervals resample questions.",
            "first error at",
        ),
        pivot(
            found,
            OVERLAP,
            "Overlap of global and local refinement",
            "Local: from the first error. ∪: fixed by at least one of both. If independent: what "
            "the union would be if the two failed independently. The last two columns compare the "
            "other kind of refinement with another draw (T = 1) of the same kind.",
            "wrong solutions",
        ),
        pivot(
            found,
            TEXTS,
            "Are global and local refinements the same?",
            "Greedy refinements. Steps before the error: of those whose error is not in the first "
            "step.",
            "wrong solutions",
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Fixed by position; unions."""
    found = read_measured(folder, MEASURE)
    return [
        dot_chart(
            found,
            POSITION,
            "Wrong drafts fixed, by the position of the first error",
            "Whiskers: 95 % intervals.",
            "fixed, %",
        ),
        dot_chart(
            found,
            OVERLAP,
            "Fixed by either, by both, by one of them",
            "Whiskers: 95 % intervals.",
            "fixed, %",
            columns=("global", "local", "both fix", "global ∪ local"),
        ),
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """Is there complementarity, and why not?"""
    found = read_measured(folder, MEASURE)
    said = []
    for name in (GREEDY, SAMPLED, "samples, two or more"):
        try:
            gain = find(found, OVERLAP, name, "∪ − global")
            more = find(found, OVERLAP, name, "∪ − global and a sampled one")
            same = find(found, TEXTS, name, "same answer")
            kept = find(found, TEXTS, name, "global keeps the steps before the error")
        except KeyError:
            continue
        g, m = (
            Difference(x.value, x.low, x.high, x.n, x.gained, x.lost, x.p) for x in (gain, more)
        )
        said.append(
            f"{name.capitalize()}: global ∪ local fixes {points(g)} points more than global "
            f"refinement alone. Against global refinement with a second, sampled try: {points(m)} "
            f"points. Both greedy refinements give the same answer for "
            f"{percent(estimate_of(same))} % of the wrong solutions, and the global one keeps the "
            f"steps before the error in {percent(estimate_of(kept))} %."
        )
    return said


STUDY = study(WhereRefinedSettings())
