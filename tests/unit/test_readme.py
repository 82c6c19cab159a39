"""What README.md and docs/ say is so: commands, options, settings and links exist, code compiles,
the tree is complete.
"""

from __future__ import annotations

import ast
import re
import shlex
import typing
from pathlib import Path

import pyarrow as pa
import pytest
import typer.main
from pydantic import BaseModel

import glore
from glore import records
from glore.cli import app
from glore.config import RunConfig, load_config
from glore.config.kinds import KindSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
SECTIONS = tuple(
    name for name, field in RunConfig.model_fields.items() if isinstance(field.default, BaseModel)
)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Every shell line of a page as words, without `echo … |` before a command and `> file` after
    it.
    """
    lines = [line for block in blocks(text, "sh") for line in block.splitlines() if line.strip()]
    words = [shlex.split(re.sub(r"^echo .*\| ", "", line), comments=True) for line in lines]
    return [w[: w.index(">")] if ">" in w else w for w in words]


GLORE_COMMANDS = [w[1:] for w in (*commands(README), *commands(USAGE)) if w[0] == "glore"]


@pytest.mark.parametrize("words", GLORE_COMMANDS, ids=" ".join)
def test_every_glore_command_is_understood(words: list[str]) -> None:
    group = typer.main.get_command(app)
    command = typing.cast(typing.Any, group).commands[words[0]]
    assert command.make_context(words[0], words[1:]) is not None


@pytest.mark.parametrize("words", [w for w in GLORE_COMMANDS if w[0] == "run"], ids=" ".join)
def test_every_recipe_takes_the_settings_shown(words: list[str]) -> None:
    recipe = ROOT / words[1] if "/" in words[1] else words[1]
    config = load_config(recipe, [w for w in words[2:] if "=" in w])
    if "--until" in words:
        from glore.stages import build_stages

        assert words[words.index("--until") + 1] in [s.name for s in build_stages(config)]


def test_runs_that_are_named_are_made_by_recipes_or_commands_shown() -> None:
    made = {load_config(path).name for path in (ROOT / "recipes").glob("*.yaml")}
    words = [w for command in GLORE_COMMANDS for w in command]
    made |= {w.removeprefix("name=") for w in words if w.startswith("name=")}
    named = {w.removeprefix("runs/") for w in words if w.startswith("runs/")}
    assert named
    assert named <= made


def test_every_make_target_exists() -> None:
    targets = set(
        re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert [w for w in commands(README) if w[0] == "make"] == [
        ["make", "run"],
        ["make", "test"],
        ["make", "smollm2"],
    ]
    assert {"run", "test", "check"} <= targets
    assert {w[0] for w in (*commands(README), *commands(USAGE))} == {
        "make",
        "glore",
        "tensorboard",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    local = [
        link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link
    ]
    assert [link for link in local if link and not (page.parent / link).exists()] == []
    named = re.findall(r"`((?:recipes|examples|benchmarks|docs|tests|src)/[\w./-]+)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_question_of_a_newcomer_leads_to_a_file() -> None:
    table = CONTRIBUTING.partition("## Where is …?\n")[2].partition("\n## ")[0]
    files = re.findall(r"\? \| `([\w/.]+)` \|$", table, re.MULTILINE)
    assert len(files) == 10
    assert [f for f in files if not (ROOT / "src" / "glore" / f).is_file()] == []


def test_prose_has_at_most_100_columns() -> None:
    """Tables, addresses, code blocks and the source tree may be wider."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
        long = [
            line
            for line in text.splitlines()
            if len(line) > 100 and not line.startswith(("|", "    ")) and "://" not in line
        ]
        assert long == [], page.name


def python_sources() -> list[tuple[str, str]]:
    shown = [
        (p.name, block) for p in PAGES for block in blocks(p.read_text(encoding="utf-8"), "python")
    ]
    return [
        *shown,
        *(
            (p.name, p.read_text(encoding="utf-8"))
            for p in sorted((ROOT / "examples").glob("*.py"))
        ),
    ]


@pytest.mark.parametrize(("name", "source"), python_sources())
def test_python_compiles_and_imports_what_there_is(name: str, source: str) -> None:
    tree = ast.parse(source, filename=name)
    wanted = [
        a.name
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and n.module == "glore"
        for a in n.names
    ]
    assert set(wanted) <= set(glore.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_settings_that_are_named_exist(page: Path) -> None:
    for key in re.findall(
        rf"`((?:{'|'.join(SECTIONS)})\.[a-z_.]+)\b", page.read_text(encoding="utf-8")
    ):
        nodes: list[type[BaseModel]] = [RunConfig]
        for part in key.split("."):
            if part in ("py", "md", "json"):
                break
            fields = [node.model_fields[part] for node in nodes if part in node.model_fields]
            assert fields, f"{page.name}: there is no setting {key}"
            nodes = [node for field in fields for node in sections(field.annotation)]


def sections(annotation: object) -> list[type[BaseModel]]:
    """The classes that a field takes: all built-in ones where they depend on a `kind`."""
    found = []
    for a in (annotation, *typing.get_args(annotation)):
        if isinstance(a, type) and issubclass(a, KindSettings):
            found += [a.kinds.class_for({"kind": kind}) for kind in a.kinds.names()]
        elif isinstance(a, type) and issubclass(a, BaseModel):
            found.append(a)
    return found


def arrow_name(kind: pa.DataType) -> str:
    return f"list<{arrow_name(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


@pytest.mark.parametrize(
    "name",
    [
        "Problem",
        "Solution",
        "PrefixTrials",
        "StepLabels",
        "StepScores",
        "RefinementPair",
        "Refinement",
    ],
)
def test_the_records_are_described_as_they_are(name: str) -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    section = re.split(r"^#+ ", text.partition(f"### {name}\n")[2], maxsplit=1, flags=re.MULTILINE)[
        0
    ]
    described = re.findall(r"^\| (\w+) \| ([\w<> ]+?) \|", section, re.MULTILINE)[1:]
    schema = records.schema_of(getattr(records, name))
    assert described == [
        (f.name, arrow_name(f.type) + (" or none" if f.nullable else "")) for f in schema
    ]


def tree_paths() -> list[str]:
    """Paths of CONTRIBUTING's source tree; two spaces of indentation are a folder."""
    paths, folders = [], [""]
    for line in blocks(CONTRIBUTING, "text")[-1].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth + 1 :] = [folders[depth] + name]
        paths.append(folders[depth] + name)
    return paths


def test_the_source_tree_is_the_one_on_disk() -> None:
    paths = tree_paths()
    assert [p for p in paths if not (ROOT / p).exists()] == []
    source = ROOT / "src" / "glore"
    files = [p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    on_disk = {
        str(p.relative_to(ROOT)) for p in files if p.name != "__init__.py" or p.parent == source
    }
    on_disk |= {str(p.relative_to(ROOT)) for p in (ROOT / "recipes").glob("*.yaml")}
    assert sorted(on_disk - set(paths)) == []
