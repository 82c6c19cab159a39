"""Ctrl-C, bugs and bad input at the command line: one line on stderr, the right exit code, and running again goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from small_stages import contents

TESTS = Path(__file__).parents[1]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", **extra}


def glore(folder: Path, *arguments: str, stdin: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "small_glore.py"), *arguments]
    return subprocess.run(
        command, env=environment(**extra), cwd=folder, capture_output=True, text=True, input=stdin, timeout=60, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.yaml").write_text("name: small\n")
    return tmp_path


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(folder: Path) -> None:
    command = [sys.executable, str(TESTS / "small_glore.py"), "run", "r.yaml"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(SMALL_PAUSE_AT="3"), cwd=folder, **pipes) as process:  # type: ignore[call-overload]  # mypy can't follow **pipes
        assert process.stdout.readline() == "paused\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "error: stopped by Ctrl-C; everything committed is kept: run the same command to go on"
    assert "Traceback" not in errors
    again = glore(folder, "run", "r.yaml")
    assert again.returncode == 0, again.stderr
    assert "stage 1/4 task: reused" in again.stderr
    assert "train: 2 of 4 shards are there already" in again.stderr
    assert again.stdout.splitlines() == ["the tables", "report: runs/small/report/index.html"]
    assert glore(folder, "run", "r.yaml", "runs_dir=other").returncode == 0
    got, expected = contents(folder / "runs" / "small"), contents(folder / "other" / "small")
    del got["config.yaml"], expected["config.yaml"]
    assert got == expected


def test_a_bug_is_one_line_and_its_traceback_is_in_the_log(folder: Path) -> None:
    done = glore(folder, "run", "r.yaml", SMALL_BUG_AT="2")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: unexpected KeyError: ")
    assert last.endswith("this is a bug, its traceback is in runs/small/log/error.log")
    assert "small_glore.py" in (folder / "runs/small/log/error.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.yaml"], "can't read the recipe none.yaml"),
        (["run", "r.yaml", "labels.rolouts=2"], "did you mean rollouts?"),
        (["run", "r.yaml", "--until", "evalute"], "did you mean evaluate?"),
        (["run", "r.yaml", "runs_dir=r.yaml"], "choose another name or runs_dir"),
        (["show", "nothing"], "there is no run 'nothing'"),
        (["report", "nothing"], "there is no run"),
        (["refine", "nothing", "q"], "there is no run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], message: str) -> None:
    done = glore(folder, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not done.stdout
