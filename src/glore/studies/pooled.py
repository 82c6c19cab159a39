"""One study over runs that differ in the seed alone: its numbers over the test questions of all.

Units are question × seed, as in the pooled tables of `glore compare`: questions of different seeds
are different stories, and a question that several seeds share is one cluster of the bootstrap. What
a study chooses on a run (a threshold on dev) is chosen on each run apart. Differences are paired
within a question and seed. Intervals are over questions; each seed's own value stands beside them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from glore.report.views import Cell, TableView
from glore.statistics import (
    Difference,
    Estimate,
    Kept,
    Resampler,
    difference_of,
    mcnemar_p,
    mean,
    never_certain,
    wilson,
)
from glore.studies.measured import Measured, Observed, cell_of

__all__ = ["SeedRun", "pooled_numbers", "seed_views"]

M = TypeVar("M", bound=Measured)


@dataclasses.dataclass(frozen=True, slots=True)
class SeedRun:
    """What a study measured on one run."""

    name: str
    seed: int
    questions: Mapping[str, str]
    """Problem id → question, of all splits; the text is the cluster of a test question."""
    numbers: Sequence[Observed]

    def cluster(self, unit: str) -> str:
        """A cluster of this run's bootstrap → the same among all runs. Ids say nothing about other
        runs: that of a problem becomes its question, that of a solution gets the seed.
        """
        if unit in self.questions:
            return self.questions[unit]
        is_id = any(part in self.questions for part in unit.split("/"))
        return f"seed {self.seed}/{unit}" if is_id else unit


def pooled_numbers(runs: Sequence[SeedRun], n_draws: int, seed: int) -> list[Measured]:
    """The numbers of all runs, over the observations of all that have them. Counts are added up;
    of other plain numbers and of places on an x axis the mean is taken.
    """
    cells: dict[_Key, list[tuple[SeedRun, Observed]]] = {}
    for run in runs:
        for key, m in _by_key(run.numbers).items():
            cells.setdefault(key, []).append((run, m))
    pooling = _Pooling(n_draws, seed)
    return [pooling.number(found) for found in cells.values()]


_Key = tuple[str, tuple[str, ...], str, int]
"""Table, row, column, and which of several there: the points of a line share the rest."""


def _by_key(numbers: Sequence[M]) -> dict[_Key, M]:
    n_of: Counter[tuple[str, tuple[str, ...], str]] = Counter()
    found = {}
    for m in numbers:
        place = (m.table, m.row, m.column)
        found[*place, n_of[place]] = m
        n_of[place] += 1
    return found


class _Pooling:
    """Pools one number after the other; those over the same clusters share a bootstrap."""

    def __init__(self, n_draws: int, seed: int) -> None:
        self._n_draws, self._seed = n_draws, seed
        self._resamplers: dict[tuple[str, ...], Resampler] = {}

    def number(self, found: Sequence[tuple[SeedRun, Observed]]) -> Measured:
        """One number of all runs that have it."""
        first = found[0][1]
        cell = (first.table, first.row, first.column, first.kind)
        xs = [m.x for _, m in found if m.x is not None]
        x = sum(xs) / len(xs) if xs else None
        if first.kind == "number":
            values = [m.value for _, m in found if m.value is not None]
            total = float(sum(values)) if first.total else mean(values)
            return Measured(*cell, total if values else None, None, None, 0, x, 0, 0, None)
        kept = [(run, m.kept) for run, m in found if m.kept is not None]
        if any(m.value is not None and m.kept is None for _, m in found):
            raise ValueError(f"no observations of {cell}: its Resampler must keep them")
        e, distinct = self._estimate(kept)
        if first.kind == "share":
            e = never_certain(e)
        d = Difference(e.value, e.low, e.high, e.n, 0, 0, None)
        if first.kind == "difference":
            gained, lost = sum(m.gained for _, m in found), sum(m.lost for _, m in found)
            ps = [m.p for _, m in found if m.kept is not None]
            has_p = distinct and bool(ps) and None not in ps
            d = difference_of(e, gained, lost, mcnemar_p(gained, lost) if has_p else None)
        return Measured(*cell, d.value, d.low, d.high, d.n, x, d.gained, d.lost, d.p)

    def _estimate(self, kept: Sequence[tuple[SeedRun, Kept]]) -> tuple[Estimate, bool]:
        """The statistic of the observations of all runs, and whether no two of them are of one
        cluster.
        """
        if not kept:
            return Estimate(None, None, None, 0), True
        units = [run.cluster(unit) for run, k in kept for unit in k.units]
        clusters = tuple(dict.fromkeys(run.cluster(c) for run, k in kept for c in k.clusters))
        columns_UM = np.concatenate([k.columns for _, k in kept])
        distinct = len(set(units)) == len(units)
        has_shared = len(set(units)) < sum(len(set(k.units)) for _, k in kept)
        if not has_shared and all(k.by_wilson for _, k in kept):
            found = wilson(round(columns_UM[:, 0].sum()), len(units))
        else:
            statistic = kept[0][1].statistic
            found = self._resampler(clusters).estimate(units, columns_UM, statistic)
        return dataclasses.replace(found, n=sum(k.n for _, k in kept)), distinct

    def _resampler(self, clusters: tuple[str, ...]) -> Resampler:
        if clusters not in self._resamplers:
            self._resamplers[clusters] = Resampler(
                clusters, n_draws=self._n_draws, seed=self._seed, keeps=True
            )
        return self._resamplers[clusters]


UNITS = {"share": ", %", "difference": ", points", "number": ""}


def seed_views(
    runs: Sequence[SeedRun], pooled: Sequence[Measured], titles: Mapping[str, str] | None = None
) -> list[TableView]:
    """A table for each table or chart of the study: every number of each run, and of all. `titles`:
    the study's tables → how they are called.
    """
    of_run, of_all = [_by_key(run.numbers) for run in runs], _by_key(pooled)
    names = tuple(f"{run.name} (seed {run.seed})" for run in runs)
    views = []
    for table in dict.fromkeys(m.table for m in pooled):
        rows: list[tuple[Cell, ...]] = []
        for key, m in of_all.items():
            if m.table == table:
                is_point = (*key[:3], 1) in of_all and m.x is not None
                at = f" at {m.x:.4g}" if is_point else ""
                what = (" · ".join(filter(None, m.row)), f"{m.column}{at}{UNITS[m.kind]}")
                mine = (cell_of(of.get(key)) for of in of_run)
                rows.append((*what, *mine, cell_of(m), m.n or ""))
        columns = ("row", "number", *names, "all", "n of all")
        note = "Shares in percent, differences in points; 95 % intervals over questions."
        title = f"{(titles or {}).get(table, table)} · seed by seed"
        views.append(TableView(f"{table}-by-seed", title, note, columns, tuple(rows)))
    return views
