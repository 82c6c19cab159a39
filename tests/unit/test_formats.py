"""Files of labelled solutions: every layout there and back, what is lost, what is refused."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glore.errors import DataError
from glore.formats import LAYOUTS, NEUTRAL, LabelledSolution, read_solutions, write_solutions
from glore.formats.layout import (
    COUNTS,
    KEPT,
    MISSING_LABELS,
    NEUTRAL_LABELS,
    NO_LABELS,
    SOFT_LABELS,
)

PROCESSBENCH_FILE = Path("/work/shared/data/processbench/gsm8k.json")
SUFFIXES = ("jsonl", "json", "parquet")
CONTROL = ("ки", "[BAD]", "<extra_0>", "+", "-", " +", "Step 1:", "#### 7", "\u2028", "\r", "\n")
TOKENS = {"math_shepherd": "ки", "openrlhf": "ки", "openr": "\n\n\n\n\n"}

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
nasty = st.lists(st.one_of(words, st.sampled_from(CONTROL)), max_size=5).map("".join)
hard = st.booleans()
soft = st.floats(0, 1)


def one(question="Q?", steps=("a", "b"), labels=(True, False), **more):
    return LabelledSolution(question, tuple(steps), labels, **more)


@st.composite
def solutions(draw, holds=frozenset()):
    """A solution that a layout with these holdings can write in full, control tokens included."""
    steps = tuple(draw(st.lists(nasty, min_size=1, max_size=4)))
    n = len(steps)
    kinds = [hard]
    kinds += [soft] * (SOFT_LABELS in holds)
    kind = draw(st.sampled_from(kinds))
    label = kind
    if kind is hard and NEUTRAL_LABELS in holds:
        label = st.one_of(label, st.just(NEUTRAL))
    if MISSING_LABELS in holds and "id" not in holds:
        label = st.one_of(label, st.none())
    labels = tuple(draw(st.lists(label, min_size=n, max_size=n)))
    if NO_LABELS in holds and draw(st.booleans()):
        labels = None
    text = st.one_of(st.none(), words)
    more = {name: draw(text) for name in ("id", "answer", "generator") if name in holds}
    if "correct" in holds:
        more["correct"] = draw(st.sampled_from((None, True, False)))
    if COUNTS in holds and draw(st.booleans()):
        count = st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(3, 8)))
        more["counts"] = tuple(draw(st.lists(count, min_size=n, max_size=n)))
    if KEPT in holds and draw(st.booleans()):
        more["kept"] = tuple(draw(st.lists(hard, min_size=n, max_size=n)))
    return LabelledSolution(draw(nasty), steps, labels, **more)


def in_layout(name, found):
    """What a layout with a first error alone keeps of the labels."""
    if name != "processbench" or False not in found.labels:
        return found
    n = found.labels.index(False) + 1
    return dataclasses.replace(found, labels=(*found.labels[:n], *[None] * (len(found.labels) - n)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_what_a_layout_can_hold_comes_back(tmp_path_factory, name, suffix, data):
    holds = LAYOUTS[name].holds
    if name == "processbench":
        holds = holds - {MISSING_LABELS}
    given_ = data.draw(st.lists(solutions(holds), min_size=1, max_size=4))
    if suffix == "parquet":  # one type of label in a column
        kinds = {type(x) for s in given_ for x in s.labels or () if x is not None}
        if len(kinds) > 1:
            given_ = given_[:1]
    path = tmp_path_factory.getbasetemp() / f"{name}.{suffix}"
    token = TOKENS.get(name)
    if token and any(token in t for s in given_ for t in (s.question, *s.steps)):
        with pytest.raises(DataError, match=r"which ends a step in the layout"):
            write_solutions(path, given_, name)
        return
    written = write_solutions(path, given_, name)
    assert (written.n_solutions, written.left_out) == (len(given_), {})
    back = list(read_solutions(path, name))
    wanted = [in_layout(name, s) for s in given_]
    assert back == wanted
    kinds = [[type(x) for x in s.labels or ()] for s in back]
    assert kinds == [[type(x) for x in s.labels or ()] for s in wanted]
