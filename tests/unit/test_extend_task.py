"""examples/extend_task.py: a task of one's own runs, and a recipe can name it."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import glore
from glore.config import load_config
from glore.tasks import open_task

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_task_of_ones_own_prints_a_problem_and_two_grades() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "extend_task.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    question, right, wrong = done.stdout.splitlines()
    now, wait = map(int, re.findall(r"shows (\d+)\. .* show (\d+) hours", question)[0])
    assert right.startswith(f"right | {now} + {wait} = {now + wait} | ")
    assert right.endswith(f" | #### {(now + wait) % 24}")
    assert wrong == "wrong | It shows noon."


def test_a_recipe_names_the_task_once_its_package_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (EXAMPLES / "extend_task.py").read_text(encoding="utf-8")
    section = re.search(r'\[project\.entry-points\."(.*)"\]\n(.*?)\n\n', source, re.DOTALL)
    assert section is not None
    group, lines = section.groups()
    information = tmp_path / "extend_task-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: extend_task\nVersion: 1.0\n"
    )
    text = textwrap.dedent(lines).replace('"', "")
    (information / "entry_points.txt").write_text(f"[{group}]\n{text}\n")
    for folder in (EXAMPLES, tmp_path):
        monkeypatch.syspath_prepend(str(folder))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: clocks\n")
    command = re.search(r"glore run recipe\.yaml (.*)\n", source)
    assert command is not None
    config = load_config(recipe, [*command[1].split(), f"runs_dir={tmp_path}"])
    assert config.task.fingerprint_fields() == {
        "kind": "clock",
        "merge_answer_line": False,
        "hours": 24,
    }
    task = open_task(config.task, config.seed)
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (1000, 200)
    assert train == open_task(config.task, config.seed).problems("train")
    assert train[0].question != open_task(config.task, 1).problems("train")[0].question
    for problem in (train[0], train[-1]):
        assert problem.solution is not None
        assert task.grade(problem, problem.solution).verdict == "right"
        assert task.grade(problem, ("#### 99",)).verdict == "wrong"
    run_dir = glore.run(config, until="problems")
    assert glore.read_records(run_dir / "stages/problems/test-00000.parquet", glore.Problem) == test
