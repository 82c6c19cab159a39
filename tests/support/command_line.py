"""The real command line over the small stages, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
