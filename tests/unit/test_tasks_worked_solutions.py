"""Answers that load, answers that don't, and worked solutions that contradict the answer beside
them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glore.config import TaskSettings
from glore.errors import DataError
from glore.prompts import LINES, PARAGRAPH_END, StepFormat
from glore.tasks import Task, open_task
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.grading.latex import LatexChecker

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "cases" / "data.jsonl")
    .read_text(encoding="utf-8")
    .split("\n")
    if line
]


def loaded(
    path: Path,
    row: dict[str, object],
    kind: str = "jsonl",
    form: StepFormat = LINES,
    **settings: object,
) -> Task:
    """A task whose first training question is `row`."""
    names = {
        "jsonl": ("question", "answer"),
        "math": ("problem", "answer"),
        "gsm8k": ("question", "answer"),
    }[kind]
    other = ["5", "#### 5"][kind == "gsm8k"]
    more = [dict(zip(names, (f"q{i}", other), strict=True)) for i in range(3)]
    (path / "train.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in [row, *more]), encoding="utf-8"
    )
    (path / "test.jsonl").write_text(
        json.dumps(dict(zip(names, ("t", other), strict=True))) + "\n", encoding="utf-8"
    )
    return open_task(
        TaskSettings.model_validate({"kind": kind, "path": str(path), "n_dev": 1, **settings}),
        0,
        form,
    )


def the_answer(task: Task, row: dict[str, object]) -> str:
    question = row.get("question", row.get("problem"))
    return next(
        p.answer
        for split in ("train", "dev")
        for p in task.problems(split)
        if p.question == question
    )


def refused(path: Path, row: dict[str, object], kind: str = "jsonl") -> str:
    with pytest.raises(DataError) as caught:
        loaded(path, row, kind)
    message = str(caught.value)
    assert message.startswith(f"{path / 'train.jsonl'}, line 1: ")
    assert "\n" not in message
    assert len(message) < 500
    return message


@pytest.mark.parametrize("case", CASES, ids=[str(c["row"]) for c in CASES])
def test_cases_that_failed_once(tmp_path: Path, case: dict[str, object]) -> None:
    row = case["row"]
    assert isinstance(row, dict)
    kind = "math" if "problem" in row else "jsonl"
    if case["expect"] == "error":
        assert "the field 'solution'" in refused(tmp_path, row, kind)
    else:
        assert the_answer(loaded(tmp_path, row, kind), row) == row["answer"]


@pytest.mark.parametrize(
    ("answer", "gold", "right", "wrong"),
    [
        ("Yes", "Yes", "yes", "No"),
        ("A", "A", "(A)", "B"),
        ("all real numbers", "all real numbers", "All real numbers.", "12"),
        ("blue", "blue", "Blue", "red"),
        ("x+1", "x+1", "1+x", "x+2"),
        ("1:9", "1:9", "1 : 9", None),
        ("∞", "∞", "∞", None),
        ("(1, 2]", "(1, 2]", "(1,2]", None),
        ("5 and 6", "5 and 6", "5 and 6", None),
        ("\\boxed{Friday}", "Friday", "friday", "Monday"),
        ("1,234", "1234", "1234", "1235"),
        (12, "12", "12.0", "13"),
        ("\\{1, 2\\}", "\\{1, 2\\}", "\\{1,2\\}", None),
    ],
)
def test_what_can_be_judged_loads_and_is_judged(
    tmp_path: Path, answer: object, gold: str, right: str, wrong: str | None
) -> None:
    row = {"question": "q?", "answer": answer}
    task = loaded(tmp_path, row)
    assert isinstance(task, DatasetTask)
    if task.checker is not None:
        task.close()
        task.checker = LatexChecker(
            limit_seconds=60
        )  # the usual limit is too short on a machine that is busy with other work
    problem = next(
        p for split in ("train", "dev") for p in task.problems(split) if p.question == "q?"
    )
    assert problem.answer == gold
    assert task.grade(problem, [f"#### {right}"]).verdict == "right"
    if wrong is not None:
        assert task.grade(problem, [f"#### {wrong}"]).verdict == "wrong"
    task.close()


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("1+1\n#### 2", "move everything before '####' to the field 'solution'"),
        ("\\frac{4}{2}\n#### 2", "move everything before '####' to the field 'solution'"),
        ("1 + 1 is\n2", "several lines; write only the final answer, without the working"),
        (
            "3 + 4 = 7, so she has 7 apples and 2 pears.",
            "numbers among words, .* write only the final answer",
        ),
        ("she goes " * 200, "longer than 1000 characters"),
        ("9" * 400, "too long or too large to be compared .at most 100 digits.; round it"),
        ("1e5000", "too long or too large"),
        ("nan", "stands for a missing value"),
        ("…?", "no letter, digit or symbol; write the answer"),
        ("\\frac{1}{2", "braces are not balanced; correct it"),
    ],
)
def test_what_no_grader_can_judge_is_refused_with_a_hint_that_fits(
    tmp_path: Path, answer: str, hint: str
) -> None:
    message = refused(tmp_path, {"question": "q?", "answer": answer})
    assert "the field 'answer' is " in message
    with pytest.raises(DataError, match=hint):
        loaded(tmp_path, {"question": "q?", "answer": answer})


@pytest.mark.parametrize(
    ("kind", "row", "complaint"),
    [
        (
            "jsonl",
            {"question": "q", "answer": 12, "solution": "So \\boxed{13}."},
            "'solution' has '13' in its",
        ),
        (
            "jsonl",
            {"question": "q", "answer": 12, "solution": "So \\boxed{13}.\n#### 12"},
            "'solution' has '13' in its",
        ),
        (
            "jsonl",
            {"question": "q", "answer": 12, "solution": "\\boxed{12}, no: \\fbox{x} \\boxed 13"},
            "'solution' has '13'",
        ),
        (
            "jsonl",
            {"question": "q", "answer": "1/2", "solution": "\\boxed{\\frac{1}{3}}"},
            "but 'answer' is '0.5'; correct one",
        ),
        (
            "jsonl",
            {"question": "q", "answer": "Yes", "solution": "\\boxed{\\text{No}}"},
            "but 'answer' is 'Yes'",
        ),
        (
            "jsonl",
            {"question": "q", "answer": 12, "solution": "12\n#### 13"},
            "ends in '13', but 'answer' is '12'",
        ),
        (
            "math",
            {"problem": "q", "answer": "12", "solution": "So \\boxed{13}."},
            "'solution' has '13'",
        ),
        ("math", {"problem": "q", "solution": "So \\boxed{13}.\n#### 12"}, "ends in '12'"),
        (
            "math",
            {"problem": "q", "solution": "So it is."},
            "neither a field 'answer' nor a .boxed",
        ),
        ("math", {"problem": "q", "solution": " ", "answer": " "}, "the field 'solution' is empty"),
        (
            "gsm8k",
            {"question": "q", "answer": "So \\boxed{13}.\n#### 12"},
            "'answer' has '13' .* but the line after '####' is '12'",
        ),
    ],
)
def test_a_solution_that_contradicts_the_answer_is_refused(
    tmp_path: Path, kind: str, row: dict[str, object], complaint: str
) -> None:
    refused(tmp_path, row, kind)
    with pytest.raises(DataError, match=complaint):
        loaded(tmp_path, row, kind)


@pytest.mark.parametrize(
    ("kind", "row", "steps"),
    [
        (
            "jsonl",
            {"question": "q", "answer": 12, "solution": "So \\boxed{12}."},
            ("So \\boxed{12}.", "#### 12"),
        ),
        (
            "jsonl",
            {"question": "q", "answer": 12, "solution": "\\boxed{3}, then\n\\boxed{12.0}"},
            ("\\boxed{3}, then", "\\boxed{12.0}", "#### 12"),
        ),
        (
            "jsonl",
            {"question": "q", "answer": "3, 5", "solution": "\\boxed{3} and \\boxed{5}"},
            ("\\boxed{3} and \\boxed{5}", "#### 3, 5"),
        ),
        (
            "jsonl",
            {"question": "q", "answer": "x +\n\\pi", "solution": "a"},
            ("a", "#### x + \\pi"),
        ),
        ("math", {"problem": "q", "answer": "12", "solution": "So\n#### 12"}, ("So", "#### 12")),
        ("math", {"problem": "q", "answer": "12", "solution": None}, None),
        ("math", {"problem": "q", "answer": "12", "solution": ""}, None),
        (
            "gsm8k",
            {"question": "q", "answer": "So \\boxed{12}.\n#### 12"},
            ("So \\boxed{12}.", "#### 12"),
        ),
    ],
)
def test_a_solution_that_agrees_ends_in_the_answer_line(
    tmp_path: Path, kind: str, row: dict[str, object], steps: object
) -> None:
    task = loaded(tmp_path, row, kind)
    found = [
        p.solution for split in ("train", "dev") for p in task.problems(split) if p.question == "q"
    ]
    assert found == [steps]


def test_math_loads_answers_alone(tmp_path: Path) -> None:
    task = loaded(tmp_path, {"problem": "p?", "answer": "\\frac{1}{2}"}, "math")
    assert (
        sum(p.solution is None for split in ("train", "dev", "test") for p in task.problems(split))
        == 5
    )
    assert the_answer(task, {"problem": "p?"}) == "0.5"


PARAGRAPHS = StepFormat(PARAGRAPH_END)
APART = StepFormat(PARAGRAPH_END, think_apart=True)


@pytest.mark.parametrize("kind", ["jsonl", "gsm8k", "math"])
@pytest.mark.parametrize(
    ("form", "text", "steps"),
    [
        (PARAGRAPHS, "A.\nB.\n\nC.\n \n\n#### 5", ("A.\nB.", "C.", "#### 5")),
        (PARAGRAPHS, "A.\nB.\n#### 5", ("A.", "B.", "#### 5")),
        (LINES, "A.\nB.\n\nC.\n\n#### 5", ("A.", "B.", "C.", "#### 5")),
        (APART, "<think>\n#### 7\n\nno\n</think>\n\nA.\nB.\n\n#### 5", ("A.\nB.", "#### 5")),
        (APART, "A.\n\n<think>so</think>\n\nB.\n\n#### 5", ("A.", "B.", "#### 5")),
        (APART, "A.\n\n#### 5\n<think>all</think>", ("A.", "#### 5")),
        (
            PARAGRAPHS,
            "<think>\nhm\n\nso\n</think>\n\n#### 5",
            ("<think>\nhm", "so\n</think>", "#### 5"),
        ),
    ],
)
def test_a_worked_solution_is_cut_as_the_models_own_are(
    tmp_path: Path, kind: str, form: StepFormat, text: str, steps: tuple[str, ...]
) -> None:
    """Paragraphs where it has several; a thought that is kept apart is no step and no answer."""
    row = {"question": "q", "answer": "5", "solution": text}
    if kind == "math":
        row["problem"] = row.pop("question")
    if kind == "gsm8k":
        row["answer"] = row.pop("solution")
    task = loaded(tmp_path, row, kind, form)
    (found,) = (p for s in ("train", "dev") for p in task.problems(s) if p.question == "q")
    assert (found.solution, found.answer) == (steps, "5")


def test_a_worked_solution_may_be_as_long_as_a_models_own(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "5", "solution": "word " * 5000 + "\n#### 5"}
    assert "at most 20000 are read, so shorten it, or raise prompt.max_solution_chars" in refused(
        tmp_path, row
    )
    task = loaded(tmp_path, row, form=StepFormat(max_chars=30_000))
    assert any(p.question == "q" for split in ("train", "dev") for p in task.problems(split))
