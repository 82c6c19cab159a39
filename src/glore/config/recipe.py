"""From a recipe to settings: read YAML, apply dotted overrides, and report every mistake as one
line with the nearest known key.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from glore.config.kinds import KindSettings
from glore.config.packaged import packaged_recipes, recipe_path
from glore.config.resolved import (
    FILE_NAME,
    at_folder,
    check_complete,
    named_path,
    run_folder_of,
)
from glore.config.run import RunConfig
from glore.config.trust import drop_untrusted, untrusted
from glore.config.yaml_reader import MAX_BYTES, parse_yaml
from glore.errors import ConfigError, shown
from glore.files import read_given

__all__ = ["config_of", "load_config", "load_run", "section_of"]

S = TypeVar("S", bound=BaseModel)
_SECRET = re.compile(
    r"(^|[._-])(api_?keys?|keys?|tokens?|secrets?|passwords?)([._-]|$)", re.IGNORECASE
)
"""In the name of a setting, known or not: messages don't show its value."""


def load_config(recipe: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> RunConfig:
    """Read a recipe and apply dotted overrides such as `labels.rollouts=4` (values are YAML).

    `recipe` is a path or, as a text without `/` and `.`, the name of a recipe that comes with
    glore (`glore.config.packaged`).

    The `config.yaml` of a run stands for the run in its folder, wherever that is now. With `name`
    or `runs_dir` among the overrides it becomes another run. Settings that run commands or send a
    variable away count among the overrides only (`glore.config.trust`). Raises ConfigError naming
    the file, the key, the value and the fix.
    """
    path = _expanded(recipe_path(recipe) if isinstance(recipe, str) else recipe)
    folder = run_folder_of(path)
    if folder is None:
        return _read(path, overrides)
    config = _read(path, overrides, run_folder=folder)
    given = {override.partition("=")[0].strip() for override in overrides}
    return at_folder(config, folder).model_copy(
        update={key: getattr(config, key) for key in ("name", "runs_dir") if key in given}
    )


def config_of(
    data: Mapping[str, object], overrides: Sequence[str] = (), where: str = "the command line"
) -> RunConfig:
    """Settings that a user gave without a recipe, with dotted overrides. `where` names their place
    in errors. Raises ConfigError.
    """
    settings: dict[object, object] = {key: copy.deepcopy(value) for key, value in data.items()}
    for override in overrides:
        _apply(settings, override)
    return _checked(settings, where, overrides)


def section_of(
    kind: type[S], data: Mapping[str, object], overrides: Sequence[str], where: str
) -> S:
    """Settings of a class of their own, outside of a run's, with dotted overrides. `where` names
    their place in errors. Raises ConfigError.
    """
    settings: dict[object, object] = {key: copy.deepcopy(value) for key, value in data.items()}
    for override in overrides:
        _apply(settings, override)
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_explain(error, settings, where, overrides, kind)) from error


def load_run(folder: str | Path) -> RunConfig:
    """The settings of the run in `folder` as of its last `glore run`, to read its records or use
    its models.

    Settings that only the command line may give (`glore.config.trust`) are dropped. Raises
    ConfigError.
    """
    path = named_path(_expanded(Path(folder)))
    return at_folder(_read(path / FILE_NAME, run_folder=path, starts=False), path)


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: there is no such user; write the full path") from error


def _read(
    path: Path, overrides: Sequence[str] = (), run_folder: Path | None = None, starts: bool = True
) -> RunConfig:
    try:
        text = read_given(path, MAX_BYTES).decode()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"can't read the recipe {path}: {getattr(error, 'strerror', None) or error}; "
            f"{_instead(path)}"
        ) from error
    if run_folder is not None:
        check_complete(text, path)
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):  # it may be any file, even a key, so it is not shown
        kind = {list: "a list", str: "a text", type(None): "nothing"}.get(
            type(data), "a single value"
        )
        raise ConfigError(
            f"{path}: a recipe is a YAML mapping of settings, got {kind}; give a file such as "
            "recipes/quickstart.yaml"
        )
    if run_folder is not None:
        data |= {"name": "run", "runs_dir": "runs"}  # the folder replaces both
    given: dict[object, object] = {}
    for override in overrides:
        _apply(data, override)
        _apply(given, override)
    if not starts:
        drop_untrusted(data)
    elif problem := untrusted(data, given):
        raise ConfigError(f"{path}: {problem}")
    return _checked(data, str(path), overrides)


def _instead(path: Path) -> str:
    """What to give instead of a recipe that can't be read."""
    if path.stem in packaged_recipes() and path.parent.name == "recipes":
        return f"glore has that recipe inside: glore run {path.stem}"
    return "give the path of a YAML file, or the name of a recipe (glore recipes lists them)"


def _checked(data: dict[object, object], where: str, overrides: Sequence[str]) -> RunConfig:
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, data, where, overrides)) from error


def _apply(data: dict[object, object], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key.strip():
        raise ConfigError(
            f"an override is written key.path=value, got {_shown_override(override)}; for example "
            "labels.rollouts=4"
        )
    *parents, last = key.strip().split(".")
    node = data
    for name in parents:
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(
                f"override {_shown_override(override)}: {name} is a single value in the recipe, so "
                "nothing can be set below it"
            )
        node = child
    node[last] = parse_yaml(value, f"override {_shown_override(override)}", numbered=False)


def _shown_override(override: str) -> str:
    """An override as messages show it. A secret given as a setting is not shown."""
    key, sign, _ = override.partition("=")
    return shown(f"{key}{sign}…" if _SECRET.search(key) else override)


def _explain(
    error: ValidationError,
    data: dict[object, object],
    recipe: str,
    overrides: Sequence[str],
    kind: type[BaseModel] = RunConfig,
) -> str:
    """The first errors of pydantic as one line. Each follows the place to fix."""
    items = error.errors()
    messages: dict[str, list[str]] = {}
    for item in items[:3]:
        messages.setdefault(_origin(item["loc"], recipe, overrides), []).append(
            _message(item, data, kind)
        )
    more = f" (and {len(items) - 3} more)" if len(items) > 3 else ""
    return "; ".join(f"{where}: {'; '.join(lines)}" for where, lines in messages.items()) + more


def _origin(location: tuple[int | str, ...], recipe: str, overrides: Sequence[str]) -> str:
    """Where a refused value was given: in an override, in the recipe, or in both, for a section
    whose settings don't fit together.
    """
    target = [str(part) for part in location]
    paths = [(override.partition("=")[0].strip().split("."), override) for override in overrides]
    given = [override for path, override in paths if path == target[: len(path)]]
    if given:
        return f"override {_shown_override(given[-1])}"
    inside = [override for path, override in paths if path[: len(target)] == target]
    return f"{recipe} with {', '.join(map(_shown_override, inside))}" if inside else recipe


def _message(item: ErrorDetails, data: Mapping[object, object], kind: type[BaseModel]) -> str:
    """One error of pydantic in glore's words, with the nearest known key."""
    path = ".".join(str(p) for p in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1], data, kind)
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {shown(path)}; {hint}"
    if item["type"] == "value_error":
        return f"{path + ': ' if path else ''}{item['msg'].removeprefix('Value error, ')}"
    if item["type"] == "missing":
        return f"{path} is required"
    got = "a value that is not shown" if _SECRET.search(path) else shown(item["input"])
    return f"{path}: {item['msg'][0].lower()}{item['msg'][1:]}, got {got}"


def _known_keys(location: tuple[int | str, ...], data: object, model: type[BaseModel]) -> list[str]:
    """The settings of the section at a location in the data of settings of class `model`."""
    for name in location:
        field = model.model_fields.get(str(name))
        annotation = field.annotation if field else None
        options = (annotation, *getattr(annotation, "__args__", ()))
        sections = [a for a in options if isinstance(a, type) and issubclass(a, BaseModel)]
        if not sections:
            return []
        model = sections[0]
        data = data.get(name) if isinstance(data, Mapping) else None
        if issubclass(model, KindSettings) and isinstance(data, Mapping):
            model = model.kinds.class_for(data)
    return model.read_fields() if issubclass(model, KindSettings) else list(model.model_fields)
