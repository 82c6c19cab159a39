"""The settings that a run's records were made with, from the marks of its stages. config.yaml may
have changed since.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from glore.config import RunConfig, load_run
from glore.config.section import newer_settings
from glore.digests import is_inside
from glore.errors import RunError, shown
from glore.pipeline.fingerprints import flat_settings
from glore.pipeline.marks import DoneMark, read_done, read_started

__all__ = ["changed_since", "made_with", "marks_behind", "noted_values"]


def marks_behind(run_dir: Path, stages: Sequence[str]) -> list[DoneMark]:
    """The marks of these stages and of their inputs, as far as they are done; each after its
    inputs. Raises RunError for a mark that can't be read.
    """
    found: dict[str, DoneMark | None] = {}

    def visit(name: str) -> None:
        if name in found or not is_inside(name):
            return
        mark = found[name] = read_done(run_dir / "stages" / name)
        for source in mark.inputs if mark else ():
            visit(source)
        if mark is not None:
            ordered.append(mark)

    ordered: list[DoneMark] = []
    for stage in stages:
        visit(stage)
    return ordered


def noted_values(run_dir: Path, setting: str) -> set[object]:
    """The values of a setting (a dotted path) that the marks of a run's stages note, of unfinished
    ones too. Marks that can't be read are left out: planning reports them.
    """
    found: set[object] = set()
    for folder in sorted(run_dir.glob("stages/*/")):
        with contextlib.suppress(RunError):
            mark = read_done(folder) or read_started(folder)
            value = mark.settings.get(setting) if mark else None
            if isinstance(value, str | int | float):
                found.add(value)
    return found


def made_with(run_dir: Path, stages: Sequence[str]) -> RunConfig:
    """The settings in config.yaml, with the values that these stages and their inputs recorded.
    Raises RunError, ConfigError.
    """
    now = load_run(run_dir)
    settings = now.model_dump(mode="json")
    marks = marks_behind(run_dir, stages)
    for mark in marks:
        _merge(settings, _tree(mark.settings))
    noted = {path for mark in marks for path in mark.settings}
    for path, default in newer_settings(RunConfig) if marks else ():
        # Marks leave out these defaults, and those of a section that is not there.
        if path not in noted and _has_section(settings, path):
            _merge(settings, _tree({path: default}))
    try:
        made = RunConfig.model_validate({**settings, "name": "run", "runs_dir": "runs"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise RunError(
            f"{run_dir}: its stages note settings that this release can't read "
            f"({shown(place, 60)}: {shown(first['msg'], 80)}); use the release that made the run"
        ) from error
    return made.model_copy(update={"name": now.name, "runs_dir": now.runs_dir})


def changed_since(made: RunConfig, now: RunConfig) -> list[str]:
    """Settings that config.yaml gives another value than the records were made with, as `path: made
    → now`.
    """
    before, after = (flat_settings(config) for config in (made, now))
    paths = sorted(
        path
        for path in {*before, *after}
        if path not in ("name", "runs_dir") and before.get(path) != after.get(path)
    )
    return [
        f"{path}: {shown(before.get(path), 40)} → {shown(after.get(path), 40)}" for path in paths
    ]


def _tree(flat: Mapping[str, object]) -> dict[str, object]:
    """Dotted paths as nested sections; `x.0`, `x.1` become a list at `x`. Facts that are no
    settings are left out: of the engine, stages note what results depend on by names of its own
    (`fingerprint_fields`), of which `engine.dtype` alone is a setting.
    """
    lists: dict[str, dict[int, object]] = {}
    plain: dict[str, object] = {}
    for path, value in flat.items():
        parent, _, last = path.rpartition(".")
        if path.startswith("content of ") or (
            path.startswith("engine.") and path != "engine.dtype"
        ):
            continue
        if last.isdecimal():
            lists.setdefault(parent, {})[int(last)] = value
        else:
            plain[path] = value
    tree: dict[str, object] = {}
    for path, value in (
        plain | {path: [items[i] for i in sorted(items)] for path, items in lists.items()}
    ).items():
        *parents, last = path.split(".")
        node = tree
        for name in parents:
            below = node.setdefault(name, {})
            node = below if isinstance(below, dict) else {}
        node[last] = value
    return tree


def _has_section(settings: Mapping[str, object], path: str) -> bool:
    """Whether the section of the setting at a dotted path is there."""
    node: object = settings
    for name in path.split(".")[:-1]:
        node = node.get(name) if isinstance(node, Mapping) else None
    return isinstance(node, Mapping)


def _merge(settings: dict[str, object], noted: Mapping[str, object]) -> None:
    """Put the noted values in the place of those in `settings`, where this release has such
    settings. A section noted with another `kind` is taken whole: other kinds have other settings.
    """
    if noted.get("kind", settings.get("kind")) != settings.get("kind"):
        settings.clear()
        settings.update(noted)
    for name in settings.keys() & noted.keys():
        here, there = settings[name], noted[name]
        if isinstance(here, dict) and isinstance(there, dict):
            _merge(here, there)
        else:
            settings[name] = there
