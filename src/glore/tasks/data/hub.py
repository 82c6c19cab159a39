"""Rows and files of datasets on the Hugging Face Hub."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from glore.errors import DataError, shown
from glore.tasks.data.row import Row

__all__ = ["hub_folder", "read_hub"]


def read_hub(name: str, config: str | None, splits: Iterable[str]) -> dict[str, list[Row]]:
    """Rows of the splits that a Hub dataset has, by split. Raises DataError, within seconds if the
    Hub can't be reached.

    With HF_HUB_OFFLINE=1 only datasets in the cache are used. A dataset's loading script is never
    run: `datasets` refuses it.
    """
    _check_reachable(name, None)
    datasets = importlib.import_module("datasets")
    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:
        raise DataError(_explained(name, error)) from error
    out = {}
    for split in splits:
        if split in loaded:
            rows = cast("Iterable[Mapping[str, object]]", loaded[split])
            out[split] = [
                Row(f"{name} ({split}), row {i}", row) for i, row in enumerate(rows, start=1)
            ]
    return out


def hub_folder(name: str, revision: str, patterns: Sequence[str]) -> Path:
    """A folder in the cache with a Hub dataset's files at a commit, tag or branch that match these
    patterns. Raises DataError.

    `load_dataset` can't replace this: without the Hub it takes the newest copy in its cache,
    whatever the revision.
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
        raise DataError(_explained(f"{name}@{revision}", error)) from error
    return Path(folder)


def _check_reachable(name: str, revision: str | None) -> None:
    if os.path.exists(name):
        raise DataError(
            f"task.hub {shown(name)} is also a local folder, which would be read instead; set "
            "task.path, or work in another folder"
        )
    # `load_dataset` alone would retry for half a minute before it gives up.
    if not _is_offline():
        try:
            importlib.import_module("huggingface_hub").HfApi().dataset_info(
                name, revision=revision, timeout=10
            )
        except Exception as error:
            raise DataError(_explained(name, error)) from error


def _is_offline() -> bool:
    return bool(importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE)


def _explained(name: str, error: Exception) -> str:
    """One line about an error of the Hub's client: what failed, and the fix."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {
        "OfflineModeIsEnabled",
        "ConnectionError",
        "TransportError",
        "LocalEntryNotFoundError",
        "TimeoutError",
    }:
        if _is_offline():
            return (
                f"{name} is not in the local cache and HF_HUB_OFFLINE is set; unset it, or set "
                "task.path to local files"
            )
        return (
            f"can't reach the Hugging Face Hub for {name}; set task.path to local files, or "
            "HF_HUB_OFFLINE=1 to use a cached copy"
        )
    if "RevisionNotFoundError" in kinds:
        return (
            f"the dataset {shown(name)} has no such revision on the Hugging Face Hub; check "
            "task.revision"
        )
    if "RepositoryNotFoundError" in kinds:
        return (
            f"the Hugging Face Hub has no dataset {shown(name)} (or it needs a login); check "
            "task.hub"
        )
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"can't load {shown(name)} from the Hugging Face Hub: {shown(first_line, 160)}; check "
        "task.hub"
    )
