"""Where rows come from: JSON-lines files, one JSON array, or a dataset of the Hugging Face Hub.

Every row remembers its place, so that whatever is wrong with it can be reported as file, line (1-based), field and mend.
Files are data from strangers: lines are bounded before they are decoded, numbers are read as exact decimals, and no
encoding but UTF-8 is guessed.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple, cast

from glore.errors import DataError, has_lone_surrogate, shown

__all__ = ["MAX_LINE_BYTES", "Row", "optional_text", "read_hub", "read_json_array", "read_jsonl", "text_field"]

MAX_LINE_BYTES = 2**20
MAX_FILE_BYTES = 2**28
"""A JSON array is read whole, so its file is bounded."""


class Row(NamedTuple):
    """One JSON object and its place, such as `data/train.jsonl, line 7`."""

    where: str
    fields: Mapping[str, object]


def read_jsonl(path: Path) -> list[Row]:
    """The objects of a JSON-lines file; empty lines are skipped. Raises DataError naming file, line and mend."""
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        text = _decoded(line, where, first=number == 1)
        if text.strip():
            rows.append(Row(where, _object(_parsed(text, where), where)))
    if not rows:
        raise DataError(f"{path} holds no problems; it needs one JSON object per line")
    return rows


def read_json_array(path: Path) -> list[Row]:
    """The objects of a file that holds one JSON array. Raises DataError naming file, line and mend."""
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB; turn it into JSON-lines files")
    data = b"".join(_lines(path, MAX_FILE_BYTES))
    text = _decoded(data, str(path), first=True)
    decoder = _decoder()
    at, line, seen = _skip(text, 0), 1, 0
    if text[at : at + 1] != "[":
        raise DataError(f"{path} must hold one JSON array of problems, got {shown(text[at : at + 40])}")
    rows = []
    at = _skip(text, at + 1)
    while text[at : at + 1] not in ("]", ""):
        line, seen = line + text.count("\n", seen, at), at
        where = f"{path}, line {line}"
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: {_reason(error)}") from error
        rows.append(Row(where, _object(value, where)))
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            break
    if text[at : at + 1] != "]":
        raise DataError(f"{path}, line {1 + text.count(chr(10), 0, at)}: the JSON array is cut off or lacks a comma; is the file complete?")
    if not rows:
        raise DataError(f"{path} holds no problems")
    return rows


def read_hub(name: str, config: str | None, splits: Iterable[str]) -> dict[str, list[Row]]:
    """Splits of a Hub dataset; a split that it lacks is left out. Raises DataError within seconds where the Hub can't be reached.

    With HF_HUB_OFFLINE=1 only datasets already in the cache are used.
    """
    hub = importlib.import_module("huggingface_hub")
    # `load_dataset` alone would retry for half a minute before it gives up.
    if not importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE:
        try:
            hub.HfApi().dataset_info(name, timeout=10)
        except Exception as error:
            raise DataError(_hub_trouble(name, error)) from error
    datasets = importlib.import_module("datasets")
    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:
        raise DataError(_hub_trouble(name, error)) from error
    out = {}
    for split in splits:
        if split in loaded:
            rows = cast("Iterable[Mapping[str, object]]", loaded[split])
            out[split] = [Row(f"{name} ({split}), row {i}", row) for i, row in enumerate(rows, start=1)]
    return out


def text_field(row: Row, *names: str) -> str:
    """A field as text: a non-empty string, or a number where a string could stand. Several names: the first that is there.

    Raises DataError naming the place, the field, the value and the mend.
    """
    for name in names:
        if name in row.fields:
            return _text(row, name, row.fields[name])
    known = ", ".join(sorted(map(str, row.fields))[:8]) or "none"
    raise DataError(f"{row.where}: the field '{names[0]}' is missing (fields there: {known}); add it")


def optional_text(row: Row, name: str) -> str | None:
    """Like `text_field`, but none where the field is absent, null or empty."""
    value = row.fields.get(name)
    return None if value is None or value == "" else _text(row, name, value)


def _text(row: Row, name: str, value: object) -> str:
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) and name in ("answer", "Answer", "id", "ID"):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{row.where}: the field '{name}' must be a text, got {shown(value)}")
    if not value.strip():
        raise DataError(f"{row.where}: the field '{name}' is empty")
    if has_lone_surrogate(value):
        raise DataError(f"{row.where}: the field '{name}' holds half a Unicode character (a lone surrogate); write the text again as UTF-8")
    return value


def _lines(path: Path, limit: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            number = 0
            while line := stream.readline(limit + 1):
                number += 1
                if len(line) > limit:
                    raise DataError(
                        f"{path}, line {number}: longer than {limit // 1024} KiB; check the line breaks (one problem is one line)"
                    )
                yield line
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}; check task.path") from error


def _decoded(data: bytes, where: str, first: bool) -> str:
    try:
        return data.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error


def _decoder() -> json.JSONDecoder:
    def refuse(name: str) -> object:
        raise ValueError(f"{name} is not a number of JSON")

    return json.JSONDecoder(parse_float=Decimal, parse_constant=refuse)


def _parsed(text: str, where: str) -> object:
    try:
        return cast(object, _decoder().decode(text))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at column {error.colno}); correct the line"
    return f"not usable JSON ({'nested too deeply' if isinstance(error, RecursionError) else shown(str(error))}); correct the line"


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a problem is a JSON object with named fields, got {shown(value)}")
    return cast("Mapping[str, object]", value)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _hub_trouble(name: str, error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"OfflineModeIsEnabled", "ConnectionError", "TransportError", "LocalEntryNotFoundError", "TimeoutError"}:
        offline = bool(os.environ.get("HF_HUB_OFFLINE"))
        if offline:
            return f"{name} is not in the local cache and HF_HUB_OFFLINE is set; unset it, or set task.path to local files"
        return f"can't reach the Hugging Face Hub for {name}; set task.path to local files, or HF_HUB_OFFLINE=1 to use a cached copy"
    if "RepositoryNotFoundError" in kinds:
        return f"the Hugging Face Hub has no dataset {shown(name)} (or it needs a login); check task.hub"
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"can't load {shown(name)} from the Hugging Face Hub: {shown(first_line, 160)}; check task.hub"
