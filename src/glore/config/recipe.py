"""A recipe becomes settings: YAML, dotted overrides, and every mistake as one line in our words, with the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from glore.config.place import FILE_NAME, check_whole, placed, run_folder_of, with_name
from glore.config.run import RunConfig
from glore.errors import ConfigError, shown

__all__ = ["load_config", "load_run"]

_MAX_DEPTH = 16
_TOO_DEEP = f"nested more than {_MAX_DEPTH} deep, or a value that holds itself; no setting lies so deep, so check brackets and aliases"


def load_config(recipe: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> RunConfig:
    """Read a recipe and apply dotted overrides such as `labels.rollouts=4` (values are YAML).

    The `config.yaml` of a run means the run in the folder it lies in, wherever that is now; with `name` or `runs_dir` among the overrides,
    another run beside it or there. Raises ConfigError naming the file, the key, the value and the mend.
    """
    path = Path(recipe)
    folder = run_folder_of(path)
    if folder is None:
        return _read(path, overrides)
    config = _read(path, overrides, run_folder=folder)
    given = {override.partition("=")[0].strip() for override in overrides}
    place = placed(config, folder)
    return place.model_copy(update={key: getattr(config, key) for key in ("name", "runs_dir") if key in given})


def load_run(folder: str | Path) -> RunConfig:
    """The settings of the run that lies in `folder`, as of its last `glore run`. Raises ConfigError."""
    place = with_name(Path(folder))
    return placed(_read(Path(folder) / FILE_NAME, run_folder=place), place)


def _read(path: Path, overrides: Sequence[str] = (), run_folder: Path | None = None) -> RunConfig:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"can't read the recipe {path}: {getattr(error, 'strerror', None) or error}; "
            "give the path of a YAML file such as recipes/quickstart.yaml"
        ) from error
    if run_folder is not None:
        check_whole(text, path)
    data = _parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a YAML mapping of settings, got {shown(data)}")
    if run_folder is not None:
        data |= {"name": "run", "runs_dir": "runs"}  # where it is says both
    for override in overrides:
        _apply(data, override)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, str(path), overrides)) from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would take the last. What `<<` brings along may be given anew."""

    def compose_mapping_node(self, anchor: dict[object, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    problem = f"the key {shown(key.value)} stands here again after line {lines[key.value]}; keep one of them"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                lines[key.value] = key.start_mark.line + 1
        return node


def _parse_yaml(text: str, where: str) -> object:
    try:
        return _unshared(yaml.load(text, _Loader), where)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())[:200]}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: {_TOO_DEEP}") from error


def _unshared(node: object, where: str, depth: int = 0) -> object:
    """A copy in which every YAML alias has become a value of its own, so that an override changes one place only."""
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{where}: {_TOO_DEEP}")
    if isinstance(node, dict):
        return {key: _unshared(value, where, depth + 1) for key, value in node.items()}
    return [_unshared(value, where, depth + 1) for value in node] if isinstance(node, list) else node


def _apply(data: dict[object, object], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"an override is written key.path=value, got {shown(override)}; for example labels.rollouts=4")
    *parents, last = key.strip().split(".")
    node = data
    for name in parents:
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {shown(override)}: {name} is a single value in the recipe, so nothing can be set below it")
        node = child
    node[last] = _parse_yaml(value, f"override {shown(override)}")


def _explain(error: ValidationError, recipe: str, overrides: Sequence[str]) -> str:
    """The first complaints of pydantic as one line in our words, each after the place to mend."""
    items = error.errors()
    complaints: dict[str, list[str]] = {}
    for item in items[:3]:
        complaints.setdefault(_origin(item["loc"], recipe, overrides), []).append(_complaint(item))
    more = f" (and {len(items) - 3} more)" if len(items) > 3 else ""
    return "; ".join(f"{where}: {'; '.join(lines)}" for where, lines in complaints.items()) + more


def _origin(location: tuple[int | str, ...], recipe: str, overrides: Sequence[str]) -> str:
    """Where a refused value was given: in an override, in the recipe, or, for a section that doesn't fit together, in both."""
    place = [str(part) for part in location]
    paths = [(override.partition("=")[0].strip().split("."), override) for override in overrides]
    given = [override for path, override in paths if path == place[: len(path)]]
    if given:
        return f"override {shown(given[-1])}"
    inside = [override for path, override in paths if path[: len(place)] == place]
    return f"{recipe} with {shown(' '.join(inside))}" if inside else recipe


def _complaint(item: ErrorDetails) -> str:
    """One complaint in our words, the nearest key suggested."""
    path = ".".join(str(p) for p in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {shown(path)}; {hint}"
    if item["type"] == "value_error":
        return f"{path + ': ' if path else ''}{item['msg'].removeprefix('Value error, ')}"
    if item["type"] == "missing":
        return f"{path} is required"
    return f"{path}: {item['msg'][0].lower()}{item['msg'][1:]}, got {shown(item['input'])}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for name in location:
        field = model.model_fields.get(str(name))
        if field is None:
            return []
        nested = [
            a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)
