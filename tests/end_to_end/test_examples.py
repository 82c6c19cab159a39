"""The example scripts run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_loop_runs_every_part_of_the_method(tmp_path: Path) -> None:
    """With a tenth of the data the models learn next to nothing, but each part does its work."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "glore_loop.py"), str(tmp_path)],
        env=os.environ | {"GLORE_LOOP_SIZE": "0.1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    for name in ("base", "sft", "student", "orm", "sorm", "refiner"):
        assert (tmp_path / name / "model.safetensors").is_file()
    assert "60 training questions" in said
    drafts, chosen, best = (
        int(n) for n in re.findall(r"^.*: (\d+) of 20 right$", said, re.MULTILINE)
    )
    assert max(drafts, chosen) <= best <= 20
    global_, local = re.search(r"refinements: (\d+) global, (\d+) local_sorm", said).groups()  # type: ignore[union-attr]
    assert int(local) <= int(global_) <= 20
