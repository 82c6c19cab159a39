"""A row of data and its fields.

Every row remembers its place, so that errors name file, line (1-based), field and fix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from glore.errors import DataError, has_lone_surrogate, printable, shown

__all__ = ["Row", "optional_text", "text_field"]


class Row(NamedTuple):
    """Named fields, and where they are, such as `data/train.jsonl, line 7`."""

    where: str
    fields: Mapping[str, object]


def text_field(row: Row, *names: str) -> str:
    """A field as text: a non-empty string, or a number for an answer or id. Of several names, the
    first with a value counts.

    Raises DataError naming the row, the field, the value and the fix.
    """
    present = [name for name in names if name in row.fields]
    if present:
        name = next((n for n in present if row.fields[n] is not None), present[0])
        return _text(row, name, row.fields[name])
    known = (
        ", ".join(printable(str(field), 40) for field in sorted(map(str, row.fields))[:8]) or "none"
    )
    raise DataError(
        f"{row.where}: the field '{names[0]}' is missing (the row has: {known}); add it"
    )


def optional_text(row: Row, name: str) -> str | None:
    """Like `text_field`; none if the field is absent, null or empty."""
    value = row.fields.get(name)
    # Pandas writes a missing value as NaN.
    missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
    return None if missing else _text(row, name, value)


def _text(row: Row, name: str, value: object) -> str:
    if (
        isinstance(value, (int, float, Decimal))
        and not isinstance(value, bool)
        and name in ("answer", "Answer", "id", "ID")
    ):
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError(
                f"{row.where}: the field '{name}' is {value}, no finite number; correct it or "
                "remove the row"
            )
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{row.where}: the field '{name}' must be a text, got {shown(value)}")
    if not value.strip():
        raise DataError(f"{row.where}: the field '{name}' is empty")
    if has_lone_surrogate(value):
        raise DataError(
            f"{row.where}: the field '{name}' has half a Unicode character (a lone surrogate); "
            "write the text again as UTF-8"
        )
    return value
