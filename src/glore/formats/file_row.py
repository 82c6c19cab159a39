"""A row of a file, and its place."""

from __future__ import annotations

from typing import NamedTuple, cast

from glore.errors import shown
from glore.formats.fields import FieldError, Fields

__all__ = ["FileRow", "row_of"]


class FileRow(NamedTuple):
    """A row and its place; `fields` is none for a row that can't be read."""

    where: str
    fields: Fields | None
    fault: FieldError | None = None


def row_of(where: str, value: object) -> FileRow:
    """A value from a file → a row; a fault if it is no object."""
    if isinstance(value, dict):
        return FileRow(where, cast(Fields, value))
    rule = f"must be a JSON object with named fields, got {shown(value)}"
    return FileRow(where, None, FieldError("the row", rule))
