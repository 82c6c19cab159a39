"""The command line over small stages: what it prints, where its questions come from, and its JSONL
output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FAILING_REFINER = """
from support import small_glore
from glore.cli import main
from glore.errors import EngineError

works = small_glore.Refiner.refine


def refine(self, questions):
    for number, question in enumerate(questions):
        if question.startswith("long"):
            raise EngineError(f"request 'q{number}/local': the prompt has 900 tokens; shorten it")
    return works(self, questions)


small_glore.Refiner.refine = refine
main()
"""


def glore(
    folder: Path,
    *arguments: str,
    stdin: str = "",
    script: Path = TESTS / "support" / "small_glore.py",
) -> subprocess.CompletedProcess[str]:
    """In the texts that go in, `\\udcXX` stands for the byte XX."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        input=stdin,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its finished run."""
    path = tmp_path_factory.mktemp("cli")
    (path / "r.yaml").write_text("name: small\n")
    done = glore(path, "run", "r.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the tables\nreport: runs/small/report/index.html\n"
    return path


def test_the_dry_run_says_what_and_why(folder: Path) -> None:
    done = glore(folder, "run", "r.yaml", "student.sft.learning_rate=0.1", "--dry-run")
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.strip("│┃").split("│")]
        for line in done.stdout.splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ["task", "reused", "complete", "", ""],
        ["sample", "reused", "complete", "", ""],
        ["train", "computed", "student.sft.learning_rate 5e-05 → 0.1", "200", ""],
        ["evaluate", "computed", "made from another train", "", ""],
        ["total", "2 of 4 to do", "", "200", ""],
    ]
    assert "questions: 3,000 train, 300 dev, 600 test" in done.stdout
    assert "disk: 2 models, " in done.stdout


def test_until_says_how_to_look(folder: Path) -> None:
    done = glore(folder, "run", "r.yaml", "name=part", "--until", "sample")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done up to sample; see: glore show runs/part\n"
    shown = glore(folder, "show", "part").stdout
    assert "wrong 6" in shown
    assert "no result yet" in shown


@pytest.mark.parametrize("name", ["small", "runs/small", "runs/small/"])
def test_show_gives_stages_counts_tokens_time(folder: Path, name: str) -> None:
    done = glore(folder, "show", name)
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in done.stdout.splitlines()
        if line.startswith("│")
    ]
    assert [row[:4] for row in rows] == [
        ["task", "done", "problems 7", ""],
        ["sample", "done", "wrong 6", "100"],
        ["train", "done", "", "200"],
        ["evaluate", "done", "accuracy 0.5", ""],
        ["total", "", "", "300"],
    ]


def test_a_moved_run_is_still_a_run(folder: Path) -> None:
    glore(folder, "run", "r.yaml", "name=moving")
    (folder / "runs" / "moving").rename(folder / "moved elsewhere")
    done = glore(folder, "show", "moved elsewhere")
    assert done.stdout.count("done") == 4
    assert glore(folder / "moved elsewhere", "show", ".").stdout.count("done") == 4


def test_refine_shows_every_value_as_plain_text(folder: Path) -> None:
    done = glore(folder, "refine", "small", "What is 1 + 1?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n").split("\n") == [
        "Question  What is 1 + 1?",
        "Draft     needs work; a step's probability of being good, by ORM and SORM",
        "       0.90 0.90  1 + 1 = [bold]3[/]  [2J",
        " [BAD] 0.20 0.10  #### 3",
        "Draft     score 0.20",
        "Local     score 0.80, chosen",
        "                  1 + 1 = 2",
        "                  #### 2",
        "Answer    2",
    ]


def test_refine_by_a_cascade(folder: Path) -> None:
    done = glore(folder, "refine", "small", "--cascade", "2", "What is 1 + 1?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n").split("\n") == [
        "Question  What is 1 + 1?",
        "Draft     needs work; a step's probability of being good, by ORM",
        "       0.90       1 + 1 = [bold]3[/]  [2J",
        "       0.20       #### 3",
        "Draft     score 0.20",
        "Sample    score 0.30, chosen",
        "                  1 + 1 = 2",
        "                  #### 2",
        "Sample    score 0.30",
        "                  1 + 1 = 2",
        "                  #### 2",
        "Answer    2",
    ]
    lines = glore(folder, "refine", "small", "--cascade", "0", "--jsonl", "q").stdout
    assert json.loads(lines)["candidate_kinds"] == ["draft"]
    refused = glore(folder, "refine", "small", "--cascade", "-1", "q")
    assert refused.returncode == 2
    assert "Invalid value for '--cascade': " in refused.stderr  # the rest is typer's, by version


def test_jsonl_in_and_out(folder: Path) -> None:
    lines = "".join(json.dumps({"id": i, "question": f"q{i}"}) + "\n" for i in range(70))
    (folder / "q.jsonl").write_text(lines)
    for done in (
        glore(folder, "refine", "small", "--jsonl", "--file", "q.jsonl"),
        glore(folder, "refine", "small", "--jsonl", stdin=lines),
    ):
        assert done.returncode == 0, done.stderr
        out = [json.loads(line) for line in done.stdout.splitlines()]
        assert [r["question"] for r in out] == [f"q{i}" for i in range(70)]
        assert out[0]["candidates"][1] == ["1 + 1 = 2", "#### 2"]
        assert (out[0]["marked_step"], out[0]["chosen"]) == (1, 1)
        assert [r["problem_id"] for r in out] == [str(i) for i in range(70)]


def test_ids_are_unique_over_the_whole_input(folder: Path) -> None:
    lines = "".join(
        json.dumps({"question": f"q{i}"} | ({"id": "mine"} if i == 3 else {})) + "\n"
        for i in range(70)
    )
    done = glore(folder, "refine", "small", "--jsonl", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["problem_id"] for line in done.stdout.splitlines()] == [
        "mine" if i == 3 else f"q{i}" for i in range(70)
    ]


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("Ann has 3 apples.\nHow many has she?\n", ["Ann has 3 apples.\nHow many has she?"]),
        ("[3] apples: how many?", ["[3] apples: how many?"]),
        ("\ufeffHow many?", ["How many?"]),
        (
            '\ufeff{"question": "a"}\r\n\r\n{"question": "b\u2028c", "solutoin": 1}',
            ["a", "b\u2028c"],
        ),
        ('{"question": "a\x85\u2029b"}\n{"question": "c"}', ["a\x85\u2029b", "c"]),
    ],
)
def test_stdin_is_json_lines_or_one_plain_question(
    folder: Path, text: str, questions: list[str]
) -> None:
    done = glore(folder, "refine", "small", "--jsonl", stdin=text)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["question"] for line in done.stdout.splitlines()] == questions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"question": "a"}\n{"question": 3}\n',
            "q.jsonl, line 2: the field 'question' must be a text, got 3",
        ),
        (
            '{"question": "a"}\n\n{"q',
            "q.jsonl, line 3: not JSON ('{\"q'); write one object per line",
        ),
        ('["a"]\n', "line 1: not an object"),
        (
            '[{"question": "a"}]\n',
            'line 1: not an object (\'[{"question": "a"}]\'); write one object per line, like',
        ),
        (
            '{"frage": "a"}\n',
            "line 1: the field 'question' is missing (the row has: frage); add it",
        ),
        ('{"question": " "}\n', "line 1: the field 'question' is empty"),
        (
            '{"question": "\\ud800 x"}\n',
            "line 1: the field 'question' has half a Unicode character",
        ),
        (
            '{"question": "a"}\n{"question": "caf\udce9"}\n',
            "line 2: text must be UTF-8, got byte 0xe9; write it again as UTF-8",
        ),
        ('{"question": "a", "id": [1]}\n', "line 1: the field 'id' must be a text, got [1]"),
        (
            '{"question": "a", "id": 7}\n\n{"question": "b", "id": "7"}\n',
            "line 3: the id '7' is already used by q.jsonl, line 1; give every question its own id",
        ),
        ("", "q.jsonl holds no question"),
        ("[" * 100_000, "line 1: not JSON"),
    ],
)
def test_bad_questions_name_file_line_and_field(folder: Path, text: str, message: str) -> None:
    (folder / "q.jsonl").write_text(text, encoding="utf-8", errors="surrogateescape")
    done = glore(folder, "refine", "small", "--file", "q.jsonl")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        ((), "a\ncaf\udce9", "stdin, line 2: text must be UTF-8, got byte 0xe9"),
        ((), "\udcff\udcfe\udc80\0", "stdin, line 1: text must be UTF-8, got byte 0xff"),
        (
            (),
            '{"question": "\\ud800 x"}',
            "stdin, line 1: the field 'question' has half a Unicode character",
        ),
        ((), '[\n{"question": "a"}\n]', "stdin, line 1: not JSON ('['); write one object per line"),
        ((), '[{"question": "a"}]', "stdin, line 1: not an object"),
        ((), " ", "stdin is empty; give"),
        (("caf\udce9",), "", "the question, line 1: text must be UTF-8, got byte 0xe9"),
        ((" ",), "", "the question is empty; give"),
    ],
)
def test_what_is_no_question_is_one_line(
    folder: Path, arguments: tuple[str, ...], text: str, message: str
) -> None:
    done = glore(folder, "refine", "small", *arguments, stdin=text)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """The command line with a refiner that refuses every batch with a question beginning with
    "long".
    """
    path = tmp_path / "failing_glore.py"
    path.write_text(FAILING_REFINER)
    return path


def test_a_question_that_fails_does_not_take_its_batch_along(folder: Path, failing: Path) -> None:
    lines = "".join(
        json.dumps({"question": f"{'long' if i in (2, 40, 66) else 'q'} {i}"}) + "\n"
        for i in range(70)
    )
    done = glore(folder, "refine", "small", "--jsonl", stdin=lines, script=failing)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: stdin, line {n}: the prompt has 900 tokens; shorten it" for n in (3, 41, 67)
    ]
    out = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["problem_id"] for r in out] == [f"q{i}" for i in range(70)]
    assert out[2] == {
        "problem_id": "q2",
        "question": "long 2",
        "error": "the prompt has 900 tokens; shorten it",
    }
    assert [i for i, r in enumerate(out) if "answer" not in r] == [2, 40, 66]
    plain = glore(folder, "refine", "small", "long one", script=failing)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr == "error: the question: the prompt has 900 tokens; shorten it\n"


def test_where_question_after_question_fails_the_rest_is_left(folder: Path, failing: Path) -> None:
    lines = "".join(
        json.dumps({"question": f"{'q' if i == 0 else 'long'} {i}"}) + "\n" for i in range(200)
    )
    done = glore(folder, "refine", "small", "--jsonl", stdin=lines, script=failing)
    assert done.returncode == 2
    assert ["error" in json.loads(line) for line in done.stdout.splitlines()] == [False] + 5 * [
        True
    ]
    assert done.stderr.count("\n") == 6
    assert done.stderr.endswith(
        "error: 5 questions in a row failed; fix the cause, then give the questions after stdin, "
        "line 6 again\n"
    )


def test_a_reader_that_leaves_early_is_no_bug(folder: Path) -> None:
    lines = "".join(json.dumps({"question": "q" * 1000}) + "\n" for _ in range(500))
    (folder / "many.jsonl").write_text(lines)
    command = [
        sys.executable,
        str(TESTS / "support" / "small_glore.py"),
        "refine",
        "small",
        "--jsonl",
        "--file",
        "many.jsonl",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}"}
    with subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["question"] == "q" * 1000
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1
    assert "unexpected" not in errors


def test_the_report_command_prints_tables_and_the_page(folder: Path) -> None:
    assert (
        glore(folder, "report", "small").stdout
        == "the tables\nreport: runs/small/report/index.html\n"
    )
