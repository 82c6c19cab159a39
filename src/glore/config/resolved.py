"""The resolved settings in a run folder, `config.yaml`: written, recognised and checked.

A run is the folder that the file is in. The `name` and `runs_dir` in the file are ignored when it
is read, since the folder may have been copied, moved, renamed or linked.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from glore.config.run import RunConfig
from glore.errors import ConfigError

__all__ = [
    "FILE_NAME",
    "at_folder",
    "check_complete",
    "named_path",
    "resolved_recipe",
    "run_folder_of",
]

FILE_NAME = "config.yaml"
_HEAD = "# Settings of the glore run in this folder, resolved. The last line is three dots.\n"
_END = "..."
_OWN_NAMES = re.compile(r"config\.yaml|stages|models|report|log|studies|\..*")
"""Entries of a run folder."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def resolved_recipe(config: RunConfig) -> str:
    """All settings as the text of a run's `config.yaml`. Its last line marks it as complete."""
    settings = config.model_dump(mode="json")
    if not _NAME.fullmatch(config.name):  # a folder may have a name that recipes may not give
        settings["name"] = ("run-" + re.sub(r"[^A-Za-z0-9._-]", "-", config.name))[:64]
    return _HEAD + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, explicit_end=True)


def run_folder_of(recipe: Path) -> Path | None:
    """The run folder whose `config.yaml` this file is; none for any other recipe.

    A run folder has marks of stages, or a `config.yaml` that glore wrote and no other files but
    glore's. The file may be reached through a link. A `config.yaml` that is itself a link belongs
    to the folder that the link is in.
    """
    for path in (recipe, recipe.resolve()):
        if path.name == FILE_NAME and path.is_file() and _is_run_folder(path.parent):
            return named_path(path.parent)
    return None


def _is_run_folder(folder: Path) -> bool:
    stages = folder / "stages"
    if any(any(stages.glob(f"*/{mark}")) for mark in ("done.json", "started.json")):
        return True
    is_ours = (folder / FILE_NAME).read_bytes().startswith(_HEAD.encode())
    return is_ours and (
        stages.is_dir() or all(_OWN_NAMES.fullmatch(p.name) for p in folder.iterdir())
    )


def named_path(folder: Path) -> Path:
    """A path of the folder that ends in its name, which `.` and `..` don't."""
    return folder.resolve() if folder.name in ("", "..") else folder


def check_complete(text: str, path: Path) -> None:
    """Raise ConfigError if the `config.yaml` of a run was cut short. The lost settings would
    silently take their defaults.
    """
    if _HEAD.startswith(text) or (
        text.startswith(_HEAD) and text.rstrip().rpartition("\n")[2] != _END
    ):
        raise ConfigError(
            f"{path} was cut short (its last line is not {_END!r}), so some of the run's settings "
            "are lost; restore a complete copy, or run the original recipe with name=… and "
            "runs_dir=… of this folder"
        )


def at_folder(config: RunConfig, folder: Path) -> RunConfig:
    """The same settings for the run in `folder`."""
    return config.model_copy(update={"runs_dir": str(folder.parent), "name": folder.name})
