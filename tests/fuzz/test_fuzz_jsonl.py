"""Data files from strangers: whatever they hold, they load whole and consistent, or are refused in
one line that says where.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from glore.config import TaskSettings
from glore.errors import ConfigError, DataError
from glore.tasks import open_task
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.grading.latex import LatexChecker
from support.fuzzing import fuzz

KINDS = ("jsonl", "math", "gsm8k", "svamp")
NAMES = (
    "question",
    "answer",
    "solution",
    "id",
    "problem",
    "Body",
    "Question",
    "Answer",
    "Equation",
    "ID",
)
ODD_CHARACTERS = ("", "\u2028", "\u0085", "\x0b", "\r", "\n", "\ud800", "\x00", "\x1b")
ODD = st.sampled_from(
    (
        *ODD_CHARACTERS,
        "####",
        "#### 5",
        "#### Step 1",
        "\\boxed{",
        "\\boxed{5}",
        "nan",
        "5 million",
        "1e999",
    )
)
TEXT = st.lists(st.one_of(ODD, st.text(max_size=8), st.integers().map(str)), max_size=6).map(
    "".join
)
SCALAR = st.one_of(
    TEXT,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.integers(min_value=10**300, max_value=10**310),
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=2)),
    max_leaves=4,
)


@st.composite
def row(draw: st.DrawFn, kind: str) -> dict[str, object]:
    """A row for this kind of task: usually good, sometimes with an odd or missing field."""
    n = draw(st.integers(0, 10**6))
    fields: dict[str, object] = {
        "question": f"q{n}",
        "problem": f"q{n}",
        "Body": f"b{n}",
        "Question": f"q{n}?",
        "Answer": n % 9,
    }
    fields["answer"] = str(n % 9) if kind != "gsm8k" else f"{n % 9} is it\n#### {n % 9}"
    if kind in ("jsonl", "math") and draw(st.booleans()):
        fields["answer"] = draw(
            st.sampled_from((f"{n % 9}/7", "x+1", "Yes", "1:9", "\\frac{1}{7}", "3, 5"))
        )
    elif draw(st.booleans()):
        answers = (
            f"It is \\boxed{{{n % 9}}}.",
            f"#### {n % 9}",
            "So.\u2028",
            f"\\boxed{{{n % 9}}}\n#### {n % 9}",
            f"#### Step 1\n{n}",
        )
        fields["solution"] = draw(st.sampled_from(answers))
    if draw(st.integers(0, 7)) == 7:
        fields[draw(st.sampled_from(NAMES))] = draw(VALUE)
    if draw(st.integers(0, 15)) == 15:
        del fields[draw(st.sampled_from(sorted(fields)))]
    return fields


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some bytes set, put in, doubled or left out, in one of three files."""
    data = bytearray(whole)
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 3)))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 8))
        other = draw(st.one_of(st.binary(max_size=8), st.just(bytes(data[at : at + length] * 2))))
        data[at : at + length] = other
    return bytes(data)


@st.composite
def text_file(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A kind of task, a file's name and its bytes."""
    kind = draw(st.sampled_from(KINDS))
    if draw(st.integers(0, 19)) == 19:
        return (
            kind,
            draw(st.sampled_from(("a.jsonl", "a.json", "a.csv"))),
            draw(st.binary(max_size=200)),
        )
    rows = draw(st.lists(row(kind), min_size=draw(st.sampled_from((0, 4, 6))), max_size=8))
    suffix = draw(
        st.sampled_from((".jsonl", ".jsonl", ".json", ".jsonl.gz", ".jsonl.bz2", ".csv", ".txt"))
    )
    if suffix == ".csv":
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, NAMES)
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in r.items()} for r in rows)
        text = table.getvalue()
    else:
        end = draw(st.sampled_from(("\n", "\r\n", "\n\n", " \n")))
        text = end.join(json.dumps(r, ensure_ascii=draw(st.booleans())) for r in rows)
        text = json.dumps(rows) if suffix == ".json" and draw(st.booleans()) else text
    whole = text.encode(
        "utf-8", errors=draw(st.sampled_from(("surrogatepass", "replace", "replace")))
    )
    whole = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(f"a{suffix}").suffix, bytes)(
        whole
    )
    return kind, f"a{suffix}", draw(damaged(whole))


@st.composite
def table_file(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Parquet or Arrow, its bytes whole or damaged."""
    kind = draw(st.sampled_from(KINDS))
    rows = draw(st.lists(row(kind), min_size=4, max_size=8))
    table = pa.table({name: [_plain(r.get(name)) for r in rows] for name in NAMES})
    stream = io.BytesIO()
    suffix = draw(st.sampled_from((".parquet", ".arrow", ".stream")))
    if suffix == ".parquet":
        pq.write_table(table, stream)
    else:
        with (pa.ipc.new_file if suffix == ".arrow" else pa.ipc.new_stream)(
            stream, table.schema
        ) as writer:
            writer.write_table(table)
    return kind, f"a{suffix}", draw(damaged(stream.getvalue()))


def _plain(value: object) -> str | None:
    return None if value is None else str(value).encode("utf-8", errors="replace").decode()


def load_or_refuse(kind: str, name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        if kind == "gsm8k":  # which is never split by us
            (path.parent / "train.jsonl").write_bytes(content)
            (path.parent / "test.jsonl").write_bytes(b'{"question": "t", "answer": "#### 5"}\n')
            path = path.parent
        settings = TaskSettings.model_validate({"kind": kind, "path": str(path), "n_dev": 1})
        try:
            task = cast("DatasetTask", open_task(settings, seed=0))
        except (DataError, ConfigError) as error:
            message = str(error)
            assert message.isprintable(), (
                "one line, without anything that colours or moves a terminal"
            )
            assert len(message) < 700 + len(folder)
            assert (
                folder in message or "task.n_dev" in message or "no questions are left" in message
            )
            return
        found = [p for split in ("train", "dev", "test") for p in task.problems(split)]
        assert len({p.id for p in found}) == len(found)
        for problem in found:
            assert problem.question.strip()
            assert problem.answer.strip()
            assert task.grade(problem, [f"#### {problem.answer}"]).verdict != "wrong"
            if problem.solution is not None:
                assert task.grade(problem, problem.solution).verdict != "wrong"
        again = cast("DatasetTask", open_task(settings, seed=0))
        assert found == [p for split in ("train", "dev", "test") for p in again.problems(split)]


@pytest.fixture(autouse=True)
def no_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing LaTeX takes a process of its own, whose fuzz target is another."""
    monkeypatch.setattr(LatexChecker, "check", lambda *_: "unknown")


def test_text_files() -> None:
    fuzz(lambda file: load_or_refuse(*file), text_file(), examples=300)


def test_tables() -> None:
    fuzz(lambda file: load_or_refuse(*file), table_file(), examples=150)
