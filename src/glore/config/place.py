"""A run's own `config.yaml`: what it looks like, and which folder it means. A run is the folder it
lies in.

Name and `runs_dir` in that file say where the run was when it was written. They count for nothing
once it is read: the folder may have been copied, moved, renamed or linked since.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from glore.config.run import RunConfig
from glore.errors import ConfigError

__all__ = ["FILE_NAME", "check_whole", "placed", "resolved_recipe", "run_folder_of", "with_name"]

FILE_NAME = "config.yaml"
_HEAD = "# Settings of the glore run in this folder, resolved. The last line is three dots.\n"
_END = "..."
_OWN_NAMES = re.compile(r"config\.yaml|stages|models|report|log|\..*")
"""What stands in a run folder."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def resolved_recipe(config: RunConfig) -> str:
    """All settings as the text of a run's `config.yaml`; its last line tells that it was not cut
    short.
    """
    settings = config.model_dump(mode="json")
    if not _NAME.fullmatch(config.name):  # a folder may be called what no recipe may call its run
        settings["name"] = ("run-" + re.sub(r"[^A-Za-z0-9._-]", "-", config.name))[:64]
    return _HEAD + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, explicit_end=True)


def run_folder_of(recipe: Path) -> Path | None:
    """The run folder that a file is the `config.yaml` of; none for any other recipe.

    It is one where stages have left their marks, or where glore wrote the file and put nothing else
    there but its own. The file may be reached over a link; one that is itself a link in a run
    folder belongs to the folder that the link is in.
    """
    for path in (recipe, recipe.resolve()):
        if path.name == FILE_NAME and path.is_file() and _is_run_folder(path.parent):
            return with_name(path.parent)
    return None


def _is_run_folder(folder: Path) -> bool:
    stages = folder / "stages"
    if any(any(stages.glob(f"*/{mark}")) for mark in ("done.json", "started.json")):
        return True
    is_ours = (folder / FILE_NAME).read_bytes().startswith(_HEAD.encode())
    return is_ours and (
        stages.is_dir() or all(_OWN_NAMES.fullmatch(p.name) for p in folder.iterdir())
    )


def with_name(folder: Path) -> Path:
    """The same folder by a path that ends in its name (`.` and `..` don't)."""
    return folder.resolve() if folder.name in ("", "..") else folder


def check_whole(text: str, path: Path) -> None:
    """Raise ConfigError where the `config.yaml` of a run was cut short: what is lost would silently
    count as default.
    """
    if _HEAD.startswith(text) or (
        text.startswith(_HEAD) and text.rstrip().rpartition("\n")[2] != _END
    ):
        raise ConfigError(
            f"{path} was cut short (its last line is not {_END!r}), so some of the run's settings "
            "are lost; put a whole copy of it back, or run the recipe that it came from with "
            "name=… and runs_dir=… of this folder"
        )


def placed(config: RunConfig, folder: Path) -> RunConfig:
    """The same settings for the run that lies in `folder`."""
    return config.model_copy(update={"runs_dir": str(folder.parent), "name": folder.name})
