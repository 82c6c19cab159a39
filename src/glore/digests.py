"""A folder with the digests of its files: any later change of a file is noticed."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from pathlib import Path, PurePosixPath

from glore.errors import ModelError, RunError
from glore.files import flush, replacing

__all__ = [
    "DIGESTS",
    "check_digests",
    "damage",
    "file_digest",
    "is_inside",
    "read_digests",
    "write_digests",
]

DIGESTS = "glore-digests.json"
"""In a model folder or a checkpoint: relative file name → digest of the file's whole content.
Written last.
"""
_UNCHECKED = (DIGESTS, "README.md")
"""The model card is for people to edit, and no loader reads it."""
_SETTLED_NS = 2 * 10**9


def write_digests(folder: Path) -> None:
    """Flush every file below `folder`, then write the digests of all of them to its
    `glore-digests.json`. Raises RunError.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in _UNCHECKED)
    try:
        for path in files:
            flush(path)
        digests = {p.relative_to(folder).as_posix(): file_digest(p) for p in files}
    except OSError as error:
        raise RunError(
            f"can't write {folder}: {error.strerror or error}; free some space or check the disk, "
            "then run again"
        ) from error
    with replacing(folder / DIGESTS) as stream:
        stream.write((json.dumps(digests, indent=1, sort_keys=True) + "\n").encode())


def check_digests(folder: Path) -> None:
    """Compare the files below `folder` with its `glore-digests.json`. A folder without that file
    was not written by glore, and passes.

    Raises ModelError, which names the first file that is missing or has changed.
    """
    if (folder / DIGESTS).exists() and (wrong := damage(folder)):
        raise ModelError(
            f"{wrong}: the model at {folder} is damaged; copy it again from an intact place, or "
            "delete that folder and make it again with the same glore run"
        )


def damage(folder: Path) -> str | None:
    """The first damage in a folder with digests, in words. None if every file still has the content
    it was written with.
    """
    digests = read_digests(folder)
    if digests is None:
        return f"{folder / DIGESTS} is missing or unreadable"
    for name, digest in digests.items():
        path = folder / name
        try:
            if file_digest(path) != digest:
                return f"{path} has changed since it was written"
        except OSError:
            return f"{path} is missing or unreadable"
    return None


def read_digests(folder: Path) -> dict[str, str] | None:
    """Relative file name → digest. None if the folder's digests are missing or unreadable, or name
    a file outside the folder.
    """
    try:
        data = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not all(
        isinstance(value, str) and is_inside(name) for name, value in data.items()
    ):
        return None
    return data


def is_inside(name: str) -> bool:
    """True for a relative path that stays below the folder it is joined to."""
    path = PurePosixPath(name)
    return (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name
    )


def file_digest(path: Path) -> str:
    """A hash of the file's whole content. A file that this process has already read, and that has
    not changed since, is not read again. Raises OSError.
    """
    found = path.stat()
    # File systems count time in ticks: a file that changed just now may change again within one.
    settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS
    digest = _digest if settled else _digest.__wrapped__
    return digest(
        path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, *state: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(
            stream, functools.partial(hashlib.blake2b, digest_size=20)
        ).hexdigest()
