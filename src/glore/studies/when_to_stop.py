"""Study `when-to-stop`: thresholds for the ORM and the SORM, calibration, and what an oracle for
when, where, how or which alone would be worth (the decomposition of the paper's title, measured).

The run refines every draft and lets the ORM choose among draft, global and local refinement. Here a
gate comes first: a draft whose ORM score after its last step is above T_ORM is kept as it is. T_ORM
and T_SORM (the threshold that marks the first bad step) are swept on dev questions, the best pair
there is taken, and test questions tell what it is worth. Dev drafts, their refinements and scores
are drawn for it, and on test questions those local refinements whose mark the run did not have.

Oracles, alone and together, on test drafts:

- when: right drafts are kept, of a wrong draft the ORM chooses among its refinements;
- where: the local refinement starts at the first wrong step (truth, else labels from rollouts);
- how: a right refinement is among the candidates of a wrong draft (a right sample of the question,
  or its worked solution), and the ORM still has to choose it;
- which: the gold answer chooses.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from glore.config import RunConfig
from glore.decisions import GLOBAL, LOCAL_SORM, Decisions, MarkedDraft
from glore.evaluation import EvaluationInputs
from glore.evaluation.decomposition import first_errors
from glore.evaluation.inputs import ORM, SORM, Index
from glore.evaluation.reward_models import ALL_STEPS, final_cases, step_cases
from glore.pipeline import Stage, StageContext
from glore.records import Problem, Solution, StepLabels, StepScores
from glore.report.charts import Chart
from glore.report.views import TableView, percent, points
from glore.stages.checks import check_engine
from glore.stages.common import SAMPLING, problems_by_id, sample, score
from glore.stages.estimates import draft_tokens
from glore.statistics import Resampler
from glore.studies.measured import (
    Measured,
    difference,
    difference_in,
    dot_chart,
    estimate_of,
    find,
    line_chart,
    number,
    pivot,
    read_measured,
    share,
)
from glore.studies.records import reading
from glore.studies.refining import mark_of, refined, refiner_engine
from glore.studies.study import Study

__all__ = ["STUDY"]

GRID = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Thresholds that are tried."""
NO_GATE = 1.0
"""T_ORM that refines every draft."""
MEASURE = "thresholds_measured"
SWEEP, CHOSEN, ORACLES, CALIBRATION = (
    "when-sweep",
    "when-chosen",
    "when-oracles",
    "when-calibration",
)
READS = ("evaluation.threshold", "evaluation.aggregate", "refiner.global_mark", *SAMPLING)


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
    mark = 0 if ctx.config.refiner.global_mark == "first" else None
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


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """Candidates on dev and on test, then the numbers."""
    dev = Stage(
        "dev_candidates",
        dev_candidates,
        inputs=("test_refinements",),
        reads=READS,
        opens=lambda _: ("student", "refiner", ORM, SORM),
        estimate=lambda c: 4 * draft_tokens(c),
        checks=(check_engine,),
    )
    test = Stage(
        "test_candidates",
        test_candidates,
        inputs=("test_labels", "test_refinements"),
        reads=READS,
        opens=lambda _: ("refiner", ORM),
        estimate=lambda c: 2 * draft_tokens(c),
        checks=(check_engine,),
    )
    return (
        dev,
        test,
        reading(MEASURE, config, measure, inputs=("dev_candidates", "test_candidates")),
    )


class Chooser:
    """The pipeline of method 5 with a gate, on cases."""

    def __init__(self, index: Index, orm: Mapping[str, tuple[float, ...]]) -> None:
        self._options, self._orm = index.options, orm

    def is_kept(self, case: Case, t_orm: float) -> bool:
        """Does the gate keep the draft?"""
        return t_orm < NO_GATE and bool(case.orm) and case.orm[-1] > t_orm

    def candidates(
        self,
        case: Case,
        t_sorm: float,
        *,
        where: bool = False,
        how: bool = False,
    ) -> list[Solution]:
        """Draft, global and local refinement; with oracles."""
        if where:
            mark = None if case.is_right else case.error
            if mark is None and not case.is_right:
                mark = Decisions(threshold=t_sorm).first_bad_step(case.sorm)
        else:
            mark = Decisions(threshold=t_sorm).first_bad_step(case.sorm)
        local = None if mark is None else case.locals.get(mark)
        added = case.right_solution if how and not case.is_right else None
        return [case.draft, *(s for s in (case.whole, local, added) if s is not None)]

    def choose(self, candidates: Sequence[Solution]) -> Solution:
        """The ORM's choice."""
        return candidates[self._options.choose([self._orm.get(c.id) for c in candidates])]

    def is_right(
        self, case: Case, t_orm: float, t_sorm: float, oracles: Collection[str] = ()
    ) -> bool:
        """Is the chosen answer right?"""
        found = self.candidates(case, t_sorm, where="where" in oracles, how="how" in oracles)
        if "which" in oracles:
            return any(s.correct == "right" for s in found)
        if "when" in oracles:
            return case.is_right or self.choose(found[1:] or found).correct == "right"
        if self.is_kept(case, t_orm):
            return case.is_right
        return self.choose(found).correct == "right"


def measure(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """Sweeps on dev and test, the choice on dev, oracles, calibration."""
    dev_problems = problems_by_id(ctx, "dev")
    dev, dev_orm = _dev_cases(ctx, dev_problems)
    test, test_orm = _test_cases(ctx, inputs, index)
    of_dev = Resampler([c.unit for c in dev], seed=ctx.seed, keeps=True)
    sides = {
        "dev": (dev, Chooser(index, dev_orm), of_dev),
        "test": (test, Chooser(index, test_orm), index.resampler),
    }
    t = ctx.config.evaluation.threshold
    found: list[Measured] = []
    for name, (cases, chooser, resampler) in sides.items():
        units = [c.unit for c in cases]
        for t_orm in (*GRID, NO_GATE):
            values = [float(chooser.is_right(c, t_orm, t)) for c in cases]
            row = ("T_ORM", name)
            found.append(share(SWEEP, row, "right", resampler.mean(units, values), x=t_orm))
        for t_sorm in GRID:
            values = [float(chooser.is_right(c, NO_GATE, t_sorm)) for c in cases]
            row = ("T_SORM", name)
            found.append(share(SWEEP, row, "right", resampler.mean(units, values), x=t_sorm))
    found += _chosen(sides["dev"], sides["test"], t)
    found += _oracles(sides["test"], t)
    return found + _calibration(inputs, index)


Side = tuple[list[Case], Chooser, Resampler]


def _chosen(dev: Side, test: Side, t: float) -> list[Measured]:
    """The best thresholds on dev (ties: the nearest to the run's), and their worth on test."""
    cases, chooser, _ = dev

    def on_dev(t_orm: float, t_sorm: float) -> tuple[float, float]:
        right = sum(chooser.is_right(c, t_orm, t_sorm) for c in cases)
        return right, -abs(t_sorm - t) - abs(t_orm - NO_GATE)

    pairs = list(itertools.product((*GRID, NO_GATE), GRID))
    best = max(pairs, key=lambda pair: on_dev(*pair))
    gate = max(((g, t) for g in (*GRID, NO_GATE)), key=lambda pair: on_dev(*pair))
    mark = max(((NO_GATE, m) for m in GRID), key=lambda pair: on_dev(*pair))
    ways = {
        "the run's: no gate": (NO_GATE, t),
        f"gate at the run's T = {t:g}": (t, t),
        "T_ORM chosen on dev": gate,
        "T_SORM chosen on dev": mark,
        "both chosen on dev": best,
    }
    found = []
    for name, (t_orm, t_sorm) in ways.items():
        found += [
            number(CHOSEN, name, "T_ORM", t_orm),
            number(CHOSEN, name, "T_SORM", t_sorm),
        ]
        for side, (cases_of, choose, resampler) in (("dev", dev), ("test", test)):
            units = [c.unit for c in cases_of]
            values = [float(choose.is_right(c, t_orm, t_sorm)) for c in cases_of]
            own = [float(choose.is_right(c, NO_GATE, t)) for c in cases_of]
            found.append(share(CHOSEN, name, f"right, {side}", resampler.mean(units, values)))
            if side == "test":
                same = (t_orm, t_sorm) == (NO_GATE, t)
                gain = None if same else resampler.paired(units, values, own)
                found.append(difference(CHOSEN, name, "− the run's, test", gain))
                kept = [float(choose.is_kept(c, t_orm)) for c in cases_of]
                found.append(share(CHOSEN, name, "not refined, test", resampler.mean(units, kept)))
    return found


def _oracles(test: Side, t: float) -> list[Measured]:
    cases, chooser, resampler = test
    units = [c.unit for c in cases]
    own = [float(chooser.is_right(c, NO_GATE, t)) for c in cases]
    found = []
    for oracles in (
        (),
        ("when",),
        ("where",),
        ("how",),
        ("which",),
        ("when", "where"),
        ("when", "how"),
        ("where", "which"),
        ("when", "where", "how"),
    ):
        name = " + ".join(oracles) or "none: the pipeline"
        values = [float(chooser.is_right(c, NO_GATE, t, oracles)) for c in cases]
        found.append(share(ORACLES, name, "right", resampler.mean(units, values)))
        gain = resampler.paired(units, values, own) if oracles else None
        found.append(difference(ORACLES, name, "− none", gain))
    return found


def _dev_cases(
    ctx: StageContext, problems: Mapping[str, Problem]
) -> tuple[list[Case], dict[str, tuple[float, ...]]]:
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


def _test_cases(
    ctx: StageContext, inputs: EvaluationInputs, index: Index
) -> tuple[list[Case], dict[str, tuple[float, ...]]]:
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


def _calibration(inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """Ten bins of probability: the share that is good. ORM on answers, SORM on steps."""
    found = []
    against = inputs.draft_truth or inputs.draft_labels
    for name, model, cases in (
        ("ORM on final answers", ORM, final_cases(index)),
        ("SORM on steps", SORM, step_cases(index, against, ALL_STEPS)),
    ):
        p_U, good_U = np.asarray(cases.p.get(model, ())), np.asarray(cases.good, dtype=bool)
        if not len(p_U):
            continue
        bin_U = np.minimum((p_U * 10).astype(int), 9)
        for b in sorted(set(bin_U.tolist())):
            inside = bin_U == b
            units = [unit for unit, here in zip(cases.units, inside, strict=True) if here]
            good = index.resampler.share(units, good_U[inside].astype(float).tolist())
            mean = float(p_U[inside].mean())
            found.append(share(CALIBRATION, name, f"{b / 10:.1f}–{(b + 1) / 10:.1f}", good, x=mean))
    return found


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """Thresholds chosen on dev, oracles, calibration."""
    found = read_measured(folder, MEASURE)
    return [
        pivot(
            found,
            CHOSEN,
            "Thresholds chosen on dev, measured on test",
            "T_ORM = 1: every draft is refined, and the ORM chooses. Differences are paired.",
            "thresholds",
        ),
        pivot(
            found,
            ORACLES,
            "What an oracle for one decision, or for several, would be worth",
            "No gate. how: a right solution is among the candidates of a wrong draft, where a "
            "sample of the question was right. Differences are paired.",
            "oracle for",
        ),
        pivot(
            found,
            CALIBRATION,
            "Calibration",
            "Share of good answers or steps by predicted probability; Wilson intervals.",
            "model",
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Both sweeps, the oracles, calibration."""
    found = read_measured(folder, MEASURE)
    made: list[Chart] = []
    for threshold, what in (
        ("T_ORM", "Drafts that the ORM scores above T_ORM are kept (1: none)"),
        ("T_SORM", "The first step that the SORM scores at most T_SORM is marked"),
    ):
        mine = [
            dataclasses.replace(m, row=m.row[1:])
            for m in found
            if m.table == SWEEP and m.row[0] == threshold
        ]
        made.append(
            line_chart(
                mine,
                SWEEP,
                f"Accuracy against {threshold}",
                f"{what}. Bands: 95 % intervals.",
                threshold,
                "% right",
                id=f"{SWEEP}-{threshold.lower().replace('_', '-')}",
            )
        )
    made.append(
        dot_chart(
            found,
            ORACLES,
            "What oracles are worth",
            "Accuracy on test questions. Whiskers: 95 % intervals.",
            "% right",
        )
    )
    made.append(
        line_chart(
            found,
            CALIBRATION,
            "Calibration",
            "Predicted probability (mean of a bin) against the share that is good.",
            "predicted probability",
            "% good",
            diagonal=True,
        )
    )
    return made


def findings(config: RunConfig, folder: Path) -> list[str]:
    """The thresholds from dev, and the decision that an oracle helps most."""
    found = read_measured(folder, MEASURE)
    name = "both chosen on dev"
    gain = find(found, CHOSEN, name, "− the run's, test")
    said = []
    if gain.value is not None:
        d = difference_in(gain)
        t_orm, t_sorm = (find(found, CHOSEN, name, c).value for c in ("T_ORM", "T_SORM"))
        shown = "" if d.excludes_zero else " (the interval includes zero)"
        said.append(
            f"Thresholds chosen on dev (T_ORM {t_orm:g}, T_SORM {t_sorm:g}): {points(d)} points on "
            f"test{shown}."
        )
    alone = [m for m in found if m.table == ORACLES and m.column == "right" and "+" not in m.row[0]]
    base, *others = alone
    best = max(others, key=lambda m: m.value or 0.0)
    said.append(
        f"Of the oracles for one decision, “{best.row[0]}” is worth most: "
        f"{percent(estimate_of(best))} % in place of {percent(estimate_of(base))} %."
    )
    return said


STUDY = Study(
    "when-to-stop",
    "Thresholds of ORM and SORM swept on dev, calibration, and oracles for when, where, how and "
    "which (the paper's title, measured).",
    stages,
    tables,
    charts,
    findings,
)
