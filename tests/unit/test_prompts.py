"""Steps and layouts: a solution is read back from its text; the mark stands only in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.prompts import (
    BAD_MARK,
    MAX_SOLUTION_CHARS,
    PromptLayout,
    StepFormat,
    lines_of,
    mark_draft,
    refine_segments,
    solve_segments,
    split_steps,
    step_text,
)

CASES = Path(__file__).parents[1] / "cases"
line = (
    st.text(
        st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20
    )
    .map(str.strip)
    .filter(bool)
)
steps = st.lists(line, max_size=6).map(tuple)


@given(steps)
def test_steps_survive_text_and_back(given_steps: tuple[str, ...]) -> None:
    assert split_steps("".join(map(step_text, given_steps))) == given_steps


def test_empty_lines_and_spaces_are_no_steps() -> None:
    assert split_steps("  a  \n\n \t\nb\r\n#### 3") == ("a", "b", "#### 3")
    assert split_steps("") == ()


@pytest.mark.parametrize(
    "case",
    json.loads((CASES / "steps.json").read_text(encoding="utf-8")),
    ids=lambda case: ascii(case["text"]),
)
def test_a_text_that_was_cut_wrongly_once(case: dict[str, object]) -> None:
    assert len(split_steps(str(case["text"]))) == case["n_steps"]


@given(
    st.lists(st.text(alphabet="ab \u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r", max_size=8), max_size=6),
    st.sampled_from(["\n", "\r\n"]),
)
def test_lines_end_at_newlines_alone(lines: list[str], end: str) -> None:
    steps = split_steps(end.join(lines))
    assert steps == tuple(line.strip() for line in lines if line.strip())
    assert split_steps("".join(map(step_text, steps))) == steps


def test_endless_output_is_cut() -> None:
    assert sum(map(len, split_steps("x" * (MAX_SOLUTION_CHARS + 5)))) == MAX_SOLUTION_CHARS


@given(steps, st.data())
def test_exactly_the_marked_step_is_marked(
    given_steps: tuple[str, ...], data: st.DataObject
) -> None:
    mark = data.draw(st.none() | st.integers(0, max(0, len(given_steps) - 1)))
    marked = mark_draft(given_steps, mark)
    assert [i for i, s in enumerate(marked) if s == BAD_MARK] == (
        [mark] if mark is not None and given_steps else []
    )
    assert tuple(s.strip() for s in marked if s != BAD_MARK) == given_steps
    assert "".join(marked) == "".join(
        f"{'[BAD] ' if i == mark else ''}{s}\n" for i, s in enumerate(given_steps)
    )


def test_a_mark_the_model_wrote_is_removed() -> None:
    assert mark_draft(("[BAD] a", "b [BAD] c"), 1) == ("a\n", "[BAD]", " b  c\n")


@given(line, steps, st.sampled_from((BAD_MARK, f"{BAD_MARK} x", "[B[BAD]AD]", "")), st.booleans())
def test_no_question_or_step_passes_for_the_mark(
    question: str, given_steps: tuple[str, ...], fake: str, in_question: bool
) -> None:
    question, draft = (fake, given_steps) if in_question else (question, (fake, *given_steps))
    assert BAD_MARK not in solve_segments(question, draft)
    assert BAD_MARK not in refine_segments(question, draft, None)
    assert refine_segments(question, draft, len(draft) - 1).count(BAD_MARK) == bool(draft)


def test_layouts() -> None:
    assert solve_segments(" How many? ", ("a", "b")) == (
        "Question: How many?\nAnswer:\n",
        "a\n",
        "b\n",
    )
    assert refine_segments("Q", ("a", "b"), 1) == (
        "Question: Q\nDraft:\n",
        "a\n",
        "[BAD]",
        " b\n",
        "Answer:\n",
    )


@given(line, steps)
def test_a_prefix_has_a_prefix_of_the_segments(question: str, given_steps: tuple[str, ...]) -> None:
    whole = solve_segments(question, given_steps)
    for i in range(len(given_steps) + 1):
        assert solve_segments(question, given_steps[:i]) == whole[: i + 1]


paragraph = st.lists(line, min_size=1, max_size=3).map("\n".join)


@given(st.lists(paragraph, max_size=5).map(tuple))
def test_paragraphs_survive_text_and_back(given_steps: tuple[str, ...]) -> None:
    paragraphs = StepFormat("\n\n")
    text = "".join(map(paragraphs.text, given_steps))
    assert paragraphs.split(text) == given_steps
    assert lines_of(given_steps) == split_steps(text)
    assert paragraphs.split(text.replace("\n", "\r\n")) == given_steps


def test_a_paragraph_ends_at_an_empty_line() -> None:
    paragraphs = StepFormat("\n\n")
    assert paragraphs.split("\n\n  a \n  b\n \t\n\n\nc\n#### 3") == ("a\n  b", "c\n#### 3")
    assert PromptLayout(paragraphs).solve("Q", ("a\nb",)) == ("Question: Q\nAnswer:\n", "a\nb\n\n")
    assert mark_draft(("a", "b\nc"), 1, "\n\n") == ("a\n\n", "[BAD]", " b\nc\n\n")


@pytest.mark.parametrize(
    ("text", "steps", "thought"),
    [
        ("a\nb", ("a", "b"), ""),
        ("<think>\nhm\n\nso\n</think>\n\na\nb", ("a", "b"), "hm\n\nso"),
        ("a <think>hm</think> b\n<think>so</think>c", ("a  b", "c"), "hm\nso"),
        ("a\n<think>never closed\n#### 3", ("a",), "never closed\n#### 3"),
        ("opened by the prompt</think>\na", ("a",), "opened by the prompt"),
        ("hm</think>a<think>so</think>b", ("a", "b"), "hm\nso"),
        ("#### 5<think>so</think>6", ("#### 5", "6"), "so"),
        ("<think>hm</think>so</think>a", ("a",), "hm\nso"),
        ("<think>hm<think>so</think>or</think>a", ("a",), "hm<think>so\nor"),
        ("a</think></think>b<think>", ("b",), "a"),
        ("<think></think>a", ("a",), ""),
        ("", (), ""),
    ],
)
def test_thoughts_apart(text: str, steps: tuple[str, ...], thought: str) -> None:
    read = StepFormat(think_apart=True).read(text)
    assert (read.steps, read.thought, read.n_cut) == (steps, thought, 0)
    assert StepFormat().read(text).steps == split_steps(text), "kept: part of the steps"


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", "<th"]), max_size=12))
def test_no_tag_is_left_where_thoughts_are_apart(pieces: list[str]) -> None:
    text = "".join(pieces)
    read = StepFormat(think_apart=True).read(text)
    assert not any(mark in step for mark in ("<think>", "</think>") for step in read.steps)
    kept = "".join("".join((*read.steps, read.thought)).split())
    assert sorted(kept.replace("<think>", "").replace("</think>", "")) == sorted(
        "".join(text.split()).replace("<think>", "").replace("</think>", "")
    ), "no other letter is lost"


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "b ", "\n"]), max_size=12))
def test_what_is_said_has_its_places_in_the_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    for form in (StepFormat(), StepFormat(think_apart=True)):
        said = form.said(text)
        assert len(said.ends) == len(said.text) + 1
        for n, letter in enumerate(said.text, start=1):
            # A line break parts what touches without the thought between.
            assert letter == "\n" or text[said.ends[n] - 1] == letter
            assert said.ends[n] >= said.ends[n - 1]
    assert StepFormat().said(text).text == text


def test_what_is_cut_off_a_long_solution_is_counted_and_a_thought_is_not_part_of_it() -> None:
    short = StepFormat(think_apart=True, max_chars=100)
    read = short.read("<think>" + "t" * 500 + "</think>" + "x" * 130)
    assert (read.steps, len(read.thought), read.n_cut) == (("x" * 100,), 500, 30)
    assert StepFormat().read("x" * (MAX_SOLUTION_CHARS + 5)).n_cut == 5
