"""Metadata of a data folder that says which files are which split: from `save_to_disk` of
`datasets`, and from the head of a Hub clone's README.md.

Metadata comes from strangers: its size is bounded, only names of files inside the folder are used,
and the rest is ignored.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import cast

import yaml

from glore.digests import is_inside
from glore.errors import ConfigError, DataError, shown

__all__ = ["ONE_NEEDED", "SPLIT_WORDS", "Parts", "described", "listed", "saved", "walk"]

Parts = dict[str, tuple[Path, ...]]
"""Split (`train`, `dev`, `test`, or `all` if the data has no splits) → its files, in order."""
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "validation", "valid", "val"), "dev"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""As `datasets` reads names of splits, files and folders."""
ONE_NEEDED = "a dataset with several configurations needs one of them as task.config"
_MAX_FILES = 10_000
_MAX_DEPTH = 4
_MAX_DESCRIPTION = 2**22


def saved(path: Path) -> Parts | None:
    """The files of a folder that `save_to_disk` wrote, a DatasetDict or one Dataset; none for any
    other folder.
    """
    if (path / "dataset_dict.json").is_file():
        names = _description(path / "dataset_dict.json").get("splits")
        if not isinstance(names, list) or not all(
            isinstance(n, str) and is_inside(n) and (path / n).is_dir() for n in names
        ):
            raise DataError(
                f"{path / 'dataset_dict.json'}: 'splits' must list folders beside it; save the "
                "dataset again"
            )
        return _known([(name, _saved_files(path / name)) for name in names], path)
    return {"all": _saved_files(path)} if (path / "state.json").is_file() else None


def _known(splits: Iterable[tuple[str, tuple[Path, ...]]], where: Path) -> Parts:
    """Splits by glore's names. Splits of other names are left out, unless there is only one."""
    given = [(SPLIT_WORDS.get(name, name), files) for name, files in splits]
    parts = {name: files for name, files in given if name in SPLIT_WORDS or len(given) == 1}
    if len(parts) < sum(name in SPLIT_WORDS for name, _ in given):
        raise DataError(
            f"{where} has two splits for the same purpose ({listed(dict(splits))}); remove one"
        )
    return parts


def _saved_files(folder: Path) -> tuple[Path, ...]:
    entries = _description(folder / "state.json").get("_data_files")
    names = (
        [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
        if isinstance(entries, list)
        else []
    )
    if not names or not all(isinstance(name, str) and is_inside(name) for name in names):
        raise DataError(
            f"{folder / 'state.json'}: '_data_files' must list the files of this folder; save the "
            "dataset again"
        )
    return _existing(folder, [str(name) for name in names], "state.json")


def _existing(folder: Path, names: list[str], named_in: str) -> tuple[Path, ...]:
    for name in names:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} lacks {shown(name)}, which its {named_in} names; copy the data again"
            )
    return tuple(folder / name for name in names)


def _description(path: Path) -> Mapping[str, object]:
    try:
        data = json.loads(_small(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON; save the dataset again") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} must be a JSON object; save the dataset again")
    return cast("Mapping[str, object]", data)


def _small(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_DESCRIPTION).decode("utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}; check task.path") from error


def described(path: Path, wanted: str | None, usual: str | None) -> Parts | Path | None:
    """The files, or the folder with them, that `configs` in the head of a clone's README.md names;
    none without `configs`. `wanted` and `usual` are names of configurations.
    """
    readme = path / "README.md"
    given = _configs(readme) if readme.is_file() else []
    configs = {name: c for c in given if isinstance(name := c.get("config_name", "default"), str)}
    if not configs:
        return None
    default = [name for name, config in configs.items() if config.get("default") is True]
    names = (
        [wanted]
        if wanted
        else [
            n
            for n in (*default, usual, "default", *(configs if len(configs) == 1 else ()))
            if n in configs
        ]
    )
    if not names or names[0] not in configs:
        raise ConfigError(
            f"{ONE_NEEDED}, got {shown(wanted)}; in {path} there are: {listed(configs)}"
        )
    name = str(names[0])
    files, folder = configs[name].get("data_files"), configs[name].get("data_dir", ".")
    if files is None:
        if not isinstance(folder, str) or not (folder in (".", "./") or is_inside(folder)):
            raise DataError(
                f"{readme}: data_dir of {shown(name)} must name a folder of this clone; correct it"
            )
        return path / folder
    splits = list(_declared(path, files))
    if not splits:
        raise DataError(f"{readme}: the data_files of {shown(name)} name no files; correct it")
    return _known(splits, path)


def _declared(path: Path, files: object) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Split and files of `data_files` in either of its forms: patterns alone, which are train, or a
    list of splits.
    """
    if isinstance(files, str) or (
        isinstance(files, list) and all(isinstance(f, str) for f in files)
    ):
        files = [{"split": "train", "path": files}]
    for entry in files if isinstance(files, list) else ():
        if isinstance(entry, dict) and isinstance(split := entry.get("split"), str):
            yield split, tuple(_matching(path, entry.get("path")))


def _configs(readme: Path) -> list[dict[str, object]]:
    head = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", _small(readme), re.DOTALL)
    if head is None:
        return []
    try:
        data = yaml.safe_load(head[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(
            f"{readme}: the head between '---' is not valid YAML; correct it or move the file away"
        ) from error
    configs = data.get("configs") if isinstance(data, dict) else None
    return (
        [c for c in configs if isinstance(c, dict)][:_MAX_FILES]
        if isinstance(configs, list)
        else []
    )


def _matching(path: Path, patterns: object) -> list[Path]:
    """The files of one pattern or several, below the folder."""
    found = []
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        if not isinstance(pattern, str) or not is_inside(pattern) or "://" in pattern:
            got = shown(pattern) if isinstance(pattern, str) else "something else"
            raise DataError(
                f"{path / 'README.md'}: data_files must be patterns of files in this folder, got "
                f"{got}; correct it"
            )
        is_pattern = any(mark in pattern for mark in "*?[")
        matches = (
            [p for p in walk(path) if _fits(p.relative_to(path).parts, _pieces(pattern))]
            if is_pattern
            else [path / pattern]
        )
        if not matches or not all(p.is_file() for p in matches):
            raise DataError(
                f"{path} lacks {shown(pattern)}, which its README.md names; get the complete clone "
                "(git lfs pull)"
            )
        found += matches
    return found


def _pieces(pattern: str) -> tuple[str, ...]:
    pieces = [piece for piece in pattern.split("/") if piece not in ("", ".")]
    return tuple(
        piece for i, piece in enumerate(pieces) if piece != "**" or pieces[i - 1 : i] != ["**"]
    )


def _fits(names: tuple[str, ...], pieces: tuple[str, ...]) -> bool:
    """Whether a relative path matches a pattern, in which `**` is any number of folders."""
    if not pieces:
        return not names
    if pieces[0] == "**":
        return any(_fits(names[n:], pieces[1:]) for n in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pieces[0]) and _fits(names[1:], pieces[1:])


def walk(path: Path) -> list[Path]:
    """All files of a folder in a fixed order, except hidden ones. Raises DataError if there are too
    many; deeper folders are skipped.
    """
    return sorted(_walked(path), key=lambda p: p.relative_to(path).parts)


def _walked(path: Path) -> Iterator[Path]:
    n_files = 0
    for folder, below, names in os.walk(path):
        depth = len(Path(folder).relative_to(path).parts)
        below[:] = [
            name for name in below if not name.startswith((".", "__")) and depth < _MAX_DEPTH
        ]
        n_files += len(names)
        if n_files > _MAX_FILES:
            raise DataError(
                f"{path} has more than {_MAX_FILES:,} files; set task.path to a folder with only "
                "the data"
            )
        yield from (
            Path(folder, name)
            for name in names
            if not name.startswith(".") and Path(folder, name).is_file()
        )


def listed(names: Mapping[str, object]) -> str:
    """The first few names, for a message."""
    shown_names = [shown(name or "the files of the folder itself", 40) for name in list(names)[:8]]
    return ", ".join(shown_names) + (", …" if len(names) > 8 else "")
