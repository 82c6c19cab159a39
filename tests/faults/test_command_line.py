"""Ctrl-C, bugs and bad input at the command line: one line on stderr, the right exit code, and
running again goes on.

Most cases stand in a table of shell commands, since what a shell does to streams and arguments is
what is tested.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from glore.cli.questions import MAX_INPUT_BYTES
from support.command_line import TESTS, environment, glore
from support.small_stages import contents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.yaml").write_text("name: small\n")
    return tmp_path


def test_ctrl_c_stops_cleanly_and_the_same_command_continues(folder: Path) -> None:
    command = [sys.executable, str(TESTS / "support" / "small_glore.py"), "run", "r.yaml"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        command, env=environment(SMALL_PAUSE_AT="3"), cwd=folder, **pipes
    ) as process:  # type: ignore[call-overload]  # mypy can't follow **pipes
        assert process.stdout.readline() == "paused\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (
        errors.splitlines()[-1]
        == "error: stopped by Ctrl-C; all finished work is kept: run the same command to continue"
    )
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
def test_a_mistake_is_one_line_and_exit_code_2(
    folder: Path, arguments: list[str], message: str
) -> None:
    done = glore(folder, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not done.stdout


LONG = "x" * 300
FAILURES: dict[str, tuple[str, int, str]] = {
    "stdin closed": ("$GLORE refine small <&-", 2, "no question: stdin is closed; give one"),
    "stdin without end": (
        "$GLORE refine small < /dev/zero",
        2,
        f"can't read stdin: larger than {MAX_INPUT_BYTES // 2**20} MiB",
    ),
    "stdin with a long question": (
        "yes | head -c 60000 | $GLORE refine small",
        2,
        "at most 20,000 characters, got 59,999",
    ),
    "stdout closed": (
        "$GLORE refine small q >&-",
        1,
        "stdout is closed, so nothing could be shown; leave it open",
    ),
    "stdout closed for help": ("$GLORE --help >&-", 1, "stdout is closed"),
    "stdout for reading": (
        "$GLORE show small 1< r.yaml",
        1,
        "stdout can't be written: Bad file descriptor",
    ),
    "stdout full, a table": (
        "$GLORE show small > /dev/full",
        1,
        "stdout can't be written: No space left on device, so the rest",
    ),
    "stdout full, JSON": (
        "$GLORE refine small --jsonl q > /dev/full",
        1,
        "stdout can't be written: No space left on device",
    ),
    "stdout full, help": (
        "$GLORE run --help > /dev/full",
        1,
        "stdout can't be written: No space left on device",
    ),
    "stdout a broken pipe": (
        "($GLORE show small; echo $? >code) | true; exit $(cat code)",
        1,
        "stdout: its reader has stopped",
    ),
    "a name of 300 characters": (f"$GLORE run r.yaml name={LONG}", 2, "a name has 1 to 64 letters"),
    "a name above": ("$GLORE run r.yaml name=..", 2, "a name has 1 to 64 letters"),
    "a name from the root": ("$GLORE run r.yaml name=/tmp/x", 2, "a name has 1 to 64 letters"),
    "a folder of 300 characters": (
        f"$GLORE run r.yaml runs_dir={LONG}",
        2,
        "File name too long; use a shorter name",
    ),
    "a run of 300 characters": (f"$GLORE show {LONG}", 2, "File name too long; use a shorter name"),
    "a recipe of 300 characters": (f"$GLORE run {LONG}", 2, "File name too long"),
    "a recipe that is a folder": ("$GLORE run .", 2, "Is a directory"),
    "NUL in a path": (
        """$GLORE run r.yaml 'runs_dir="a\\0b"'""",
        2,
        "can't have control characters",
    ),
    "newline in a path": (
        """$GLORE run r.yaml 'runs_dir="a\\nb"'""",
        2,
        "can't have control characters",
    ),
    "escape in a model": (
        """$GLORE run r.yaml 'base.model="\\e[2J"'""",
        2,
        "can't have control characters",
    ),
    "newline in a run": ("$GLORE show $'a\\nb'", 2, "there is no run 'a\\nb'"),
    "no UTF-8 in a run": ("$GLORE report $'\\xff'", 2, "there is no run"),
    "a run without a name": ("$GLORE show ''", 2, "there is no run ''"),
    "runs below a file": (
        "$GLORE run r.yaml runs_dir=r.yaml/x",
        2,
        "can't use r.yaml/x/small as a run folder: there is a file at",
    ),
    "runs where nothing is written": (
        "$GLORE run r.yaml runs_dir=/proc/none",
        2,
        "can't use /proc/none/small as a run folder",
    ),
    "a question like an option": (
        "$GLORE refine small '-5 + 3?'",
        2,
        "put a question that begins with - after --",
    ),
    "a question like a long option": (
        "$GLORE refine small '--x - 3 = 0?'",
        2,
        "put a question that begins with - after --",
    ),
    "a question that is no UTF-8": (
        "$GLORE refine small $'caf\\xe9'",
        2,
        "text must be UTF-8, got byte 0xe9",
    ),
    "questions from a folder": ("$GLORE refine small --file .", 2, "can't read .: Is a directory"),
    "questions from nowhere": (
        "$GLORE refine small --file none",
        2,
        "can't read none: No such file",
    ),
    "questions from an idle pipe": (
        "mkfifo idle; $GLORE refine small --file idle",
        2,
        "can't read idle: a pipe that nobody writes to",
    ),
    "an unknown command": ("$GLORE rnu", 2, "Did you mean 'run'?"),
    "an unknown option": ("$GLORE run r.yaml --dryrun", 2, "Possible options: --dry-run"),
    "no recipe": ("$GLORE run", 2, "Missing argument '"),
    "one argument too many": ("$GLORE show small other", 2, "unexpected extra argument"),
    "an option without its value": (
        "$GLORE run r.yaml --until",
        2,
        "requires an argument; see: glore --help",
    ),
    "no command": ("$GLORE >/dev/null", 2, "no command was given"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "r.yaml").write_text("name: small\n")
    assert glore(folder, "run", "r.yaml").returncode == 0
    return folder


def shell(folder: Path, command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    glore = f"{sys.executable} {TESTS / 'support' / 'small_glore.py'}"
    return subprocess.run(
        ["bash", "-c", command.replace("$GLORE", glore)],
        env=environment(**extra),
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("case", FAILURES)
def test_every_kind_of_failure_is_one_line_and_an_exit_code(finished: Path, case: str) -> None:
    command, code, message = FAILURES[case]
    done = shell(finished, command)
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
    assert done.returncode == code


@pytest.mark.parametrize(
    ("command", "code", "out"),
    [
        ("$GLORE refine small --jsonl -- '-5 + 3?'", 0, '"question": "-5 + 3?"'),
        (
            '$GLORE refine small --jsonl --file <(sleep 1; echo \'{"question": "piped"}\')',
            0,
            '"question": "piped"',
        ),
        ("$GLORE run r.yaml 2>&-", 0, "the tables"),
        ("$GLORE run r.yaml 2>/dev/full", 0, "the tables"),
        ("$GLORE show nothing 2>&-", 2, ""),
        ("$GLORE refine small 'π?' >out && cat out", 0, "\\u03c0"),
    ],
)
def test_what_can_be_done_is_done(finished: Path, command: str, code: int, out: str) -> None:
    done = shell(finished, command, PYTHONIOENCODING="ascii")
    assert done.returncode == code, done.stderr
    assert out in done.stdout
    assert not done.stderr.startswith("error")


def test_a_closed_stream_is_never_a_file_of_the_run(folder: Path) -> None:
    writes = (
        "import os; from support import small_glore; from glore.cli import main; "
        "small_glore.tick = lambda: [os.write(n, b'x') for n in (1, 2)]; main()"
    )
    (folder / "writes.py").write_text(writes)
    done = shell(folder, f"{sys.executable} writes.py run r.yaml <&- 2>&-")
    assert done.returncode == 0
    again = glore(folder, "run", "r.yaml", "runs_dir=other")
    assert again.returncode == 0, again.stderr
    got, expected = contents(folder / "runs" / "small"), contents(folder / "other" / "small")
    del got["config.yaml"], expected["config.yaml"]
    assert got == expected


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("MemoryError()", "out of memory ('MemoryError'); use a smaller model"),
        (
            "RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')",
            "out of memory ('CUDA out of memory. Tried to allocate 2 GiB')",
        ),
        (
            "OSError(28, 'No space left on device', 'models/x')",
            "everything finished is kept: free some space and run the same command",
        ),
        (
            "OSError(24, 'Too many open files', 'x')",
            "'x': Too many open files; raise the number of open files (ulimit -n)",
        ),
        (
            "OSError(30, 'Read-only file system', 'a')",
            "'a': Read-only file system; choose a place that can be read and written",
        ),
        (
            "OSError(5, 'Input/output error')",
            "Input/output error; fix that, then run the same command again",
        ),
        ("ImportError('libgomp.so.1: cannot open')", "can't be imported"),
    ],
)
def test_what_the_machine_refuses_is_no_bug(folder: Path, error: str, message: str) -> None:
    raises = (
        "from support import small_glore; from glore.cli import main\n"
        f"def tick(): raise {error}\nsmall_glore.tick = tick; main()"
    )
    (folder / "raises.py").write_text(raises)
    done = shell(folder, f"{sys.executable} raises.py run r.yaml")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr
