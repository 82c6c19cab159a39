"""The records that stages exchange: frozen dataclasses in memory, typed Parquet columns on disk.

A file keeps the order of the list that was written. Column types follow from the annotations of the
fields (`str`, `int`, `float`, `bool`, `X | None`, `tuple[X, ...]`, nested), so a record and its
schema can't differ. `SCHEMA_VERSION` is part of every stage's fingerprint: raise it when a field
changes its meaning.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from glore.errors import RunError, shown
from glore.files import replacing

__all__ = [
    "SCHEMA_VERSION",
    "PrefixTrials",
    "Problem",
    "Record",
    "Refinement",
    "RefinementPair",
    "Solution",
    "StepLabels",
    "StepScores",
    "column_names",
    "read_records",
    "schema_of",
    "write_records",
]

SCHEMA_VERSION = 1

Verdict = Literal["right", "wrong", "unknown"]
V = TypeVar("V")


def _newer(default: V) -> V:
    """A field that is newer than files written without it. A file has no column of it if all its
    records have the default.
    """
    return dataclasses.field(default=default, metadata={"newer": True})


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """A question whose final answer can be checked."""

    id: str
    question: str
    answer: str
    """The gold answer, normalised by the task's grader."""
    solution: tuple[str, ...] | None
    """A worked solution as steps (the last is the answer line), or none."""
    split: str
    """`train`, `dev` or `test`."""
    meta: str = ""
    """Private facts of the task as JSON, never shown to a model. The built-in task keeps the truth
    of its quantities here.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Solution:
    """A sampled or refined solution text, graded."""

    id: str
    problem_id: str
    steps: tuple[str, ...]
    """L step texts, one per non-empty line; an answer line is the last."""
    answer: str | None
    """The normalised final answer, or none."""
    correct: str
    """`right`, `wrong` or `unknown` (could not be graded)."""
    source: str
    """`student`, `global`, `local`, `reference`, …"""
    draft_id: str | None
    """For a refinement, the draft it started from."""
    n_tokens: int
    stop: str
    """`eos`, `stop` or `length`."""
    seed: int
    temperature: float
    thought: str = _newer("")
    """What its `<think>` blocks hold, if they are kept apart from the steps."""
    n_cut: int = _newer(0)
    """Characters at its end that were not read (`prompt.max_solution_chars`)."""


@dataclasses.dataclass(frozen=True, slots=True)
class PrefixTrials:
    """Verifying rollouts from one prefix P_i of a draft, in the order of k. Labels are derived from
    them.
    """

    solution_id: str
    n_steps_kept: int
    """i: the prefix is the first i steps."""
    completions: tuple[str, ...]
    correct: tuple[str, ...]
    """`right`, `wrong` or `unknown` per rollout."""
    consistent: tuple[bool, ...]
    """Per rollout: does it use the prefix's results (method 3.1)?"""
    n_tokens: int
    """Tokens sampled for these rollouts, and for those that `glore regrade` dropped."""
    exhausted: bool
    """True: all K were drawn. False: sampling ended at the first consistent success."""


@dataclasses.dataclass(frozen=True, slots=True)
class StepLabels:
    """One label per step of a draft."""

    solution_id: str
    labels: tuple[bool, ...] | None
    """L labels, or none if the draft could not be labelled."""
    kept: tuple[bool, ...] | None
    """L flags: is the step used in training after balancing?"""
    first_error: int | None
    """0-based index of the first negative step, or none."""
    rule: str
    """The rule that made the labels, such as `sorm`, `orm` or `truth`."""


@dataclasses.dataclass(frozen=True, slots=True)
class StepScores:
    """A reward model's probability after every step of a solution."""

    solution_id: str
    model: str
    p_correct: tuple[float, ...]
    """L probabilities in [0, 1]."""


@dataclasses.dataclass(frozen=True, slots=True)
class RefinementPair:
    """One training example of the refiner: a wrong, marked draft and a right target."""

    problem_id: str
    draft_id: str
    kind: str
    """`global`, `local` or `value`."""
    marked_step: int | None
    """0-based index of the step that `[BAD]` precedes, or none."""
    draft_steps: tuple[str, ...]
    target_steps: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Refinement:
    """The result of inference for one question, with every intermediate value (method 5)."""

    problem_id: str
    question: str
    draft: tuple[str, ...]
    orm_scores: tuple[float, ...]
    """ORM probability after every step of the draft."""
    sorm_scores: tuple[float, ...]
    """SORM probability after every step of the draft; empty of a cascade, which has no SORM."""
    needs_work: bool
    """When: the ORM's probability after the draft's last step is at most the threshold."""
    marked_step: int | None
    """Where: 0-based index of the first step with SORM at most the threshold, or none."""
    candidate_kinds: tuple[str, ...]
    """`draft`, `global`, `local`, in the order of `candidates`; of a cascade `draft`, `global`,
    `sample`, ….
    """
    candidates: tuple[tuple[str, ...], ...]
    candidate_scores: tuple[float, ...]
    """The reranker's score of each candidate."""
    chosen: int
    """Index into `candidates`."""
    answer: str | None
    n_tokens: int
    """Tokens generated for this question."""
    seconds: float
    """Wall time of the batch it was part of, divided by the batch size."""


Record = Problem | Solution | PrefixTrials | StepLabels | StepScores | RefinementPair | Refinement
R = TypeVar("R")


def _arrow_type(annotation: object) -> tuple[pa.DataType, bool]:
    """Annotation of a field → its Arrow type, and whether it may be null."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        inner = [a for a in arguments if a is not type(None)]
        assert len(inner) == 1, f"unsupported union {annotation}"
        return _arrow_type(inner[0])[0], True
    if origin is tuple:
        assert arguments[1:] == (Ellipsis,), f"unsupported tuple {annotation}"
        inner_type, inner_null = _arrow_type(arguments[0])
        return pa.list_(pa.field("item", inner_type, nullable=inner_null)), False
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return plain[typing.cast(type, annotation)], False


def schema_of(kind: type[object]) -> pa.Schema:
    """A record class → its Parquet schema, from the annotations."""
    hints = typing.get_type_hints(kind)
    fields = []
    for field in dataclasses.fields(typing.cast(typing.Any, kind)):
        arrow, nullable = _arrow_type(hints[field.name])
        fields.append(pa.field(field.name, arrow, nullable=nullable))
    return pa.schema(fields)


def column_names(kind: type[object], found: Sequence[str]) -> list[str]:
    """The columns that a file of these records has, if it has those `found`: newer ones may be
    missing.
    """
    fields = dataclasses.fields(typing.cast(typing.Any, kind))
    return [f.name for f in fields if f.name in found or "newer" not in f.metadata]


def _frozen(value: object) -> object:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def write_records(path: Path, kind: type[R], records: Sequence[R]) -> None:
    """Write `records` to a Parquet file, whole or not at all. An existing file is replaced. The
    bytes depend on the records alone. Raises RunError when the disk refuses.
    """
    columns = {
        f.name: [getattr(r, f.name) for r in records]
        for f in dataclasses.fields(typing.cast(typing.Any, kind))
        if "newer" not in f.metadata or any(getattr(r, f.name) != f.default for r in records)
    }
    schema = pa.schema([schema_of(kind).field(name) for name in columns])
    table = pa.table(columns, schema=schema)
    with replacing(path) as stream:
        pq.write_table(table, stream, compression="zstd")


def read_records(paths: Path | Iterable[Path], kind: type[R]) -> list[R]:
    """The records in one Parquet file or several, in order.

    Raises RunError for an unreadable or foreign file, and TypeError for a path given as a string.
    """
    if isinstance(paths, str):  # without types, its first letter would be read as a file
        raise TypeError(
            f"read_records takes a pathlib.Path or several, got the string {shown(paths)}; wrap it "
            "in Path(…)"
        )
    files = [paths] if isinstance(paths, Path) else list(paths)
    out: list[R] = []
    for path in files:
        try:
            table = pq.read_table(path)
            names = table.schema.names
        # ValueError: for example, names that are not UTF-8.
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error
        expected = column_names(kind, names)
        if names != expected:
            raise RunError(
                f"{path} holds columns {names}, but {kind.__name__} needs {expected}; delete "
                "its stage folder and run again"
            )
        try:
            rows = table.to_pylist()
        except (ValueError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error
        out.extend(
            kind(**typing.cast(typing.Any, {k: _frozen(v) for k, v in row.items()})) for row in rows
        )
    return out


def _unreadable(path: Path, error: Exception) -> RunError:
    said = next(iter(str(error).splitlines()), type(error).__name__)
    return RunError(f"can't read {path}: {said}; delete the file and run again to make it again")
