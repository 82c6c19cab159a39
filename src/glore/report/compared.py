"""Finished run folders side by side: as tables, as JSON and as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.evaluation.compare import ComparedRow, Group, MeasuredRun, compare
from glore.evaluation.measures import measure
from glore.report.run_recipes import (
    Recipe,
    changed_settings,
    check_given_once,
    recipe_of,
    run_names,
    some_of,
    tables_made_with,
)
from glore.report.views import MODEL_NAMES, REFINER_NAMES, WAY_NAMES, Cell, TableView
from glore.stages import evaluation_options, read_inputs

__all__ = ["Comparison", "GroupFacts", "compare_runs", "to_csv", "to_json", "views"]

TITLES = {
    "student": "The student (Table 5)",
    "steps": "Reward models as judges of steps before the answer line (Table 1)",
    "answers": "Reward models as judges of final answers (Table 2)",
    "fixed": "Wrong drafts that refinement fixes (Table 3)",
    "refined": "Accuracy after refining, no reranker (Fig. 3)",
    "reranked": "Accuracy after reranking (Fig. 4)",
    "labels": "Step labels of test drafts against the exact truth (App. G)",
}
NOTE = (
    "Runs of one recipe that differ in seed alone are one row: the mean over seeds, an interval "
    "over seeds and questions. The interval of one run is over questions alone. A difference is "
    "paired on the test questions that both sides have, by id and text."
)


@dataclasses.dataclass(frozen=True, slots=True)
class GroupFacts:
    """A group of runs, for display."""

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    n_questions: int
    """Test questions of all seeds together."""
    changed: tuple[str, ...]
    """Settings in which it differs from the first group, as `path: first → this`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """All numbers of a comparison."""

    groups: tuple[GroupFacts, ...]
    rows: tuple[ComparedRow, ...]


def compare_runs(run_dirs: Sequence[Path]) -> Comparison:
    """Folders of finished runs → the comparison. Runs whose settings differ in the seed alone are
    one group. Raises RunError where a run is given twice or isn't finished.
    """
    check_given_once(run_dirs)
    configs = [tables_made_with(folder) for folder in run_dirs]
    recipes = [recipe_of(d, c) for d, c in zip(run_dirs, configs, strict=True)]
    names = run_names(run_dirs)
    grouped = _grouped(recipes, [c.seed for c in configs])
    measured = [_measured(d, c, name) for d, c, name in zip(run_dirs, configs, names, strict=True)]
    groups, facts = [], []
    for members in grouped:
        runs = tuple(measured[i] for i in members)
        seeds = tuple(run.seed for run in runs)
        name = runs[0].name
        if len(runs) > 1:
            name = f"{name} (seeds {', '.join(map(str, seeds))})"
        groups.append(Group(name, runs))
        changed = changed_settings(recipes[grouped[0][0]], recipes[members[0]])
        n_questions = sum(len(run.questions) for run in runs)
        facts.append(GroupFacts(name, tuple(run.name for run in runs), seeds, n_questions, changed))
    rows = compare(groups, n_draws=configs[0].evaluation.bootstrap_samples)
    return Comparison(tuple(facts), tuple(rows))


def views(found: Comparison) -> list[TableView]:
    """A comparison → its tables: what is compared, then the measures."""
    first = found.groups[0].name
    runs = TableView(
        "runs",
        "What is compared",
        NOTE,
        ("runs", "folders", "test questions", f"settings that differ from {first}"),
        tuple((g.name, ", ".join(g.runs), g.n_questions, some_of(g.changed)) for g in found.groups),
    )
    tables = dict.fromkeys(row.table for row in found.rows)
    has_others = len(found.groups) > 1
    columns: tuple[str, ...] = ("measure", "runs", "accuracy, % [95 %]", "n")
    if has_others:
        columns = (*columns, f"− {first}, points", "n ", "questions", "p")
    return [
        runs,
        *(
            TableView(
                table,
                TITLES[table],
                "",
                columns,
                tuple(_cells(row, has_others) for row in found.rows if row.table == table),
            )
            for table in tables
        ),
    ]


def to_json(found: Comparison) -> str:
    """A comparison as JSON, unrounded: shares and differences of shares."""
    return json.dumps(dataclasses.asdict(found), indent=1, allow_nan=False) + "\n"


def to_csv(found: Comparison) -> str:
    """The rows of a comparison as CSV, unrounded: shares and differences of shares. An empty field:
    there is no such number.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("value", "low", "high", "n")
    writer.writerow(
        (
            *("table", "measure", "runs", "seeds"),
            *names,
            *(f"difference {name}" for name in (*names, "gained", "lost", "p")),
            *("pairing", "questions"),
        )
    )
    for row in found.rows:
        difference = (None,) * 7 if row.difference is None else dataclasses.astuple(row.difference)
        writer.writerow(
            (
                *(row.table, row.what, row.group, row.n_seeds),
                *dataclasses.astuple(row.estimate),
                *difference,
                *(row.pairing, row.n_questions),
            )
        )
    return text.getvalue()


def _grouped(recipes: Sequence[Recipe], seeds: Sequence[int]) -> list[list[int]]:
    """Positions of the runs, by recipe. A second run with a recipe and seed begins a group of its
    own: it is no new seed.
    """
    groups: list[list[int]] = []
    for i, recipe in enumerate(recipes):
        for group in groups:
            if recipes[group[0]] == recipe and seeds[i] not in (seeds[j] for j in group):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def _measured(run_dir: Path, made: RunConfig, name: str) -> MeasuredRun:
    inputs = read_inputs(run_dir, made)
    questions = {" ".join(p.question.split()): p.id for p in inputs.problems}
    return MeasuredRun(name, made.seed, questions, measure(inputs, evaluation_options(made)))


def _cells(row: ComparedRow, has_others: bool) -> tuple[Cell, ...]:
    cells = (_spoken(row.what), row.group, row.estimate, row.estimate.n)
    if not has_others:
        return cells
    if row.difference is None:
        return (*cells, "", "", "", "")
    p = row.difference.p
    questions = f"{row.n_questions}, {row.pairing}"
    return (*cells, row.difference, row.difference.n, questions, "" if p is None else f"{p:.2g}")


def _spoken(what: str) -> str:
    """A measure's name with the names that the report's tables use."""
    best_of = re.match(r"(.*)best_of_(\d+)$", what)
    if best_of is not None:
        return WAY_NAMES[f"{best_of[1]}best_of"].format(k=best_of[2])
    if what in WAY_NAMES:
        return WAY_NAMES[what]
    names = MODEL_NAMES | REFINER_NAMES
    return " ".join(names.get(word, word) for word in what.split(" "))
