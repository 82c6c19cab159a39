"""Tasks on given data: what they read, and the messages for what can't be read."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import NoReturn

import pytest

from glore.config import TaskSettings
from glore.errors import ConfigError, DataError
from glore.pipeline.fingerprints import digest_of_files
from glore.records import Problem
from glore.tasks import Grade, Task, open_task
from glore.tasks.data.columnar import MAX_LINE_BYTES
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.grading.latex import LatexChecker
from glore.tasks.open import data_contents


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def folder(path: Path, train: bytes, test: bytes) -> Path:
    (path / "train.jsonl").write_bytes(train)
    (path / "test.jsonl").write_bytes(test)
    return path


def opened(kind: str, path: Path, **settings: object) -> Task:
    return open_task(
        TaskSettings.model_validate({"kind": kind, "path": str(path), "n_dev": 1, **settings}),
        seed=0,
    )


def everything(task: Task) -> dict[str, Problem]:
    return {
        problem.question: problem
        for split in ("train", "dev", "test")
        for problem in task.problems(split)
    }


GSM = [
    {"question": f"Q{i}?", "answer": f"{i}+{i} = <<{i}+{i}={2 * i}>>{2 * i},\nso\n#### {2 * i:,}"}
    for i in range(498, 502)
]
USER = [{"question": f"q{i}", "answer": i} for i in range(5)]
USER_TEST = lines({"question": "t", "answer": "5"})


def test_gsm8k_steps_annotations_and_merging(tmp_path: Path) -> None:
    folder(tmp_path, lines(*GSM), lines({"question": "T?", "answer": "#### $-3"}))
    problem = everything(opened("gsm8k", tmp_path))["Q500?"]
    assert problem.id == "gsm8k-train-00003"
    assert problem.answer == "1000"
    assert problem.solution == ("500+500 = <<500+500=1000>>1000,", "so", "#### 1,000")
    assert everything(opened("gsm8k", tmp_path))["T?"].answer == "-3"
    other = everything(opened("gsm8k", tmp_path, keep_annotations=False, merge_answer_line=True))[
        "Q500?"
    ]
    assert other.solution == ("500+500 = 1000,", "so #### 1,000")


def test_svamp_array_and_hub_layout(tmp_path: Path) -> None:
    rows = [
        {
            "ID": f"chal-{i}",
            "Body": f"Tom had {i} pens",
            "Question": "How many?",
            "Equation": f"{i}.0",
            "Answer": float(i),
        }
        for i in range(1, 11)
    ]
    (tmp_path / "SVAMP.json").write_text(json.dumps(rows, indent=1))
    task = opened("svamp", tmp_path)
    assert [len(task.problems(s)) for s in ("train", "dev", "test")] == [6, 1, 3]
    assert [p.id for p in task.problems("test")] == [
        "svamp-chal-8",
        "svamp-chal-9",
        "svamp-chal-10",
    ]
    assert task.problems("test")[0] == Problem(
        "svamp-chal-8", "Tom had 8 pens. How many?", "8", None, "test"
    )
    folder(tmp_path, lines(*rows[:7]), lines(*rows[7:]))
    (tmp_path / "SVAMP.json").unlink()
    assert everything(opened("svamp", tmp_path)) == everything(task)


def test_math_reads_boxes_and_grades_latex(tmp_path: Path) -> None:
    rows = [
        {"problem": f"p{i}", "solution": f"Clearly\n$x = \\boxed{{\\frac{{{i}\\pi}}{{7}}}}$."}
        for i in range(3)
    ]
    rows += [
        {"problem": "even?", "solution": "It is \\boxed{\\text{even}}."},
        {"problem": "word", "solution": "", "answer": "even"},
    ]
    rows[-1]["solution"] = "Even."
    task = opened("math", folder(tmp_path, lines(*rows[:-2]), lines(*rows[-2:])))
    assert isinstance(task, DatasetTask)
    task.checker = LatexChecker(
        limit_seconds=60
    )  # the usual limit is too short on a machine that is busy with other work
    problem = everything(task)["p2"]
    assert problem.answer == r"\frac{2\pi}{7}"
    assert problem.solution == ("Clearly", r"$x = \boxed{\frac{2\pi}{7}}$.", r"#### \frac{2\pi}{7}")
    assert task.grade(problem, [r"so $\boxed{2\pi/7}$"]).verdict == "right"
    assert task.grade(problem, [r"#### \frac{\pi}{7}"]).verdict == "wrong"
    for word in ("even?", "word"):
        assert task.grade(everything(task)[word], ["#### Even"]).verdict == "right"
    task.close()


def test_math_refuses_an_answer_that_is_not_the_boxed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(boxed: str, answer: str) -> bytes:
        return lines({"problem": "p", "solution": f"So \\boxed{{{boxed}}}.", "answer": answer})

    test = lines({"problem": "t", "solution": "\\boxed{x+1}", "answer": "x + 1"})
    with monkeypatch.context() as patch:
        patch.setattr(
            LatexChecker,
            "check",
            lambda *_: pytest.fail("equal texts and numbers need no slow checker"),
        )
        for boxed, answer in (("3", "3.0"), ("\\frac{1}{2}", "0.5"), ("even", "\\text{Even}")):
            opened(
                "math",
                folder(
                    tmp_path,
                    row(boxed, answer) + lines({"problem": "q", "solution": "\\boxed{3}"}),
                    test,
                ),
            )
        with pytest.raises(
            DataError,
            match=r"line 1: the field 'solution' has '3' in its .*, but 'answer' is '4'; "
            r"correct one of them",
        ) as caught:
            opened("math", folder(tmp_path, row("3", "4"), test))
    assert str(tmp_path / "train.jsonl") in str(caught.value)
    monkeypatch.setattr(
        LatexChecker, "check", lambda self, gold, found: "right" if "frac" in gold else "wrong"
    )
    more = lines(
        {"problem": "q", "solution": "\\boxed{3}, \\boxed{5}", "answer": "3,5"},
        {"problem": "r", "solution": "Three.", "answer": 3},
    )
    opened("math", folder(tmp_path, row("x/2", "\\frac x2") + more, test))
    with pytest.raises(DataError, match=r"line 1: .* 'x\+2' in its"):
        opened("math", folder(tmp_path, row("x+2", "x+1") + more, test))


def test_math_grades_answers_without_a_backslash(tmp_path: Path) -> None:
    rows = [{"problem": f"p{i}", "solution": f"\\boxed{{x+{i}}}"} for i in range(3)]
    task = opened(
        "math",
        folder(tmp_path, lines(*rows), lines({"problem": "t", "solution": "\\boxed{Friday}"})),
    )
    assert isinstance(task, DatasetTask)
    task.checker = LatexChecker(limit_seconds=60)
    found = everything(task)
    assert (found["p2"].answer, found["t"].answer) == ("x+2", "Friday")
    assert [task.grade(found["p2"], [f"#### {text}"]).verdict for text in ("2 + x", "x+1")] == [
        "right",
        "wrong",
    ]
    assert [task.grade(found["t"], [f"#### {text}"]).verdict for text in ("friday", "Monday")] == [
        "right",
        "wrong",
    ]
    task.close()


def test_users_own_file(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "answer": 18, "solution": "9 + 9 = 18", "id": "mine"},
        {"question": "b", "answer": "1,234", "solution": "1000 + 234 = 1,234\r\n#### 1234\n"},
        {"question": "c", "answer": 2.50, "solution": None},
    ]
    found = everything(
        opened(
            "jsonl",
            folder(
                tmp_path,
                b"\xef\xbb\xbf" + lines(*rows).replace(b"\n", b"\r\n") + b"\r\n\n",
                USER_TEST,
            ),
        )
    )
    assert found["a"] == Problem("mine", "a", "18", ("9 + 9 = 18", "#### 18"), found["a"].split)
    assert found["b"].solution == ("1000 + 234 = 1,234", "#### 1234")
    assert (found["c"].answer, found["c"].solution, found["c"].id) == (
        "2.5",
        None,
        "jsonl-train-00003",
    )
    (tmp_path / "all.jsonl").write_bytes(
        lines(*({"question": str(i), "answer": i} for i in range(10)))
    )
    task = opened("jsonl", tmp_path / "all.jsonl")
    assert [len(task.problems(s)) for s in ("train", "dev", "test")] == [7, 1, 2]
    assert task.grade(task.problems("test")[0], ["#### x"]) == Grade("unknown", "x")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (b"", "has no problems"),
        (b"\n\r\n", "has no problems"),
        (b'{"question": "x", "answer"', "line 1: not valid JSON"),
        (b'{"question": "x", "answer": NaN}', "line 1: not usable JSON"),
        (b'{"question": "x", "answer": ' + b"9" * 5000 + b"}", "line 1: not usable JSON"),
        (b"[" * 100_000, "line 1: not usable JSON .nested too deeply"),
        (b"[1, 2]", "line 1: a problem is a JSON object with named fields, got"),
        (
            b'{"question": "x"}',
            "line 1: the field 'answer' is missing .the row has: question.; add it",
        ),
        (
            b'{"question": "x", "\\u001b[31m\\n' + b"n" * 900 + b'": 5}',
            r"line 1: .* .the row has:  \[31m n{34}…, question.; add it",
        ),
        (b'{"question": 5, "answer": 5}', "line 1: the field 'question' must be a text, got 5"),
        (
            b'{"question": "x", "answer": true}',
            "line 1: the field 'answer' must be a text, got True",
        ),
        (b'{"question": "x", "answer": ["5"]}', "line 1: the field 'answer' must be a text"),
        (b'{"question": " ", "answer": 5}', "line 1: the field 'question' is empty"),
        (
            b'{"question": "x", "answer": "1+1\\n#### 2"}',
            "move everything before '####' to the field 'solution'",
        ),
        (
            b'{"question": "x", "answer": 1e999999999}',
            "line 1: the field 'answer' is '1E.999999999', a number too long or",
        ),
        (
            b'{"question": "x", "answer": 2, "solution": "#### 3"}',
            "line 1: the field 'solution' ends in '3', but 'answer' is '2'",
        ),
        (
            b'{"question": "\\ud800", "answer": 2}',
            "line 1: the field 'question' has half a Unicode character",
        ),
        (
            b'{"question": "caf\xe9", "answer": 2}',
            "line 1: byte 18 is not UTF-8; save the file as UTF-8",
        ),
        (
            b'{"question": "' + b"x" * MAX_LINE_BYTES + b'", "answer": 2}',
            "line 1: longer than 1024 KiB",
        ),
        (
            b'{"question": "x", "answer": 2, "solution": "' + b"x" * 20_001 + b'"}',
            "the field 'solution' has 200",
        ),
        (
            b'{"question": "T", "answer": 5}\n' + lines(*USER),
            "line 1: this question is also in .*test.jsonl, line 1",
        ),
        (
            b'{"question": "x", "answer": 5, "id": "a"}\n{"question": "y", "answer": 5, "id": "a"}',
            "line 2: the field 'id' is 'a' as in .*line 1",
        ),
    ],
)
def test_malformed_files_name_file_line_field_and_mend(
    tmp_path: Path, row: bytes, complaint: str
) -> None:
    folder(tmp_path, row, USER_TEST)
    with pytest.raises(DataError, match=complaint) as caught:
        opened("jsonl", tmp_path)
    assert str(tmp_path / "train.jsonl") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("5", "must be one JSON array of problems, or one object per line, got '5'"),
        ("{}", "line 1: the field 'Body' is missing"),
        ('[{"ID": "a"}] 5', "line 1: the JSON array is cut off"),
        (
            '[{"Body": "x", "Body": "y"}]',
            "line 1: not usable JSON .*the field Body is there twice",
        ),
        ("", "must be one JSON array"),
        ("[]", "has no problems"),
        ('[\n{"ID": "a"},\n{"ID"', "line 3: not valid JSON"),
        ('[\n{"ID": "a"}\n', "line 3: the JSON array is cut off"),
        ("[\n\n5]", "line 3: a problem is a JSON object"),
        ('[\n{"Body": "x", "Answer": 1}]', "line 2: the field 'Question' is missing"),
        (
            '[{"Body": "x", "Question": "y", "Answer": "z"}]',
            "line 1: the field 'Answer' is 'z', not one number",
        ),
    ],
)
def test_malformed_array(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "SVAMP.json").write_text(text)
    with pytest.raises(DataError, match=complaint):
        opened("svamp", tmp_path)


def test_the_content_of_local_data_is_what_a_task_reads(tmp_path: Path) -> None:
    def content(**settings: object) -> dict[str, str | None]:
        return data_contents(
            TaskSettings.model_validate({"kind": "svamp", "path": str(tmp_path), **settings}),
            base_text=True,
        )

    folder(tmp_path, b"a\n", b"b\n")
    seen = [content()["task.path"]]
    assert content() == {"task.path": seen[0]}
    (tmp_path / "notes.txt").write_text("read by nobody")
    assert content()["task.path"] == seen[0]
    for change in (
        lambda: (tmp_path / "train.jsonl").write_bytes(b"c\n"),
        lambda: (tmp_path / "dev.jsonl").write_bytes(b""),
        lambda: (tmp_path / "dev.jsonl").rename(tmp_path / "test.jsonl"),
        lambda: (tmp_path / "SVAMP.json").write_bytes(b"[]"),
    ):
        change()
        seen.append(content()["task.path"])
    assert len(set(seen)) == 5
    gsm8k = content(kind="gsm8k")
    (tmp_path / "SVAMP.json").write_bytes(b"[1]")
    assert content(kind="gsm8k") == gsm8k, "another task's file"
    file = str(tmp_path / "test.jsonl")
    assert content(path=file, scratch_path=str(tmp_path / "none.csv")) == {
        "task.path": content(path=file)["task.path"],
        "task.scratch_path": None,
    }
    assert content(kind="stories", path=None) == content(path=None, hub="some/data") == {}


def test_every_byte_and_name_counts_for_a_digest(tmp_path: Path) -> None:
    file, digests = tmp_path / "x", set()
    for content in (
        b"",
        b"a" * 2**21,
        b"b" + b"a" * (2**21 - 1),
        b"a" * (2**21 - 1) + b"b",
        b"a" * 2**21 + b"a",
    ):
        file.write_bytes(content)
        digests.add(digest_of_files({"": file}))
    assert len(digests) == 5
    assert digest_of_files({"x": file}) not in digests
    with pytest.raises(
        DataError,
        match=r"can't read .*none: No such file or directory; check the settings below task",
    ):
        digest_of_files({"": tmp_path / "none"})


def test_missing_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist; give the folder"):
        opened("gsm8k", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"lacks train.jsonl and test.jsonl"):
        opened("gsm8k", tmp_path)
    (tmp_path / "one.jsonl").write_bytes(lines(*GSM))
    with pytest.raises(DataError, match=r"is a file, but gsm8k needs the folder"):
        opened("gsm8k", tmp_path / "one.jsonl")
    with pytest.raises(ConfigError, match=r"needs task.path"):
        open_task(TaskSettings(kind="jsonl"), seed=0)
    with pytest.raises(DataError, match="has no final line '#### number'; add it"):
        opened("gsm8k", folder(tmp_path, lines({"question": "x", "answer": "2"}), USER_TEST))
    with pytest.raises(DataError, match="ends in 'two', which is not one number"):
        opened("gsm8k", folder(tmp_path, lines({"question": "x", "answer": "#### two"}), USER_TEST))


def test_an_unreachable_hub_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> NoReturn:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"openai/gsm8k.*set task.path to local files"):
        open_task(TaskSettings(kind="gsm8k"), seed=0)
    assert time.perf_counter() - start < 10
