"""The real command line: over the small stages as a process of its own, and as it is, in this
process.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glore.cli import main

TESTS = Path(__file__).parents[1]


def environment(**extra: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}",
        "OMP_NUM_THREADS": "1",
        **extra,
    }


def glore(
    folder: Path, *arguments: str, stdin: str = "", **extra: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "support" / "small_glore.py"), *arguments]
    return subprocess.run(
        command,
        env=environment(**extra),
        cwd=folder,
        capture_output=True,
        text=True,
        input=stdin,
        timeout=60,
        check=False,
    )


def glore_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`glore` without stand-ins in this process, where the libraries of models are imported
    already.
    """
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(sys, "argv", ["glore", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())
