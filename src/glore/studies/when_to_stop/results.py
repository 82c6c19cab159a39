"""What the study `when-to-stop` measures: thresholds, oracles, calibration."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from glore.decisions import Decisions
from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import ORM, SORM, Index
from glore.evaluation.reward_models import ALL_STEPS, final_cases, step_cases
from glore.pipeline import StageContext
from glore.records import Solution
from glore.stages.common import problems_by_id
from glore.statistics import Resampler
from glore.studies.measured import Measured, difference, number, share
from glore.studies.when_to_stop.candidates import GRID, Case, dev_cases, test_cases

__all__ = ["CALIBRATION", "CHOSEN", "ORACLES", "SWEEP", "measure"]

NO_GATE = 1.0
"""T_ORM that refines every draft."""
SWEEP, CHOSEN, ORACLES, CALIBRATION = (
    "when-sweep",
    "when-chosen",
    "when-oracles",
    "when-calibration",
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
    dev, dev_orm = dev_cases(ctx, dev_problems)
    test, test_orm = test_cases(ctx, inputs, index)
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
            of = index.resampler
            # Steps of one draft are not independent.
            estimate = of.share if len(set(units)) == len(units) else of.mean
            good = estimate(units, good_U[inside].astype(float).tolist())
            mean = float(p_U[inside].mean())
            found.append(share(CALIBRATION, name, f"{b / 10:.1f}–{(b + 1) / 10:.1f}", good, x=mean))
    return found
