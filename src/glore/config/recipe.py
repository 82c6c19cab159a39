"""A recipe becomes settings: YAML, dotted overrides, and every mistake as one line in our words, with the nearest known key."""

from __future__ import annotations

import difflib
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from glore.config.run import RunConfig
from glore.errors import ConfigError, shown

__all__ = ["load_config"]


def load_config(recipe: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> RunConfig:
    """Read a recipe and apply dotted overrides such as `labels.rollouts=4` (values are YAML).

    Raises ConfigError naming the file, the key, the value and the mend.
    """
    path = Path(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"can't read the recipe {path}: {getattr(error, 'strerror', None) or error}; "
            "give the path of a YAML file such as recipes/quickstart.yaml"
        ) from error
    data = _parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a YAML mapping of settings, got {shown(data)}")
    data = {key: _unshared(value) for key, value in data.items()}
    for override in overrides:
        _apply(data, override)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, str(path))) from error


def _parse_yaml(text: str, where: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())[:200]}") from error


def _unshared(node: object) -> object:
    """A copy in which every YAML alias has become a value of its own, so that an override changes one place only."""
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


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


def _explain(error: ValidationError, where: str) -> str:
    """The first complaints of pydantic as one line in our words, nearest keys suggested."""
    lines = []
    for item in error.errors()[:3]:
        path = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _known_keys(item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"unknown key {shown(path)}; {hint}")
        elif item["type"] == "value_error":
            lines.append(f"{path + ': ' if path else ''}{item['msg'].removeprefix('Value error, ')}")
        elif item["type"] == "missing":
            lines.append(f"{path} is required")
        else:
            lines.append(f"{path}: {item['msg'][0].lower()}{item['msg'][1:]}, got {shown(item['input'])}")
    more = len(error.errors()) - len(lines)
    return f"{where}: " + "; ".join(lines) + (f" (and {more} more)" if more > 0 else "")


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
