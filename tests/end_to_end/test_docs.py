"""Every command and every block of code of README.md and docs/ works, in the order of the page.

They are carried out in a folder where the quickstart has run, shrunk to a minute: the recipes are
those of the repository with a tiny model and few questions. `glore serve` serves that run, and
`curl` and OpenAI's client ask it. What needs a GPU, a hub, a cluster or another program is read
instead, and what `glore run` would do there is planned (`--dry-run`).
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from glore import load_config, run
from glore.cli import app, serve_command
from glore.config import RunConfig, packaged
from support.documented_servers import DocumentedServers, make_key
from support.snippets import PAGES, ROOT, Command, blocks, commands
from support.tiny_recipe import tiny_recipe

ELSEWHERE = {
    *("make", "pip", "ray", "tensorboard", "uvx", "python3", "tar", "vllm"),
    *("accelerate", "torchrun", "inspect", "docker", "python"),
}
"""Programs that are not glore: their lines are read only."""
NOT_HERE = ("vllm", "trl", "verl")
"""Packages, or what they talk to, that code of a page needs: such blocks are compiled only."""
CAN_SERVE = all(importlib.util.find_spec(name) for name in serve_command.NEEDED)
done: Counter[str] = Counter()


@pytest.fixture(scope="module")
def prepared(quickstart: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "recipes").mkdir()
    for path in (ROOT / "recipes").glob("*.yaml"):
        shutil.copy(path, folder / "recipes")
    shutil.copytree(ROOT / "recipes" / "accelerate", folder / "recipes" / "accelerate")
    (folder / "recipes" / "quickstart.yaml").write_text(tiny_recipe("quickstart"))
    (folder / "examples").symlink_to(ROOT / "examples")
    finished = Path(shutil.copytree(quickstart.run_dir, folder / "runs" / "quickstart"))
    before = Path.cwd()
    os.chdir(folder)
    try:
        run(load_config("recipes/quickstart.yaml", ["name=quickstart-1", "seed=1"]))
        _files(folder, finished)
    finally:
        os.chdir(before)
    return folder


def _files(folder: Path, finished: Path) -> None:
    for name in ("NAME", "mine", "gsm8k-7b"):
        shutil.copytree(finished, folder / "runs" / name)
    for name in ("MODEL", "FOLDER", "models/student", "models/mine"):
        shutil.copytree(finished / "models" / "student", folder / name)
    for name in ("rm", "prm"):
        shutil.copytree(finished / "models" / "sorm", folder / name)
    for name, layout in (
        ("solutions.jsonl", "jsonl"),
        ("labelled.jsonl", "jsonl"),
        ("pairs.jsonl", "jsonl"),
        ("prm800k.jsonl", "prm800k"),
        ("processbench/gsm8k.json", "processbench"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        glore(["export", "runs/quickstart", "--format", layout, "--output", name])
    people = (folder / "prm800k.jsonl").read_text()
    neutral = people.replace('"rating": 1', '"rating": 0', 1)  # rollouts make no neutral labels
    assert neutral != people
    (folder / "prm800k.jsonl").write_text(neutral)
    rows = [
        {
            "question": f"A pen costs {p} euros. How much are {n} pens?",
            "answer": n * p,
            "solution": f"{n} pens cost {n} * {p} = {n * p} euros.\n#### {n * p}",
        }
        for n in range(2, 10)
        for p in range(2, 8)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "mine.jsonl").write_text(lines)
    (folder / "questions.jsonl").write_text("".join(lines.splitlines(keepends=True)[:2]))
    for name in ("data/gsm8k/train.jsonl", "data/gsm8k/test.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(
            "".join(
                json.dumps({"question": f"{name} {r['question']}", "answer": r["solution"]}) + "\n"
                for r in rows
            )
        )
    problems = _gold_answers(finished)
    (folder / "gsm8k").mkdir()
    (folder / "gsm8k" / "test.jsonl").write_text(problems)
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / "FOLDER" / "model.safetensors")
    torch.save(weights, folder / "FOLDER" / "pytorch_model.bin")


def _gold_answers(run_dir: Path) -> str:
    from glore.records import Problem, read_records

    found = [
        p
        for path in sorted((run_dir / "stages/problems").glob("*.parquet"))
        for p in read_records(path, Problem)
    ]
    return "".join(json.dumps({"question": p.question, "answer": p.answer}) + "\n" for p in found)


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, the working directory of a page."""
    place = tmp_path / "page"
    shutil.copytree(prepared, place, symlinks=True)
    monkeypatch.chdir(place)
    monkeypatch.setattr(packaged, "recipes_folder", lambda: place / "recipes")
    monkeypatch.syspath_prepend(ROOT / "examples")
    return place


def glore(words: list[str], stdin: str = "") -> str:
    """Carry out a command of glore. Returns its stdout."""
    result = CliRunner().invoke(app, words, input=stdin)
    assert result.exit_code == 0, f"glore {' '.join(words)}\n{result.output}\n{result.stderr}"
    return result.stdout


def _has(words: list[str], *beginnings: str) -> bool:
    return any(word.startswith(beginnings) for word in words)


@pytest.fixture(scope="module")
def servers() -> Iterator[DocumentedServers]:
    """What `glore serve` on the pages starts, until the module ends."""
    started = DocumentedServers()
    yield started
    started.close()


def carry_out(command: Command, servers: DocumentedServers) -> str:
    """Do what a line of a page says → `run`, `dry-run` or `read`."""
    words = [
        re.sub(r"\$\(glore recipes (\S+) --path\)", r"recipes/\1.yaml", w).replace("…/", "data/")
        for w in command.words
    ]
    program = words[0].rpartition("/")[2]
    if program == "openssl":
        make_key(words, Path(command.output))
        return "run"
    if program == "curl":
        if not CAN_SERVE:
            return "read"
        servers.curl(words)
        return "run"
    if program != "glore":
        assert program in ELSEWHERE, f"{command.page}: {command.line}"
        _read_elsewhere(words)
        return "read"
    name, arguments = words[1], words[2:]
    if name == "serve" and CAN_SERVE:
        servers.start(words, Path.cwd())
        return "run"
    if name == "serve" or _has(arguments, "engine.kind=", "launch=", "reward.ready."):
        # Another process, package, server, cluster or model: tests of their own.
        group: Any = get_command(app)
        assert group.commands[name].make_context(name, list(arguments)) is not None
        if name == "run":
            load_config(arguments[0], [w for w in arguments[1:] if "=" in w])
        return "read"
    if name == "run" and Path(arguments[0]).stem not in ("quickstart", "config"):
        return _planned(arguments)
    if name == "study" and arguments[0] not in ("rerank", "where") and "--dry-run" not in words:
        words.append("--dry-run")  # they sample or train for long
    if "--output" in words and "--dry-run" not in words:
        _clear(Path(words[words.index("--output") + 1]))
    glore(words[1:], command.stdin)
    return "dry-run" if "--dry-run" in words else "run"


def _clear(output: Path) -> None:
    """Pages write one name several times, with other settings."""
    for path in (output, output.with_name(output.name + ".work")):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()


def _planned(arguments: list[str]) -> str:
    """A run that needs a GPU, a hub or a model that is not here, planned with what is here."""
    here = ["engine.device=cpu", "engine.dtype=float32"]
    if not _has(arguments, "base.model=") and "scratch" not in arguments[0]:
        here += ["base.model=MODEL"]
    if not _has(arguments, "task.path="):
        here += ["task.hub=null", "task.path=data/gsm8k"]
    if "svamp" in arguments[0]:
        load_config(arguments[0], [w for w in arguments[1:] if "=" in w])
        return "read"
    glore(["run", *arguments, *here, "--dry-run"])
    return "dry-run"


def _read_elsewhere(words: list[str]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    for extra in re.findall(r"glore\[([\w-]+)\]", " ".join(words)):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.name)
def test_every_command_of_a_page_works(
    page: Path, folder: Path, servers: DocumentedServers
) -> None:
    for command in commands(page):
        done[f"commands: {carry_out(command, servers)}"] += 1


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_every_block_of_python_runs(
    page: Path, folder: Path, servers: DocumentedServers, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: dict[str, object] = {"__name__": "shown"}
    for source in blocks(page, "python"):
        code = compile(source, page.name, "exec")
        needed = _packages(source)
        if needed & set(NOT_HERE) or "open_engine(folder" in source:
            done["python: compiled"] += 1
            continue
        if "openai" in needed:
            if not (CAN_SERVE and importlib.util.find_spec("openai")):
                done["python: compiled"] += 1
                continue
            servers.start(["glore", "serve", "runs/quickstart"], folder)
            code = compile(servers.here(source), page.name, "exec")
        assert [name for name in needed if importlib.util.find_spec(name) is None] == []
        exec(code, shown)
        if "openai" in needed:
            text, _, n_tokens = capsys.readouterr().out.strip().rpartition(" ")
            assert int(n_tokens) > 0, text
        done["python: run"] += 1


def _packages(source: str) -> set[str]:
    """The packages that code imports."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_of_data_is_valid(page: Path) -> None:
    for text in blocks(page, "json"):
        try:
            json.loads(text)
        except json.JSONDecodeError:  # JSON lines
            assert [json.loads(line) for line in text.splitlines()]
    for text in blocks(page, "yaml"):
        yaml.safe_load(text)
    for text in blocks(page, "toml"):
        tomllib.loads(text)
    done["data: read"] += sum(len(blocks(page, kind)) for kind in ("json", "yaml", "toml"))


def test_how_many_there_were() -> None:
    """Printed with `-rP`; nothing here is left out unseen."""
    for kind, n in sorted(done.items()):
        print(f"{kind}: {n}")
