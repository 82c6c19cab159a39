"""Gathers the pages of the site in build/docs; `make docs` then builds them with zensical.

The pages are the files of this folder, README.md as the first page, CONTRIBUTING.md, CHANGELOG.md
and benchmarks/LOG.md. Two are made here: all settings, from the settings classes, and the Python
API, whose text mkdocstrings takes from the docstrings. Needs glore's sources, and neither torch nor
a run.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import glore
from glore.config.reference import as_markdown

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "docs"
_LINK = re.compile(r"\]\(([^)#:]+?)((?:#[^)]*)?)\)")
API = (
    ("Runs", ("load_config", "RunConfig", "run", "Refiner")),
    ("Progress", ("Progress", "TerminalProgress", "SilentProgress")),
    (
        "Records",
        (
            *("Problem", "Solution", "PrefixTrials", "StepLabels", "StepScores"),
            *("RefinementPair", "Refinement", "read_records", "write_records"),
        ),
    ),
    ("Files of labelled solutions", ("LabelledSolution", "read_solutions", "write_solutions")),
    (
        "Reward models",
        ("open_reward_model", "encode_solutions", "export_reward_model", "reward_function"),
    ),
    (
        "Errors",
        ("GloreError", "ConfigError", "DataError", "EngineError", "ModelError", "RunError"),
    ),
)
"""The public names, by heading."""


def api_page() -> str:
    """The page of the Python API, in mkdocstrings' words."""
    out = ["# Python API", "", "`from glore import …`. Names are imported at first use.", ""]
    for heading, names in API:
        out += [f"## {heading}", "", *(f"::: glore.{name}\n" for name in names)]
    return "\n".join(out)


def moved(text: str, folder: Path, places: dict[Path, str]) -> str:
    """Links of a page that lay in `folder`, made to fit the site: pages by their place in it,
    files of the repository by a copy beside the pages.
    """

    def replaced(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        return f"]({places[target]}{match[2]})" if target in places else match[0]

    return _LINK.sub(replaced, text)


def pages() -> dict[str, str]:
    """Name → text of every page."""
    sources = {path: path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    sources |= {ROOT / "README.md": "index.md", ROOT / "CONTRIBUTING.md": "contributing.md"}
    sources |= {ROOT / "CHANGELOG.md": "changelog.md"}
    sources |= {ROOT / "benchmarks" / "LOG.md": "measurements.md"}
    places = {path.resolve(): name for path, name in sources.items()}
    for path in linked_files(list(sources), places):
        places[path] = f"files/{path.relative_to(ROOT)}"
    found = {
        name: moved(path.read_text(encoding="utf-8"), path.parent, places)
        for path, name in sources.items()
    }
    return {**found, "settings.md": as_markdown(), "api.md": api_page()}


def linked_files(sources: list[Path], places: dict[Path, str]) -> list[Path]:
    """Files of the repository, pages apart, that pages link to."""
    found = set()
    for page in sources:
        for link, _ in _LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.is_file() and target not in places and target.is_relative_to(ROOT):
                found.add(target)
    return sorted(found)


def gather(folder: Path = PAGES) -> None:
    """Write all pages, and the files that they link to, into an empty folder."""
    assert sorted(n for _, names in API for n in names) == sorted(glore.__all__)
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in pages().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        for link, _ in _LINK.findall(text):
            if link.startswith("files/"):
                (folder / link).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / link.removeprefix("files/"), folder / link)


if __name__ == "__main__":
    gather()
