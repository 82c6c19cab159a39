"""Fingerprints: what a stage's result was made from, as one short hash, and what changed, in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from pydantic import BaseModel

from glore.config import RunConfig
from glore.errors import shown

__all__ = ["difference", "fingerprint_of", "flat_settings"]


def fingerprint_of(data: object) -> str:
    """A short hash of JSON-like data, the same on every machine."""
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=10).hexdigest()


def flat_settings(value: object, config: RunConfig) -> dict[str, object]:
    """Settings as dotted path → plain value; a section of the config gets its path there, so that a change can be named."""
    paths: dict[int, str] = {}

    def locate(section: BaseModel, path: str) -> None:
        paths[id(section)] = path
        for name in type(section).model_fields:
            child = getattr(section, name)
            if isinstance(child, BaseModel):
                locate(child, f"{path}.{name}" if path else name)

    flat: dict[str, object] = {}

    def flatten(item: object, path: str) -> None:
        if isinstance(item, BaseModel):
            at = paths.get(id(item), path)
            for name in type(item).model_fields:
                flatten(getattr(item, name), f"{at}.{name}" if at else name)
        elif isinstance(item, dict):
            for key in item:
                flatten(item[key], f"{path}.{key}" if path else str(key))
        elif isinstance(item, tuple | list):
            for index, element in enumerate(item):
                flatten(element, f"{path}.{index}" if path else str(index))
        elif item is None or isinstance(item, str | int | float | bool):
            flat[path or "value"] = item
        else:
            raise TypeError(f"settings of a stage must be sections and plain values, got {type(item).__name__} at {path or 'the top'}")

    locate(config, "")
    flatten(value, "")
    return flat


def difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """Why a fingerprint no longer fits, in words. Both hold `settings`, `inputs`, `stage_version` and `schema_version`."""
    before, now = _mapping(old, "settings"), _mapping(new, "settings")
    reasons = [
        f"{key} {shown(before[key], 30) if key in before else 'unset'} → {shown(now[key], 30) if key in now else 'unset'}"
        for key in sorted({*before, *now})
        if (key in before, before.get(key)) != (key in now, now.get(key))
    ]
    before, now = _mapping(old, "inputs"), _mapping(new, "inputs")
    stale = [name for name in now if before.get(name) != now[name]]
    if stale:
        reasons.append(f"made from another {', '.join(stale)}")
    if old.get("stage_version") != new["stage_version"]:
        reasons.append("the stage's code has another version")
    if old.get("schema_version") != new["schema_version"]:
        reasons.append("the records have another schema")
    if len(reasons) > 4:
        reasons[4:] = [f"and {len(reasons) - 4} more"]
    return "; ".join(reasons) or "made under another fingerprint"


def _mapping(data: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
