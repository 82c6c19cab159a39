"""The recipes that come with glore. `glore run quickstart` means one of them."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from glore.errors import ConfigError, shown

__all__ = ["packaged_recipes", "recipe_path", "recipe_summary", "recipes_folder"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""Neither a folder nor a suffix: everything else is a path."""


def recipes_folder() -> Path:
    """The folder of the recipes: inside the package where a wheel is installed, and beside `src/`
    in a checkout.
    """
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def packaged_recipes() -> dict[str, Path]:
    """Name → file of every recipe, by name."""
    return {path.stem: path for path in sorted(recipes_folder().glob("*.yaml"))}


def recipe_path(given: str) -> Path:
    """What a user gave as a recipe → the file that is meant.

    A text without `/` and `.` is the name of a packaged recipe, everything else is a path. A file
    `NAME`, `NAME.yaml` or `NAME.yml` in the working directory is neither hidden by a packaged
    recipe nor does it hide one: then the name is refused. Without such a recipe, a file `NAME` is
    that file. Raises ConfigError.
    """
    if not _NAME.fullmatch(given):
        return Path(given)
    here = [Path(given + suffix) for suffix in ("", ".yaml", ".yml")]
    here = [path for path in here if path.is_file()]
    known = packaged_recipes()
    if given in known and here:
        raise ConfigError(
            f"{given} may be the file {here[0]} in this folder or glore's own recipe; write "
            f'./{here[0]} for the file, or "$(glore recipes {given} --path)" for the recipe'
        )
    if given in known:
        return known[given]
    if here and here[0].name == given:
        return here[0]
    near = [str(path) for path in here] or difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
    raise ConfigError(
        f"there is no recipe {shown(given)}; {hint} For a file of your own give its path, such as "
        f"{given}.yaml"
    )


def recipe_summary(path: Path) -> str:
    """The first sentence of the comment that a recipe begins with; empty if there is none."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return re.split(r"\. +(?=[A-Z])", " ".join(comment), maxsplit=1)[0].rstrip(".")
