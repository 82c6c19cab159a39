"""Records are read back unchanged, the bytes depend on the records alone, and damage is one
readable line.
"""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import glore.records
from glore.errors import RunError
from glore.records import (
    PrefixTrials,
    Problem,
    Record,
    Refinement,
    Solution,
    StepLabels,
    read_records,
    schema_of,
    write_records,
)

SOLUTION = Solution("s", "p", ("a",), "1", "right", "student", None, 3, "eos", 1, 1.0)
KINDS: tuple[type[object], ...] = typing.get_args(Record)


def records_of(kind: type[object]) -> st.SearchStrategy[object]:
    plain = {
        str: st.text(max_size=8),
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
    }

    def strategy(annotation: typing.Any) -> st.SearchStrategy[object]:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is tuple:
            return st.lists(strategy(arguments[0]), max_size=3).map(tuple)
        if arguments:
            return st.none() | strategy(arguments[0])
        return plain[annotation]

    hints = typing.get_type_hints(kind)
    return st.builds(
        kind,
        **{
            f.name: strategy(hints[f.name])
            for f in dataclasses.fields(typing.cast(typing.Any, kind))
        },
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_record_comes_back_unchanged_and_in_order(
    kind: type[object], tmp_path: Path, data: st.DataObject
) -> None:
    # Parquet text is UTF-8: lone surrogates can't be stored, and tokenizers don't produce them.
    records = data.draw(st.lists(records_of(kind), max_size=4))
    path = tmp_path / "x.parquet"
    write_records(path, kind, records)
    first = path.read_bytes()
    assert read_records(path, kind) == records
    write_records(path, kind, records)
    assert path.read_bytes() == first


def test_every_kind_is_public_and_has_a_schema() -> None:
    for kind in KINDS:
        assert kind.__name__ in glore.records.__all__
        assert schema_of(kind).names == [
            f.name for f in dataclasses.fields(typing.cast(typing.Any, kind))
        ]


def test_none_and_empty_are_different(tmp_path: Path) -> None:
    records = [StepLabels("a", None, None, None, "sorm"), StepLabels("b", (), (), 0, "sorm")]
    write_records(tmp_path / "x.parquet", StepLabels, records)
    back = read_records(tmp_path / "x.parquet", StepLabels)
    assert [r.labels for r in back] == [None, ()]
    assert [r.first_error for r in back] == [None, 0]


def test_files_are_read_in_the_given_order(tmp_path: Path) -> None:
    for i in range(3):
        write_records(
            tmp_path / f"p-{i}.parquet", Problem, [Problem(str(i), "q", "1", None, "train")]
        )
    assert [
        p.id for p in read_records([tmp_path / f"p-{i}.parquet" for i in (2, 0, 1)], Problem)
    ] == ["2", "0", "1"]


def test_a_bare_string_is_not_taken_for_a_list_of_letters(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_records(path, Problem, [Problem("a", "q", "1", None, "train")])
    with pytest.raises(
        TypeError, match=r"pathlib\.Path or several, got the string '.*; wrap it in Path"
    ):
        read_records(str(path), Problem)  # type: ignore[arg-type]  # what is tested
    assert [p.id for p in read_records([path], Problem)] == ["a"]


@pytest.mark.parametrize("keep", [0, 3, 40, -1])
def test_a_truncated_file_is_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.parquet"
    write_records(path, Problem, [Problem("a", "q", "1", ("s",), "train")])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"x\.parquet") as caught:
        read_records(path, Problem)
    assert "\n" not in str(caught.value)


def test_a_foreign_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_records(path, Problem, [])
    with pytest.raises(RunError, match="Solution needs"):
        read_records(path, Solution)


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    write_records(tmp_path / "sub" / "x.parquet", PrefixTrials, [])
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["x.parquet"]


def test_the_disk_refusing_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="free some space or choose another run folder"):
        write_records(tmp_path / "file" / "x.parquet", Problem, [])


def test_columns_are_typed_for_other_readers(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    r = Refinement(
        "p",
        "q",
        ("s",),
        (0.5,),
        (0.25,),
        True,
        0,
        ("draft",),
        (("s", "t"),),
        (0.5,),
        0,
        "3",
        7,
        0.1,
    )
    write_records(path, Refinement, [r])
    schema = pq.read_schema(path)
    assert schema.field("candidates").type.value_type.value_type == "string"
    assert str(schema.field("needs_work").type) == "bool"
    assert not schema.field("question").nullable
    assert schema.field("marked_step").nullable


def test_a_newer_field_is_a_column_only_where_a_record_has_it(tmp_path: Path) -> None:
    """So files of earlier releases are read, and files that need no such field stay the same."""
    path = tmp_path / "x.parquet"
    write_records(path, Solution, [SOLUTION])
    assert not {"thought", "n_cut"} & set(pq.read_schema(path).names)
    assert read_records(path, Solution) == [SOLUTION]
    cut = dataclasses.replace(SOLUTION, n_cut=5)
    write_records(path, Solution, [SOLUTION, cut])
    names = pq.read_schema(path).names
    assert "n_cut" in names
    assert "thought" not in names
    assert read_records(path, Solution) == [SOLUTION, cut]
    pq.write_table(pq.read_table(path).drop_columns(["seed"]), path)
    with pytest.raises(RunError, match="holds columns"):
        read_records(path, Solution)
