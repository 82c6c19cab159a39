"""What the study `where-refined` measures: who fixes which wrong solution, overlaps, texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from glore.decisions import GLOBAL, LOCAL_SORM
from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import Index
from glore.pipeline import StageContext
from glore.records import Solution
from glore.solutions import same_text
from glore.studies.measured import Measured, difference, number, share
from glore.studies.where_refined.stages import (
    APART,
    GLOBAL_AGAIN,
    GREEDY,
    LOCAL,
    LOCAL_AGAIN,
    MIXED,
    SAMPLED,
    WRONG,
    WrongSolution,
    part_of,
)

__all__ = [
    "APART_SUFFIX",
    "EACH_ONE",
    "EACH_TWO",
    "MODELS",
    "OVERLAP",
    "POSITION",
    "TEXTS",
    "TWO_OR_MORE",
    "measure",
]

POSITION, OVERLAP, TEXTS = "refined-by-position", "refined-overlap", "refined-texts"
MODELS = "refined-models"
EACH_ONE, EACH_TWO = "each kind − one", "each kind − two of both"
APART_SUFFIX = "-apart"
"""After the name of a table: of two refiners."""
ONE_MISTAKE, TWO_OR_MORE = "samples, one mistake", "samples, two or more"
LAST_POSITION = 7
"""0-based; later ones are counted with it."""


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
    """Fixed by position; overlaps by set; texts. All that again for a refiner for each kind, if
    there is, and these against one for both kinds and against two of both kinds.
    """
    cases = _cases(ctx, index, WRONG)
    found = _tables(index, cases, "")
    if APART in ctx.sources:
        apart, mixed = _cases(ctx, index, APART), _cases(ctx, index, MIXED, (GLOBAL, LOCAL))
        found += _tables(index, apart, APART_SUFFIX)
        sets = [_sets(of) for of in (cases, apart, mixed)]
        for name in sets[0]:
            found += _models(index, name, *(of[name] for of in sets))
    return found


def _tables(index: Index, cases: Sequence[_Case], suffix: str) -> list[Measured]:
    found = _by_position(index, [c for c in cases if c.wrong.where == GREEDY])
    for name, mine in _sets(cases).items():
        found += _overlap(index, name, mine)
        found += _texts(index, name, mine)
    return [dataclasses.replace(m, table=m.table + suffix) for m in found]


def _models(
    index: Index,
    name: str,
    one: Sequence[_Case],
    apart: Sequence[_Case],
    mixed: Sequence[_Case],
) -> list[Measured]:
    """The same wrong solutions, refined by one model for both kinds, by one for each, and by two
    that both learned both kinds.
    """
    units = [c.unit for c in one]
    mean, paired = index.resampler.mean, index.resampler.paired
    found = []
    for what, ways in (("global", (GLOBAL,)), ("local", (LOCAL,)), ("∪", (GLOBAL, LOCAL))):
        joint, each, two = ([c.fixed(*ways) for c in cases] for cases in (one, apart, mixed))
        row = (name, what)
        found += [
            share(MODELS, row, "one refiner", mean(units, joint)),
            share(MODELS, row, "one for each kind", mean(units, each)),
            share(MODELS, row, "two of both kinds", mean(units, two)),
            difference(MODELS, row, EACH_ONE, paired(units, each, joint)),
            difference(MODELS, row, EACH_TWO, paired(units, each, two)),
        ]
    return found


def _cases(
    ctx: StageContext,
    index: Index,
    stage: str,
    ways: Sequence[str] = (GLOBAL, LOCAL, GLOBAL_AGAIN, LOCAL_AGAIN),
) -> list[_Case]:
    made: dict[str, dict[str, Solution]] = {}
    for way in ways:
        for s in ctx.read(stage, Solution, part_of(way)):
            made.setdefault(s.draft_id or "", {})[way] = s
    solutions = {s.id: s for s in index.drafts}
    solutions |= {s.id: s for group in index.samples_of.values() for s in group}
    cases = []
    for w in ctx.read(WRONG, WrongSolution, "wrong"):
        s = solutions[w.solution_id]
        of = made.get(s.id, {})
        by_sorm = index.refinement_of.get((s.id, LOCAL_SORM))
        own = {} if by_sorm is None or stage != WRONG else {LOCAL_SORM: by_sorm}
        cases.append(_Case(w, s, index.cluster_of[s.problem_id], {**of, **own}))
    return cases


def _sets(cases: Sequence[_Case]) -> dict[str, list[_Case]]:
    sets = {
        GREEDY: [c for c in cases if c.wrong.where == GREEDY],
        SAMPLED: [c for c in cases if c.wrong.where == SAMPLED],
        ONE_MISTAKE: [c for c in cases if c.wrong.where == SAMPLED and c.wrong.n_mistakes == 1],
        TWO_OR_MORE: [c for c in cases if c.wrong.where == SAMPLED and c.wrong.n_mistakes > 1],
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
            if ways == (LOCAL_SORM,) and not any(LOCAL_SORM in c.made for c in cases):
                continue  # two refiners: none from the SORM's mark
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
        one, other = case.made.get(GLOBAL), case.made.get(LOCAL)
        if one is None or other is None:
            return 0.0
        return float(same_text(one.steps) == same_text(other.steps))

    def same_answer(case: _Case) -> float:
        one, other = case.made.get(GLOBAL), case.made.get(LOCAL)
        return float(one is not None and other is not None and one.answer == other.answer)

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
