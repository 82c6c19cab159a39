"""Runs side by side: their measures, and differences on the same test questions.

Runs of one recipe that differ in seed alone form a group. Its value is the mean over its seeds. The
interval covers two sources of error: the questions, whose clusters the bootstrap draws again, and
the seeds. The variance between seeds is that of the seeds' values, minus what the questions alone
explain of it, and at least 0 (the moment estimate of DerSimonian and Laird 1986). It enters as a t
distribution with one degree of freedom less than there are seeds, so two seeds give a wide
interval. The interval of a single run covers the questions alone.

Axes: S seeds, B bootstrap draws.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np

from glore.evaluation.measures import Measure
from glore.statistics import Difference, Estimate, FloatArray, Kept, Resampler, mcnemar_p, ratio

__all__ = ["ComparedRow", "Group", "MeasuredRun", "Pairing", "compare"]

Pairing = Literal["paired", "unpaired"]
Key = tuple[str, str]

MIN_SHARED = 0.5
"""Share of the smaller set of test questions that both sides must have for a paired difference."""


@dataclasses.dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One finished run."""

    name: str
    seed: int
    questions: Mapping[str, str]
    """Test questions: the text, as clusters have it → the problem's id."""
    measures: Sequence[Measure]


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ in seed alone, or one run."""

    name: str
    runs: tuple[MeasuredRun, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ComparedRow:
    """One measure of one group."""

    table: str
    what: str
    group: str
    n_seeds: int
    estimate: Estimate
    """The mean over seeds; n: observations of all seeds together."""
    difference: Difference | None
    """Minus the first group; n: observations of this group in it. None for the first group itself,
    and where it has no such measure.
    """
    pairing: Pairing | None
    """`paired`: on the questions that both have, by id and text."""
    n_questions: int | None
    """Different questions that the difference is about."""


def compare(groups: Sequence[Group], *, n_draws: int = 2000, seed: int = 0) -> list[ComparedRow]:
    """Groups → rows, by measure and then by group. A group without a measure in all its runs has no
    row of it.
    """
    everything = dict.fromkeys(q for g in groups for r in g.runs for q in r.questions)
    comparison = _Comparison(Resampler(everything, n_draws=n_draws, seed=seed), n_draws, seed)
    keys: dict[Key, None] = {}
    for group in groups:
        keys |= dict.fromkeys((m.table, m.what) for run in group.runs for m in run.measures)
    tables = dict.fromkeys(table for table, _ in keys)
    found = [{_key(m): m.estimate for m in run.measures} for g in groups for run in g.runs]
    names = [id(run) for g in groups for run in g.runs]
    kept_of = dict(zip(names, found, strict=True))
    scopes = [None, *(_scope(groups[0], other) for other in groups[1:])]
    rows = []
    for key in sorted(keys, key=lambda k: list(tables).index(k[0])):
        sides = [[kept_of[id(run)].get(key) for run in g.runs] for g in groups]
        for group, side, scope in zip(groups, sides, scopes, strict=True):
            mine = [k for k in side if k is not None]
            if len(mine) < len(group.runs):
                continue
            base = [k for k in sides[0] if k is not None]
            has_base = scope is not None and len(base) == len(groups[0].runs)
            rows.append(
                ComparedRow(
                    *key,
                    group.name,
                    len(group.runs),
                    comparison.mean(mine),
                    comparison.difference(mine, base, scope) if scope and has_base else None,
                    scope.pairing if scope and has_base else None,
                    len(scope.questions) if scope and has_base else None,
                )
            )
    return rows


@dataclasses.dataclass(frozen=True, slots=True)
class _Scope:
    """What a difference of two groups is about."""

    first: tuple[Collection[str], ...]
    """Questions that count, of each run of the group."""
    second: tuple[Collection[str], ...]
    """The same of the group that is subtracted."""
    by_seed: tuple[int, ...] | None
    """For each run of the first, the run of the second with its seed; none: the seeds differ."""
    pairing: Pairing
    questions: frozenset[str]


def _scope(base: Group, group: Group) -> _Scope:
    """By seed, if both groups have the same seeds; else on the questions that all runs share. A
    difference is unpaired if too few are shared.
    """
    seeds = [run.seed for run in base.runs]
    if sorted(seeds) == sorted(run.seed for run in group.runs):
        order = tuple(seeds.index(run.seed) for run in group.runs)
        shared = [_shared(a, base.runs[i]) for a, i in zip(group.runs, order, strict=True)]
        if all(
            _is_enough(s, (run, base.runs[i]))
            for s, run, i in zip(shared, group.runs, order, strict=True)
        ):
            second = tuple(shared[order.index(i)] for i in range(len(order)))
            return _Scope(tuple(shared), second, order, "paired", frozenset().union(*shared))
    runs = (*base.runs, *group.runs)
    common = frozenset.intersection(*(_shared(runs[0], run) for run in runs))
    if _is_enough(common, runs):
        first, second = ((common,) * len(g.runs) for g in (group, base))
        return _Scope(first, second, None, "paired", common)
    mine, theirs = (tuple(frozenset(r.questions) for r in g.runs) for g in (group, base))
    return _Scope(mine, theirs, None, "unpaired", frozenset().union(*mine, *theirs))


def _shared(a: MeasuredRun, b: MeasuredRun) -> frozenset[str]:
    return frozenset(q for q, name in a.questions.items() if b.questions.get(q) == name)


def _is_enough(shared: Collection[str], runs: Sequence[MeasuredRun]) -> bool:
    return len(shared) > 0 and len(shared) >= MIN_SHARED * min(len(r.questions) for r in runs)


@dataclasses.dataclass(frozen=True, slots=True)
class _Side:
    """The values of some runs, and their values in all draws."""

    values: FloatArray
    """[S]"""
    draws: FloatArray
    """[S, B]"""
    n: int


class _Comparison:
    """Means and differences that share one bootstrap."""

    def __init__(self, resampler: Resampler, n_draws: int, seed: int) -> None:
        self._resampler = resampler
        self._n_draws, self._seed = n_draws, seed

    def mean(self, kept: Sequence[Kept]) -> Estimate:
        """The mean of the runs; of one run, the estimate that its own report has."""
        if len(kept) == 1:
            return Estimate(kept[0].value, kept[0].low, kept[0].high, kept[0].n)
        side = self._side(kept, None)
        value, low, high = self._interval([(1.0, side)])
        low, high = (None if x is None else min(1.0, max(0.0, x)) for x in (low, high))
        return Estimate(value, low, high, side.n)

    def difference(self, mine: Sequence[Kept], base: Sequence[Kept], scope: _Scope) -> Difference:
        """Mean of `mine` minus mean of `base`."""
        first, second = self._side(mine, scope.first), self._side(base, scope.second)
        if scope.by_seed is None:
            parts = [(1.0, first), (-1.0, second)]
        else:
            order = list(scope.by_seed)
            values_S = first.values - second.values[order]
            parts = [(1.0, _Side(values_S, first.draws - second.draws[order], first.n))]
        value, low, high = self._interval(parts)
        gained, lost, p = 0, 0, None
        if len(mine) == len(base) == 1 and scope.pairing == "paired":
            gained, lost, p = _mcnemar(mine[0], base[0], scope.questions)
        return Difference(value, low, high, first.n, gained, lost, p)

    def _side(self, kept: Sequence[Kept], scope: Sequence[Collection[str]] | None) -> _Side:
        values, draws, n = [], [], 0
        for i, estimate in enumerate(kept):
            rows = _rows_of(estimate, None if scope is None else scope[i])
            units = [estimate.units[r] for r in rows]
            columns_UM = estimate.columns[rows]
            value, draws_B = self._resampler.draws(units, columns_UM, estimate.statistic)
            values.append(value)
            draws.append(draws_B)
            n += len(units)
        return _Side(np.asarray(values), np.stack(draws), n)

    def _interval(
        self, parts: Sequence[tuple[float, _Side]]
    ) -> tuple[float | None, float | None, float | None]:
        """Value and 95 % bounds of a sum of means over seeds, each with its sign."""
        rng = np.random.default_rng([self._seed, 1])
        value, total_B = 0.0, np.zeros(self._n_draws)
        if not all(np.isfinite(side.values).all() for _, side in parts):
            return None, None, None
        for sign, side in parts:
            n_seeds = len(side.values)
            value += sign * float(side.values.mean())
            total_B = total_B + sign * side.draws.mean(axis=0)
            if n_seeds > 1:
                noise_B = (side.draws - side.values[:, None]).var(axis=0, ddof=1)
                noise_B = noise_B[np.isfinite(noise_B)]
                by_questions = float(noise_B.mean()) if noise_B.size else 0.0
                between = max(0.0, float(side.values.var(ddof=1)) - by_questions)
                spread = math.sqrt(between / n_seeds)
                total_B = total_B + spread * rng.standard_t(n_seeds - 1, self._n_draws)
        total_B = total_B[np.isfinite(total_B)]
        if not total_B.size:
            return None, None, None
        low, high = np.quantile(total_B, [0.025, 0.975])
        return value, float(low), float(high)


def _rows_of(kept: Kept, questions: Collection[str] | None) -> list[int]:
    if questions is None:
        return list(range(len(kept.units)))
    return [i for i, unit in enumerate(kept.units) if unit in questions]


def _mcnemar(
    first: Kept, second: Kept, questions: Collection[str]
) -> tuple[int, int, float | None]:
    """Gains, losses and p, if both are yes/no with one outcome per question; else 0, 0, none."""
    outcomes = []
    for kept in (first, second):
        rows = _rows_of(kept, questions)
        units = [kept.units[r] for r in rows]
        flags = kept.columns[rows, 0]
        is_binary = kept.statistic is ratio and bool(np.isin(flags, (0, 1)).all())
        if not is_binary or len(set(units)) < len(units):
            return 0, 0, None
        outcomes.append(dict(zip(units, flags, strict=True)))
    a, b = outcomes
    if a.keys() != b.keys():
        return 0, 0, None
    # Python's integers: numpy's overflow in powers of two.
    gained, lost = sum(bool(a[q] > b[q]) for q in a), sum(bool(a[q] < b[q]) for q in a)
    return gained, lost, mcnemar_p(gained, lost)


def _key(measure: Measure) -> Key:
    return measure.table, measure.what
