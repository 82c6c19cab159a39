"""Files of labelled solutions: every layout there and back, what is lost, what is refused."""

import dataclasses
import gzip
import json
import math
import tracemalloc
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


def written_as(tmp_path, found, name, suffix="jsonl", **more):
    path = tmp_path / f"out.{suffix}"
    return path, write_solutions(path, found, name, **more)


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def file_of(tmp_path, *found, name="in.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


SHEPHERD = {
    "input": "Ann has 2 pens. How many pens are 3 times as many? Step 1: 3 * 2 = 6 ки\n"
    "Step 2: So 7. The answer is: 7 ки",
    "label": "Ann has 2 pens. How many pens are 3 times as many? Step 1: 3 * 2 = 6 +\n"
    "Step 2: So 7. The answer is: 7 -",
    "task": "GSM8K",
}
RATED = {
    "labeler": "l1",
    "timestamp": "2026-01-01T00:00:00",
    "generation": None,
    "question": {"problem": "2 + 2?", "ground_truth_answer": "4", "pre_generated_steps": ["x"]},
    "label": {
        "steps": [
            {
                "completions": [
                    {"text": "add", "rating": 1, "flagged": None},
                    {"text": "multiply", "rating": -1, "flagged": None},
                ],
                "human_completion": None,
                "chosen_completion": 0,
            },
            {
                "completions": [{"text": "it is 5", "rating": -1, "flagged": None}],
                "human_completion": {"text": "it is 4", "rating": None, "source": "human"},
                "chosen_completion": None,
            },
            {
                "completions": [
                    {"text": "so 4", "rating": 0, "flagged": None},
                    {"text": "hm", "rating": None, "flagged": True},
                ],
                "human_completion": None,
                "chosen_completion": None,
            },
        ],
        "total_time": 5,
        "finish_reason": "give_up",
    },
}


def test_math_shepherd_as_it_is_published(tmp_path):
    (found,) = read_solutions(file_of(tmp_path, SHEPHERD))
    assert found.question == "Ann has 2 pens. How many pens are 3 times as many?"
    assert found.steps == ("Step 1: 3 * 2 = 6", "Step 2: So 7. The answer is: 7")
    assert (found.labels, found.fields) == ((True, False), {"task": "GSM8K"})
    path, _ = written_as(tmp_path, [found], "math_shepherd")
    assert rows(path) == [{**SHEPHERD, "question": found.question}]
    wrong = {**SHEPHERD, "label": SHEPHERD["label"].replace("So 7", "So 8")}
    with pytest.raises(DataError, match=r"line 1: label: differs from input before .*step 2"):
        list(read_solutions(file_of(tmp_path, wrong)))


def test_a_question_that_cannot_be_told_from_its_first_step_stays_there(tmp_path):
    text = "How many? First, 3 ки\nThen 4 ки"
    row = {"input": text, "value": ["+", "-"]}
    (found,) = read_solutions(file_of(tmp_path, row))
    assert (found.question, found.steps) == ("", ("How many? First, 3", "Then 4"))
    path, _ = written_as(tmp_path, [found], "openrlhf")
    assert rows(path) == [{**row, "question": ""}]


def test_every_way_through_prm800k_is_a_solution(tmp_path):
    found = list(read_solutions(file_of(tmp_path, RATED)))
    assert [(s.steps, s.labels) for s in found] == [
        (("multiply",), (False,)),
        (("add", "it is 5"), (True, False)),
        (("add", "it is 4", "so 4"), (True, True, NEUTRAL)),
        (("add", "it is 4", "hm"), (True, True, None)),
    ]
    assert {(s.question, s.answer) for s in found} == {("2 + 2?", "4")}
    # Each is a line of its own, with the fields of the line it came from; read again, the same.
    path, _ = written_as(tmp_path, found, "prm800k")
    assert rows(path)[1]["labeler"] == "l1"
    assert rows(path)[1]["question"] == RATED["question"]
    assert list(read_solutions(path)) == found
    plain, written = written_as(tmp_path, found, "jsonl")
    assert written.lost == {}
    assert list(read_solutions(plain)) == found
    # Who gave up before the first step left a line without a solution.
    gone = {**RATED, "label": {"steps": [], "total_time": 3, "finish_reason": "bad_problem"}}
    assert list(read_solutions(file_of(tmp_path, gone, RATED))) == found
    lost = {**gone, "label": {"steps": [], "finish_reason": "solution"}}
    with pytest.raises(DataError, match=r"label\.steps: must be a list of at least one step"):
        list(read_solutions(file_of(tmp_path, lost)))


def test_openr_old_and_new(tmp_path):
    old = {"question": "Q?", "process": "Step 1: a ки\nStep 2: b ки", "labels": [1, 0]}
    new = {"question": "Q?", "process": "a \n\n\n\n\nb \n\n\n\n\n", "label": ["+", "-"]}
    bare = {"question": "Q?", "process": "a\n\n\n\n\nb\n\n\n\n\n", "label": ["+", "-"]}
    found = list(read_solutions(file_of(tmp_path, old, new, bare)))
    assert [s.steps for s in found] == [("Step 1: a", "Step 2: b"), ("a", "b"), ("a", "b")]
    assert {s.labels for s in found} == {(True, False)}
    path, _ = written_as(tmp_path, found[1:2], "openr")
    assert rows(path) == [new]


def test_paddlenlp_keeps_earlier_turns(tmp_path):
    row = {
        "src": ["Hi", "2 + 2?"],
        "tgt": ["Hello"],
        "responses": ["4", "no, 5"],
        "labels": ["+", "-"],
    }
    (found,) = read_solutions(file_of(tmp_path, row, name="a.json"))
    assert (found.question, found.labels) == ("2 + 2?", (True, False))
    path, _ = written_as(tmp_path, [found], "paddlenlp")
    assert rows(path) == [row]
    plain, written = written_as(tmp_path, [found], "trl")
    assert (written.lost, rows(plain)[0]["prompt"]) == ({"other fields of the source": 1}, "2 + 2?")


def test_soft_labels_are_refused_where_there_are_none_and_never_floored(tmp_path):
    found = one(labels=(0.999, 0.5))
    for name in sorted(set(LAYOUTS) - {"jsonl", "trl", "openrlhf"}):
        with pytest.raises(DataError, match=r"solution 1: has the soft label 0\.999.*--threshold"):
            written_as(tmp_path, [found], name)
    path, _ = written_as(tmp_path, [found], "trl")
    assert rows(path)[0]["labels"] == [0.999, 0.5]
    path, written = written_as(tmp_path, [found], "rlhflow", threshold=0.5)
    assert written.lost == {"soft labels, now hard at 0.5": 1}
    (back,) = read_solutions(path)
    assert back.labels == (True, False)


def test_one_and_zero_are_hard_and_a_fraction_makes_all_soft(tmp_path):
    base = {"prompt": "Q?", "completions": ["a", "b"]}
    hard_, mixed, floats = read_solutions(
        file_of(tmp_path, *({**base, "labels": x} for x in ([1, 0], [1, 0.25], [1.0, 0.0])))
    )
    assert [list(map(type, s.labels)) for s in (hard_, mixed, floats)] == [
        [bool, bool],
        [float, float],
        [float, float],
    ]
    assert mixed.labels == (1.0, 0.25)


def test_neutral_and_missing_labels(tmp_path):
    found = [one(labels=(NEUTRAL, False)), one(labels=(True, None)), one(labels=(None, True))]
    path, written = written_as(tmp_path, found, "trl")
    assert [r["labels"] for r in rows(path)] == [[True, False]]
    assert written.left_out == {"with a step without a label": 2}
    assert written.lost == {"neutral labels, now good": 1}
    path, written = written_as(tmp_path, found, "trl", neutral="bad", missing="cut")
    assert rows(path)[1] == {"prompt": "Q?", "completions": ["a"], "labels": [True]}
    assert (rows(path)[0]["labels"], written.n_steps) == ([False, False], 3)
    assert written.left_out == {"with a step without a label": 1}
    with pytest.raises(DataError, match="no solution fits the layout trl: 1 without labels"):
        written_as(tmp_path, [one(labels=None)], "trl")
    with pytest.raises(DataError, match="no solution fits the layout trl: there are none"):
        written_as(tmp_path, [], "trl")
    assert not (tmp_path / "never.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 1.5}, "threshold must be from 0 to below 1, got 1.5"),
        ({"threshold": math.nan}, "threshold must be from 0"),
        ({"neutral": "x"}, "neutral labels can become good, bad, missing, got 'x'"),
        ({"missing": "x"}, "can be leave_out or cut, got 'x'"),
        ({"placeholder": " "}, "placeholder must be a text without blanks around it"),
    ],
)
def test_options_are_checked_before_anything_is_written(tmp_path, options, said):
    with pytest.raises(DataError, match=said):
        written_as(tmp_path, [one()], "trl", **options)
    assert not list(tmp_path.iterdir())


def test_processbench_keeps_labels_up_to_the_first_wrong_step(tmp_path):
    found = one(steps="abcd", labels=(True, False, True, None), id="x")
    path, written = written_as(tmp_path, [found], "processbench")
    assert rows(path)[0]["label"] == 1
    assert written.lost == {"labels after the first wrong step": 1}
    with pytest.raises(DataError, match="before the first wrong one"):
        written_as(tmp_path, [one(labels=(None, False))], "processbench")


@pytest.mark.parametrize("name", ["math_shepherd", "openrlhf"])
def test_a_token_in_a_text_is_refused_by_name(tmp_path, name):
    path, _ = written_as(tmp_path, [one()], name)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"solution 2: a step holds .*which ends a step"):
        written_as(tmp_path, [one(), one(steps=("книжки", "b"))], name)
    assert path.read_bytes() == before


def test_openrlhf_with_another_placeholder(tmp_path):
    found = one(steps=("книжки [BAD]", "b"), labels=(0.25, 1.0))
    path, _ = written_as(tmp_path, [found], "openrlhf", placeholder="<extra_0>")
    assert rows(path)[0]["input"] == "Q? книжки [BAD] <extra_0>\nb <extra_0>"
    assert list(read_solutions(path, placeholder="<extra_0>")) == [found]
    with pytest.raises(DataError, match="input: has text after the last"):
        list(read_solutions(path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": [True]}, r"labels: 1 labels for 2 steps"),
        ({"labels": [True, False, True]}, r"labels: 3 labels for 2 steps"),
        ({"labels": [True, -100]}, r"labels\[1\]: -100 masks a position in a loss"),
        ({"labels": [0.5, -100.0]}, r"labels\[1\]: -100 masks"),
        ({"labels": [True, 2]}, r"labels\[1\]: 2 is no label"),
        ({"labels": [0.5, 1.5]}, r"labels\[1\]: 1\.5 is no label"),
        ({"labels": [True, None]}, r"labels\[1\]: None is no label"),
        ({"labels": [True, 0.5]}, r"labels: some are true or false and some are numbers"),
        ({"labels": ["+", "-"]}, r"labels\[0\]: '\+' is no label"),
        ({"labels": "+-"}, r"labels: must be a list"),
        ({"completions": []}, r"completions: is empty"),
        ({"completions": ["a", 3]}, r"completions\[1\]: must be a text, got 3"),
        ({"completions": ["a", "\ud800"]}, r"completions\[1\]: has half a Unicode"),
        ({"prompt": None}, r"prompt: must be a text, got None"),
    ],
)
def test_faults_name_line_and_field(tmp_path, changes, said):
    row = {"prompt": "Q?", "completions": ["a", "b"], "labels": [True, False]}
    path = file_of(tmp_path, row, {**row, **changes})
    with pytest.raises(DataError, match=rf"in\.jsonl, line 2: {said}"):
        list(read_solutions(path))


def test_the_layout_is_told_from_the_fields_or_asked_for(tmp_path):
    both = {
        "prompt": "Q?",
        "completions": ["a"],
        "labels": [True],
        "question": "Q?",
        "steps": ["a"],
    }
    path = file_of(tmp_path, both)
    with pytest.raises(DataError, match=r"fit several layouts: jsonl, trl; name one of them"):
        list(read_solutions(path))
    assert next(read_solutions(path, "trl")).steps == ("a",)
    with pytest.raises(DataError, match=r"\(text\) fit no layout.*processbench"):
        list(read_solutions(file_of(tmp_path, {"text": "x"})))
    with pytest.raises(DataError, match=r"no layout 'math-sheperd'; did you mean math_shepherd"):
        list(read_solutions(path, "math-sheperd"))
    for name in ("Math-Shepherd", "mathshepherd", "MATH_SHEPHERD"):
        assert next(read_solutions(file_of(tmp_path, SHEPHERD), name)).labels


def test_a_plain_file_needs_question_and_steps_alone(tmp_path):
    text, listed = read_solutions(
        file_of(
            tmp_path,
            {"question": "Q?", "solution": "a = 1\n\n#### 1\n", "mine": 5},
            {"question": "Q?", "steps": ["x"], "labels": [None]},
        )
    )
    assert (text.steps, text.labels, text.fields) == (("a = 1", "#### 1"), None, {"mine": 5})
    assert listed.labels == (None,)
    path, _ = written_as(tmp_path, [text], "jsonl")
    assert list(read_solutions(path)) == [text]


def test_compressed_files_arrays_and_broken_ones(tmp_path):
    row = {"prompt": "Q?", "completions": ["ä", "b"], "labels": [True, False]}
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(gzip.compress((json.dumps(row) + "\n\n" + json.dumps(row)).encode()))
    assert len(list(read_solutions(packed))) == 2
    array = tmp_path / "x.json"
    array.write_text("\ufeff [\n" + ",\n ".join([json.dumps(row, indent=2)] * 3) + "]\n")
    assert len(list(read_solutions(array))) == 3
    array.write_text(json.dumps([row, row])[:-20])
    with pytest.raises(DataError, match=r"x\.json, item 2: not valid JSON"):
        list(read_solutions(array))
    array.write_text("[" + json.dumps(row) + " " + json.dumps(row) + "]")
    with pytest.raises(DataError, match=r"cut off or lacks a ']'"):
        list(read_solutions(array))
    array.write_text("[]")
    with pytest.raises(DataError, match="has no rows"):
        list(read_solutions(array))
    with pytest.raises(DataError, match=r"NaN is not a number of JSON"):
        list(read_solutions(file_of(tmp_path, {**row, "labels": [math.nan, 1]})))
    with pytest.raises(DataError, match=r"can't read .*nothing\.jsonl"):
        list(read_solutions(tmp_path / "nothing.jsonl"))
    with pytest.raises(DataError, match=r"name it \*\.jsonl"):
        write_solutions(tmp_path / "x.csv", [one()], "trl")


@pytest.mark.parametrize("size", [2**16 - 30, 2**16, 2**18 + 7])
def test_items_of_an_array_longer_than_a_piece_of_the_file(tmp_path, size):
    array = tmp_path / "x.json"
    long = [{"prompt": "é" * (size + i), "completions": ["a"], "labels": [True]} for i in range(3)]
    array.write_text(json.dumps(long, ensure_ascii=False), encoding="utf-8")
    assert [len(s.question) for s in read_solutions(array)] == [size, size + 1, size + 2]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    def many(n):
        return (one(question=f"{i} " + "x" * 400, steps=("y" * 400, "z")) for i in range(n))

    def peak(n):
        path = tmp_path / f"{n}.{suffix}"
        write_solutions(path, many(n), "trl")
        tracemalloc.start()
        assert sum(1 for _ in read_solutions(path)) == n
        write_solutions(tmp_path / f"copy.{suffix}", read_solutions(path), "jsonl")
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    small, large = peak(1200), peak(3600)
    assert large < 1.5 * small + 200_000


def test_columns_of_several_types_are_refused_in_parquet(tmp_path):
    with pytest.raises(DataError, match=r"labels holds values of several types.*write JSON lines"):
        written_as(tmp_path, [one(), one(labels=(0.5, 0.25))], "trl", "parquet")
    found = [one()] * 1000 + [one(layout="trl", fields={"extra": 1})]
    with pytest.raises(DataError, match=r"row 1001 has fields that no earlier row has: extra"):
        written_as(tmp_path, found, "trl", "parquet")
    found = [one(labels=(True, NEUTRAL)), one()]
    path, _ = written_as(tmp_path, found, "jsonl", "parquet")
    assert list(read_solutions(path)) == found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_foreign_fields_that_cannot_be_written_are_refused(tmp_path, suffix):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, math.nan, {1, 2}):
        found = one(layout="trl", fields={"mine": value})
        with pytest.raises(DataError, match=r"as JSON|several types|64 deep"):
            written_as(tmp_path, [found], "trl", suffix)
        assert not list(tmp_path.iterdir())


def test_a_record_keeps_one_label_per_step():
    with pytest.raises(DataError, match="labels: 1 for 2 steps"):
        one(labels=(True,))
    for label in (1, -100, 1.5, math.nan, "good", -0.1):
        with pytest.raises(DataError, match="is no label"):
            one(labels=(True, label))


@given(st.data())
def test_the_schema_of_trl_agrees_with_what_is_read(data):
    jsonschema = pytest.importorskip("jsonschema")
    from importlib.resources import files

    schema = json.loads(files("glore.formats").joinpath("trl_stepwise.v1.json").read_text())
    value = st.one_of(st.none(), st.booleans(), st.integers(-101, 2), st.floats(-1, 2), words)
    steps = data.draw(st.lists(st.one_of(words, st.just(3)), max_size=3))
    row = {
        "prompt": data.draw(st.one_of(words, st.none())),
        "completions": steps,
        "labels": data.draw(
            st.one_of(
                *(
                    st.lists(v, min_size=len(steps), max_size=len(steps))
                    for v in (hard, soft, value)
                )
            )
        ),
    }
    from glore.formats.fields import FieldError
    from glore.formats.layout import ReadOptions

    try:
        list(LAYOUTS["trl"].read(row, ReadOptions()))
        fits = True
    except FieldError:
        fits = False
    assert jsonschema.Draft202012Validator(schema).is_valid(row) == fits


@pytest.mark.skipif(not PROCESSBENCH_FILE.is_file(), reason="the real file is not here")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_real_processbench_comes_back_as_it_was(tmp_path, suffix):
    found = list(read_solutions(PROCESSBENCH_FILE))
    assert (len(found), sum(s.correct is True and False in s.labels for s in found)) == (400, 7)
    path, written = written_as(tmp_path, found, "processbench", suffix)
    assert (written.lost, list(read_solutions(path))) == ({}, found)
    if suffix == "json":
        assert json.loads(path.read_text()) == json.loads(PROCESSBENCH_FILE.read_text())
    plain, _ = written_as(tmp_path, found, "jsonl", suffix)
    assert list(read_solutions(plain)) == found
