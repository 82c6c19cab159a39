"""Solutions → a file in our own layout, with columns of a command's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from glore.formats import LabelledSolution
from glore.formats.layout import WriteOptions
from glore.formats.plain import PLAIN
from glore.formats.rows import is_columnar, write_rows

__all__ = ["write_plain"]


def write_plain(
    path: Path, solutions: Iterable[tuple[LabelledSolution, Mapping[str, object]]]
) -> int:
    """Write each solution with its own columns to a file, whole or not at all, as `glore export`
    does in the layout jsonl. Returns how many there were. Raises RunError, DataError.
    """
    options = WriteOptions(columnar=is_columnar(path))
    n = 0

    def rows() -> Iterator[dict[str, object]]:
        nonlocal n
        for solution, own in solutions:
            n += 1
            yield {**PLAIN.write(solution, options), **own}

    write_rows(path, rows())
    return n
