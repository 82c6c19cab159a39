"""A row of data and its fields, and rows from the Hugging Face Hub (`readers` has those from
files).

Every row remembers its place, so that whatever is wrong with it can be reported as file, line
(1-based), field and mend.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple, cast

from glore.errors import DataError, has_lone_surrogate, printable, shown

__all__ = ["Row", "hub_folder", "optional_text", "read_hub", "text_field"]


class Row(NamedTuple):
    """Named fields and their place, such as `data/train.jsonl, line 7`."""

    where: str
    fields: Mapping[str, object]


def read_hub(name: str, config: str | None, splits: Iterable[str]) -> dict[str, list[Row]]:
    """Splits of a Hub dataset; a split that it lacks is left out. Raises DataError within seconds
    where the Hub can't be reached.

    With HF_HUB_OFFLINE=1 only datasets already in the cache are used. Code that lies beside a
    dataset is never run: `datasets` refuses it.
    """
    _check_reachable(name, None)
    datasets = importlib.import_module("datasets")
    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:
        raise DataError(_hub_trouble(name, error)) from error
    out = {}
    for split in splits:
        if split in loaded:
            rows = cast("Iterable[Mapping[str, object]]", loaded[split])
            out[split] = [
                Row(f"{name} ({split}), row {i}", row) for i, row in enumerate(rows, start=1)
            ]
    return out


def hub_folder(name: str, revision: str, patterns: Sequence[str]) -> Path:
    """A Hub dataset's files of these patterns as they are at a commit, tag or branch, in the cache.
    Raises DataError.

    `load_dataset` won't do: where it can't reach the Hub it takes the newest copy in its cache,
    whatever revision was asked for.
    """
    _check_reachable(name, revision)
    hub = importlib.import_module("huggingface_hub")
    try:
        folder = hub.snapshot_download(
            name,
            repo_type="dataset",
            revision=revision,
            allow_patterns=list(patterns),
            local_files_only=_is_offline(),
        )
    except Exception as error:
        raise DataError(_hub_trouble(f"{name}@{revision}", error)) from error
    return Path(folder)


def _check_reachable(name: str, revision: str | None) -> None:
    if os.path.exists(name):
        raise DataError(
            f"task.hub {shown(name)} is also a folder here, which would be read instead; set "
            "task.path, or work elsewhere"
        )
    # `load_dataset` alone would retry for half a minute before it gives up.
    if not _is_offline():
        try:
            importlib.import_module("huggingface_hub").HfApi().dataset_info(
                name, revision=revision, timeout=10
            )
        except Exception as error:
            raise DataError(_hub_trouble(name, error)) from error


def text_field(row: Row, *names: str) -> str:
    """A field as text: a non-empty string, or a number where a string could stand. Several names:
    the first that holds one.

    Raises DataError naming the place, the field, the value and the mend.
    """
    there = [name for name in names if name in row.fields]
    if there:
        name = next((n for n in there if row.fields[n] is not None), there[0])
        return _text(row, name, row.fields[name])
    known = (
        ", ".join(printable(str(field), 40) for field in sorted(map(str, row.fields))[:8]) or "none"
    )
    raise DataError(
        f"{row.where}: the field '{names[0]}' is missing (fields there: {known}); add it"
    )


def optional_text(row: Row, name: str) -> str | None:
    """Like `text_field`, but none where the field is absent, null or empty."""
    value = row.fields.get(name)
    # Pandas writes what is missing as a number that is none.
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
            f"{row.where}: the field '{name}' holds half a Unicode character (a lone surrogate); "
            "write the text again as UTF-8"
        )
    return value


def _is_offline() -> bool:
    return bool(importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE)


def _hub_trouble(name: str, error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {
        "OfflineModeIsEnabled",
        "ConnectionError",
        "TransportError",
        "LocalEntryNotFoundError",
        "TimeoutError",
    }:
        if _is_offline():
            return f"{name} is not in the local cache and HF_HUB_OFFLINE is set; unset it, or set task.path to local files"
        return f"can't reach the Hugging Face Hub for {name}; set task.path to local files, or HF_HUB_OFFLINE=1 to use a cached copy"
    if "RevisionNotFoundError" in kinds:
        return f"the data set {shown(name)} has no such revision on the Hugging Face Hub; check task.revision"
    if "RepositoryNotFoundError" in kinds:
        return f"the Hugging Face Hub has no dataset {shown(name)} (or it needs a login); check task.hub"
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"can't load {shown(name)} from the Hugging Face Hub: {shown(first_line, 160)}; check task.hub"
