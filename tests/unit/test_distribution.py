"""What is installed: a wheel with types, recipes and sources for the C compiler; a sdist without
anything else than sources; extras apart; one number everywhere.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist of the files that git has here."""
    pytest.importorskip("hatchling", reason="needs hatchling (pip install hatchling)")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("src", "recipes", "examples", "docs"):
        shutil.copytree(ROOT / name, source / name)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, source)
    (source / "src" / "glore" / "__pycache__").mkdir(exist_ok=True)
    (source / "src" / "glore" / "__pycache__" / "junk.pyc").write_bytes(b"")
    (source / "runs").mkdir()
    (source / "runs" / "junk.txt").write_text("")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    return out


def test_the_wheel_has_what_a_run_needs_and_no_more(dist: Path) -> None:
    [wheel] = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    on_disk = {
        f"glore/{p.relative_to(ROOT / 'src' / 'glore')}"
        for p in (ROOT / "src" / "glore").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    recipes = {
        f"glore/recipes/{p.relative_to(ROOT / 'recipes')}"
        for p in (ROOT / "recipes").rglob("*.yaml")
    }
    assert {n for n in names if ".dist-info/" not in n} == on_disk | recipes
    assert "glore/py.typed" in names


def test_the_installed_recipes_are_found_by_name(dist: Path, tmp_path: Path) -> None:
    [wheel] = dist.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    done = subprocess.run(
        [sys.executable, "-m", "glore", "recipes", "quickstart", "--path"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == tmp_path / "installed/glore/recipes/quickstart.yaml"


def test_the_sdist_has_sources_only(dist: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as opened:
        names = [name.partition("/")[2] for name in opened.getnames()]
    assert {name.partition("/")[0] for name in names} <= {
        *("src", "recipes", "examples", "docs", "README.md", "CHANGELOG.md", "CITATION.cff"),
        *("CONTRIBUTING.md", "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore"),
    }
    assert [
        n for n in names if re.search(r"__pycache__|\.pyc$|\.egg-info|\.(parquet|bin)$", n)
    ] == []


def test_extras_stay_apart() -> None:
    needed = {re.split(r"[<>=\[]", d)[0].lower() for d in PROJECT["dependencies"]}
    extras = {
        name: {re.split(r"[<>=\[]", d)[0].lower() for d in found}
        for name, found in PROJECT["optional-dependencies"].items()
    }
    assert {name for name in extras if extras[name] & needed} == set()


def test_one_number_everywhere() -> None:
    number = PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == number
    assert number in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"glore-{number}-py3-none-any.whl" in (ROOT / "docs" / "releasing.md").read_text()


def test_the_hooks_run_what_make_check_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    make = re.search(
        r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert make is not None
    tools = [line.split("/")[-1].split()[0] for line in make[1].splitlines()]
    assert [entry.split("/")[-1].split()[0] for entry in entries] == tools
