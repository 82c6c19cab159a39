"""Which files are a task's train, dev and test: in a folder of JSON lines, Parquet and the like, in
the output of `save_to_disk`, or in a clone of a Hub dataset.

Only names and small metadata files (`metadata`) are read, nothing is executed, and files outside
the folder are never used. Ambiguous folders are refused. `readers` reads the files;
`open.data_contents` hashes them.
"""

from __future__ import annotations

import re
from pathlib import Path

from glore.config import DatasetTaskSettings
from glore.errors import ConfigError, DataError, shown
from glore.tasks.data.metadata import (
    ONE_NEEDED,
    SPLIT_WORDS,
    Parts,
    described,
    listed,
    saved,
    walk,
)
from glore.tasks.data.readers import data_suffix

__all__ = ["SPLIT_FILES", "Parts", "find_data", "find_in_folder"]

SPLIT_FILES = {"train": "train.jsonl", "test": "test.jsonl", "dev": "dev.jsonl"}
"""The files of the simplest data folder; `dev` may be missing."""
_NO_DATA = (
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "config.json",
)
_SHARD = re.compile(r"(?P<stem>.*)-(?P<index>[0-9]{5})-of-(?P<n>[0-9]{5})(?=\.)")


def find_data(settings: DatasetTaskSettings) -> Parts:
    """The files at `task.path`, by split. Raises DataError if there are none or the choice is
    ambiguous, ConfigError for a wrong `task.config`.
    """
    path = Path(settings.path or "").expanduser()
    usual = settings.usual
    if path.is_file():
        if settings.config is not None:
            raise ConfigError(
                f"task.config {shown(settings.config)} is for folders, but task.path {path} is a "
                "file; set it to null"
            )
        if not usual.may_be_cut:
            raise DataError(
                f"task.path {path} is a file, but {settings.kind} needs the folder with "
                "train.jsonl and test.jsonl"
            )
        return {"all": (path,)}
    if not path.is_dir():
        raise DataError(
            f"task.path {path} does not exist; give the folder (or file) with the {settings.kind} "
            "data"
        )
    if usual.whole_file and (path / usual.whole_file).is_file():
        return {"all": (path / usual.whole_file,)}
    return find_in_folder(path, settings)


def find_in_folder(path: Path, settings: DatasetTaskSettings) -> Parts:
    """As `find_data`, for a folder, which may be a clone or a cached copy of a Hub dataset."""
    usual = settings.usual
    exact: Parts = {
        split: (path / name,) for split, name in SPLIT_FILES.items() if (path / name).is_file()
    }
    if settings.config is None and {"train", "test"} <= exact.keys():
        return exact
    declared = saved(path) or described(path, settings.config, usual.config)
    if isinstance(declared, dict):
        parts = declared
    else:
        parts = (
            _by_name(path, settings.config, usual.config)
            if declared is None
            else _by_name(declared, None, None)
        )
    if isinstance(declared, dict) and len(parts) == 1 and usual.may_be_cut:
        parts = {"all": next(iter(parts.values()))}
    for files in parts.values():
        _check_shards(files)
    missing = [SPLIT_FILES[split] for split in ("train", "test") if split not in parts]
    if missing and (parts.keys() != {"all"} or not usual.may_be_cut):
        if not parts and any(path.glob("*.py")):
            raise DataError(
                f"{path} has a loading script and no data; scripts are never run: get its Parquet "
                "files (on the Hub, the revision refs/convert/parquet) and give their folder as "
                "task.path"
            )
        one_file = ", or set task.path to one file to have it split" if usual.may_be_cut else ""
        raise DataError(
            f"{path} lacks {' and '.join(missing)}; put the {settings.kind} data there as JSON "
            f"lines, Parquet or CSV{one_file}"
        )
    return parts


def _by_name(path: Path, wanted: str | None, usual: str | None) -> Parts:
    """Splits by the names of files and folders. Folders that name no split are configurations."""
    groups: dict[str, dict[str | None, list[Path]]] = {}
    for file in walk(path):
        if data_suffix(file.name) is not None and file.name not in _NO_DATA:
            split, group = _split_and_group(file.relative_to(path))
            groups.setdefault(group, {}).setdefault(split, []).append(file)
    if not groups:
        return {}
    if wanted == "default" and len(groups) == 1:
        wanted = next(iter(groups))
    if wanted is not None and wanted not in groups:
        raise ConfigError(
            f"task.config {shown(wanted)}: {path} has {listed(groups)}; choose one of them, or set "
            "task.config to null"
        )
    if wanted is None and len(groups) > 1:
        complete = "" in groups and {"train", "test"} <= groups[""].keys()
        wanted = "" if complete else usual
        if wanted is None or wanted not in groups:
            raise ConfigError(f"{ONE_NEEDED}; in {path} there are: {listed(groups)}")
    chosen = groups[next(iter(groups)) if wanted is None else wanted]
    named = {split: _one_form(files, split) for split, files in chosen.items() if split is not None}
    return named or {"all": _one_form(chosen[None], "")}


def _split_and_group(relative: Path) -> tuple[str | None, str]:
    """`main/train-00000-of-00001.parquet` → (`train`, `main`). The folder `data` is ignored, as on
    the Hub.
    """
    folders = relative.parts[:-1]
    own = {name: _split_of(name) for name in relative.parts}
    splits = {split for split in own.values() if split is not None}
    if len(splits) > 1:
        raise DataError(
            f"{relative} has the names of {' and '.join(sorted(splits))}; rename it, so that its "
            "split is clear"
        )
    group = "/".join(name for name in folders if own[name] is None and name != "data")
    return (splits.pop() if splits else None), group


def _split_of(name: str) -> str | None:
    splits = {
        SPLIT_WORDS[word] for word in re.split(r"[-._ 0-9]+", name.lower()) if word in SPLIT_WORDS
    }
    if len(splits) > 1:
        raise DataError(
            f"{shown(name)} has the names of {' and '.join(sorted(splits))}; rename it, so that "
            "its split is clear"
        )
    return splits.pop() if splits else None


def _one_form(files: list[Path], split: str) -> tuple[Path, ...]:
    """The files of a split in one format. Raises DataError for several, such as `train.jsonl` and
    `train.parquet`, which may or may not have the same rows.
    """
    whole = [f for f in files if SPLIT_WORDS.get(f.name.lower().split(".")[0]) == split]
    used = [f for f in files if f in whole or _SHARD.match(f.name)] if whole else files
    forms = {(data_suffix(f.name), data_suffix(f.suffix) is None) for f in used}
    if len(forms) > 1 or (whole and len(used) > 1):
        names = ", ".join(f.name for f in used[:4])
        raise DataError(
            f"{files[0].parent} has {split or 'the data'} more than once ({names}); keep one, or "
            "give it as task.path"
        )
    return tuple(used)


def _check_shards(files: tuple[Path, ...]) -> None:
    """Raises DataError if a shard is missing, such as one of `train-00000-of-00003.parquet`."""
    for file in files:
        if shard := _SHARD.match(file.name):
            there = {other.name for other in files if other.parent == file.parent}
            ending = file.name[shard.end() :]
            for index in range(min(int(shard["n"]), len(files) + 1)):
                name = f"{shard['stem']}-{index:05d}-of-{shard['n']}{ending}"
                if name not in there:
                    raise DataError(
                        f"{file.parent} lacks {name}, one of {int(shard['n'])} parts; get the rest "
                        "of the data"
                    )
