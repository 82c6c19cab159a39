"""Foreign files of labelled solutions, damaged in any way: a fault by line and field, or solutions
that can be written and read again.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from glore.errors import DataError, GloreError
from glore.formats import LAYOUTS, LabelledSolution, read_solutions, write_solutions
from glore.formats.layout import WriteOptions
from glore.formats.validating import validate_file
from support.fuzzing import fuzz

GOOD = LabelledSolution(
    "Ann has 2 pens. How many?",
    ("Step 1: 2 + 2 = 4", "Step 2: #### 4"),
    (True, False),
    id="a",
    answer="2",
    correct=False,
)
text = st.text(st.characters(exclude_categories=()), max_size=8)
scraps = st.sampled_from(["ки", " ки", "+", "-", " ", "\n", "\n\n\n\n\n", "Step 1:", "[BAD]", ""])
json_values = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-101, 3), st.floats(), text, scraps),
        st.integers(-(10**30), 10**30),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(text, st.just("text")), inner, max_size=3),
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw, row):
    """A row in which up to three places were replaced, removed, doubled or cut."""
    row = copy.deepcopy(row)
    for _ in range(draw(st.integers(0, 3))):
        place, keys = row, []
        while isinstance(place, dict | list) and place:
            key = draw(
                st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
            )
            keys.append((place, key))
            place = place[key]
            if draw(st.booleans()):
                break
        if not keys:
            continue
        owner, key = keys[-1]
        match draw(st.sampled_from(("replace", "remove", "double", "edit"))):
            case "replace":
                owner[key] = draw(json_values)
            case "remove":
                del owner[key]
            case "double" if isinstance(owner, list):
                owner.append(owner[key])
            case "edit" if isinstance(owner[key], str):
                at = draw(st.integers(0, len(owner[key])))
                owner[key] = (
                    owner[key][:at] + draw(scraps) + owner[key][at + draw(st.integers(0, 9)) :]
                )
            case _:
                owner[key] = draw(scraps)
    return row


@pytest.mark.parametrize("name", LAYOUTS)
def test_damaged_rows_are_faults_or_solutions(tmp_path: Path, name: str) -> None:
    good = LAYOUTS[name].write(GOOD, WriteOptions())
    path, again = tmp_path / "fuzz.jsonl", tmp_path / "again.jsonl"

    def attack(row: dict[str, object]) -> None:
        path.write_text(json.dumps(row) + "\n" + json.dumps(good) + "\n", encoding="utf-8")
        found = validate_file(path, name)
        assert (found.n_rows, found.n_faults) in ((2, 0), (2, 1))
        if found.n_faults:
            assert "fuzz.jsonl, line 1: " in found.faults[0]
            with pytest.raises(DataError, match="line 1: "):
                list(read_solutions(path, name))
            return
        solutions = list(read_solutions(path, name))
        tokens = {"openr": "\n" * 5}.get(name, "\0")
        if any(tokens in text for s in solutions for text in (s.question, *s.steps)):
            return  # a question of openr's; what would be cut is not written
        written = write_solutions(again, solutions, name)
        assert written.left_out == {}
        assert list(read_solutions(again, name)) == solutions

    fuzz(attack, damaged(good), examples=100)


def test_any_bytes_are_an_error_in_one_line(tmp_path: Path) -> None:
    def attack(content: bytes) -> None:
        for suffix in ("jsonl", "json", "parquet", "jsonl.gz"):
            path = tmp_path / f"any.{suffix}"
            for start in (b"", b"[", b"{", b"PAR1", b"\x1f\x8b"):
                path.write_bytes(start + content)
                with pytest.raises(GloreError) as caught:
                    list(read_solutions(path))
                assert "\n" not in str(caught.value)

    encoded = text.map(lambda t: t.encode("utf-8", "surrogatepass"))
    fuzz(attack, st.one_of(st.binary(max_size=60), encoded), examples=40)
