"""Fields of a row of a foreign file, checked.

Every check raises a `FieldError` that names the field. Whoever reads the file adds the row's place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from glore.errors import has_lone_surrogate, shown
from glore.formats.labelled import Label

__all__ = [
    "MASKED",
    "FieldError",
    "Fields",
    "labels_of",
    "objects",
    "optional_text",
    "others",
    "text",
    "texts",
    "truth",
]

Fields = Mapping[str, object]

MASKED = -100
"""What trainers put where a loss is not taken. It is never a label."""


class FieldError(Exception):
    """A row that does not fit its layout."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


def text(fields: Fields, name: str) -> str:
    """A field that is a text. Raises FieldError."""
    return _text(name, _present(fields, name))


def texts(fields: Fields, name: str) -> tuple[str, ...]:
    """A field that is a non-empty list of texts. Raises FieldError."""
    return tuple(_text(f"{name}[{i}]", item) for i, item in enumerate(_items(fields, name)))


def objects(fields: Fields, name: str) -> list[Fields]:
    """A field that is a list of objects. Raises FieldError."""
    found = []
    for i, item in enumerate(_items(fields, name)):
        if not isinstance(item, dict):
            raise FieldError(f"{name}[{i}]", f"must be an object, got {shown(item)}")
        found.append(cast(Fields, item))
    return found


def truth(fields: Fields, name: str) -> bool | None:
    """An optional field that is true or false. Raises FieldError."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise FieldError(name, f"must be true, false or null, got {shown(value)}")
    return value


def optional_text(fields: Fields, name: str) -> str | None:
    """An optional field that is a text. Raises FieldError."""
    value = fields.get(name)
    return None if value is None else _text(name, value)


def labels_of(
    fields: Fields,
    name: str,
    n_steps: int,
    words: Mapping[str, Label],
    *,
    missing: bool = False,
) -> tuple[Label, ...]:
    """A field with one label per step. `words`: texts that are labels; `missing`: may one be null?

    True, false, 1 and 0 are hard labels. A list with a fraction, or with 1.0, holds probabilities.
    Raises FieldError.
    """
    items = _items(fields, name)
    if len(items) != n_steps:
        raise FieldError(name, f"{len(items)} labels for {n_steps} steps; give one per step")
    soft = any(isinstance(item, float) for item in items)
    return tuple(_label(f"{name}[{i}]", item, words, soft, missing) for i, item in enumerate(items))


def others(fields: Fields, *names: str) -> dict[str, object]:
    """The fields with other names."""
    return {name: value for name, value in fields.items() if name not in names}


def _present(fields: Fields, name: str) -> object:
    if name not in fields:
        raise FieldError(name, "is missing")
    return fields[name]


def _items(fields: Fields, name: str) -> Sequence[object]:
    value = _present(fields, name)
    if not isinstance(value, list):
        raise FieldError(name, f"must be a list, got {shown(value)}")
    if not value:
        raise FieldError(name, "is empty; give at least one step")
    return value


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise FieldError(where, f"must be a text, got {shown(value)}")
    if has_lone_surrogate(value):
        raise FieldError(
            where, "has half a Unicode character (a lone surrogate); write it as UTF-8"
        )
    return value


def _label(
    where: str, item: object, words: Mapping[str, Label], soft: bool, missing: bool
) -> Label:
    if isinstance(item, bool):
        return item
    if isinstance(item, str) and item in words:
        return words[item]
    if item is None and missing:
        return None
    if isinstance(item, int | float) and item == MASKED:
        raise FieldError(where, f"{MASKED} masks a position in a loss and is no label")
    if isinstance(item, int | float) and math.isfinite(item) and 0 <= item <= 1:
        if soft:
            return float(item)
        return item == 1
    known = ["true", "false", "a number from 0 to 1", *map(repr, words), *["null"] * missing]
    raise FieldError(where, f"{shown(item)} is no label; give one of {', '.join(known)}")
