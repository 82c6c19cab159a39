"""docs/extending.md: its Python blocks run, its entry points name what there is, and an extension
touches at most three files.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def _examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("source", blocks("python"), ids=range(len(blocks("python"))))
def test_every_python_block_runs(source: str) -> None:
    assert "assert " in source, "a block shows that it works"
    exec(compile(source, "docs/extending.md", "exec"), {"__name__": "shown"})


def test_entry_points_are_of_known_groups_and_name_what_the_examples_have() -> None:
    groups = [tomllib.loads(b)["project"]["entry-points"] for b in blocks("toml")]
    assert [name for group in groups for name in group] == [
        "glore.tasks",
        "glore.verifiers",
        "glore.engines",
        "glore.studies",
    ]
    named = [value for group in groups for points in group.values() for value in points.values()]
    for value in named:
        module, _, attribute = value.partition(":")
        if module.startswith("extend_"):
            assert hasattr(importlib.import_module(module), attribute)
        else:
            assert re.search(rf"^(class|def) {attribute}\b", TEXT, re.MULTILINE), value


def test_every_extension_touches_at_most_three_files() -> None:
    sections = re.findall(r"^## A new (\w+(?: \w+)?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.M)
    assert [name for name, _ in sections] == ["task", "label rule", "engine", "study"]
    for name, text in sections:
        files = re.findall(r"^\| (?!file )(?!---)([^|]+) \|", text, re.MULTILINE)
        assert 1 <= len(files) <= 3, name
        named = re.findall(r"`(src/[^`]+)`", " ".join(files))
        assert [f for f in named if not (ROOT / f).exists()] == []


def test_the_example_task_runs_as_a_script() -> None:
    done = subprocess.run(
        [sys.executable, "examples/extend_task.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1].startswith("right | ")
