"""The settings that a run's records were made with: what the stages noted, not what config.yaml
says now.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from glore.config import RunConfig, load_run
from glore.errors import RunError, shown
from glore.fingerprints import flat_settings
from glore.marks import DoneMark, read_done
from glore.stages import build_stages

__all__ = ["changed_since", "made_with", "marks_of"]


def marks_of(run_dir: Path, config: RunConfig) -> list[DoneMark]:
    """The marks of the run's finished stages, in their order. Raises RunError for one that can't be
    read.
    """
    marks = (read_done(run_dir / "stages" / stage.name) for stage in build_stages(config))
    return [mark for mark in marks if mark is not None]


def made_with(run_dir: Path) -> RunConfig:
    """The settings in config.yaml, but those that the stages noted as they noted them. Raises
    RunError, ConfigError.
    """
    config = load_run(run_dir)
    settings = config.model_dump(mode="json")
    # Which stages there are is a setting itself: the second pass knows them all.
    for _ in range(2):
        for mark in marks_of(run_dir, config):
            for path, value in _nested(mark.settings).items():
                _put(settings, path, value)
        try:
            config = RunConfig.model_validate({**settings, "name": "run", "runs_dir": "runs"}).model_copy(
                update={"name": config.name, "runs_dir": config.runs_dir}
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise RunError(
                f"{run_dir}: its stages note settings that this release can't read "
                f"({shown(place, 60)}: {shown(first['msg'], 80)}); use the release that made the run"
            ) from error
    return config


def changed_since(made: RunConfig, now: RunConfig) -> list[str]:
    """Settings that config.yaml gives another value than the records were made with, as `path: made
    → now`.
    """
    before, after = (flat_settings(config, config) for config in (made, now))
    paths = sorted(path for path in {*before, *after} if path not in ("name", "runs_dir") and before.get(path) != after.get(path))
    return [f"{path}: {shown(before.get(path), 40)} → {shown(after.get(path), 40)}" for path in paths]


def _nested(flat: Mapping[str, object]) -> dict[str, object]:
    """Dotted paths whose values are plain or lists: `x.0`, `x.1` become a list at `x`. Facts that
    are no settings are left out.

    What stages note of the engine goes by names of its own (`engine_key`); of these, `engine.dtype`
    alone is a setting.
    """
    out: dict[str, object] = {}
    lists: dict[str, dict[int, object]] = {}
    for path, value in flat.items():
        parent, _, last = path.rpartition(".")
        if path.startswith("content of ") or (path.startswith("engine.") and path != "engine.dtype"):
            continue
        if last.isdecimal():
            lists.setdefault(parent, {})[int(last)] = value
        else:
            out[path] = value
    return out | {path: [items[i] for i in sorted(items)] for path, items in lists.items()}


def _put(settings: dict[str, object], path: str, value: object) -> None:
    """Set the value at a dotted path; a section that is null now (`lora`) comes back with its keys."""
    *parents, last = path.split(".")
    node = settings
    for name in parents:
        child = node.get(name)
        if not isinstance(child, dict):
            if name not in node:
                return  # no setting of this release
            child = node[name] = {}
        node = child
    node[last] = value
