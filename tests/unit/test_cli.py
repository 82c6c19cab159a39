"""The command line over small stages: what is printed, where from questions come, and what JSONL holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def glore(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "small_glore.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, input=stdin, timeout=60, check=False)


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
    rows = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in done.stdout.splitlines() if line.startswith("│")]
    assert rows == [
        ["task", "reused", "complete", ""],
        ["sample", "reused", "complete", ""],
        ["train", "computed", "student.sft.learning_rate 5e-05 → 0.1", "200"],
        ["evaluate", "computed", "made from another train", ""],
        ["total", "2 of 4 to do", "", "200"],
    ]


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
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if line.startswith("│")]
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


def test_plain_text_on_stdin_is_one_question(folder: Path) -> None:
    out = glore(folder, "refine", "small", "--jsonl", stdin="Ann has 3 apples.\nHow many has she?\n").stdout
    assert [json.loads(line)["question"] for line in out.splitlines()] == ["Ann has 3 apples.\nHow many has she?"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "a"}\n{"question": 3}\n', "q.jsonl, line 2: field question must be text, got 3"),
        ('{"question": "a"}\n\n{"q', "q.jsonl, line 3: not JSON"),
        ('["a"]\n', "line 1: field question must be text, got None"),
        ('{"question": " "}\n', "a question is empty"),
        ("", "a question is empty"),
        ("[" * 100_000, "line 1: not JSON"),
    ],
)
def test_bad_questions_name_file_line_and_field(folder: Path, text: str, message: str) -> None:
    (folder / "q.jsonl").write_text(text)
    done = glore(folder, "refine", "small", "--file", "q.jsonl")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_bug(folder: Path) -> None:
    lines = "".join(json.dumps({"question": "q" * 1000}) + "\n" for _ in range(500))
    (folder / "many.jsonl").write_text(lines)
    command = [sys.executable, str(TESTS / "small_glore.py"), "refine", "small", "--jsonl", "--file", "many.jsonl"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["question"] == "q" * 1000
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1
    assert "unexpected" not in errors


def test_the_report_command_prints_tables_and_the_page(folder: Path) -> None:
    assert glore(folder, "report", "small").stdout == "the tables\nreport: runs/small/report/index.html\n"
