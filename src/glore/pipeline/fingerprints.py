"""Fingerprints: one short hash of what a stage's result was made from, and what changed, in words.

A fingerprint covers the settings, the input stages, the versions of the stage and the records, the
release of glore, and the content of local data and of a base model's folder. It does not cover the
versions of other packages, code changed within a release, or a Hub name without a revision.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel

from glore.config import RunConfig
from glore.config.section import newer_settings
from glore.config.training import is_local
from glore.digests import DIGESTS, file_digest
from glore.errors import DataError, shown
from glore.pipeline.stage import Stage

__all__ = [
    "REGRADED",
    "declared_settings",
    "difference",
    "digest_of_files",
    "fingerprint_of",
    "flat_settings",
    "model_contents",
    "model_files",
    "package_versions",
    "read_settings",
    "release_of",
    "stage_fingerprint",
]

REGRADED = "content of regraded records"
"""An entry among a stage's settings that is no setting: the hash of what `glore regrade` changed in
its records. It makes later stages from before the regrading stale.
"""

_MODEL_FILES = (".json", ".safetensors", ".gguf", ".bin", ".jinja", ".model", ".tiktoken", ".txt")
"""Suffixes of the files that loaders read: configuration, tokenizer, weights, chat template."""
_NO_MODEL_FILES = (
    DIGESTS,
    "trainer_state.json",
    "training_args.bin",
    "requirements.txt",
    "LICENSE.txt",
    "LICENCE.txt",
)


def fingerprint_of(data: object) -> str:
    """A short hash of JSON-like data, the same on every machine."""
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=10).hexdigest()


def stage_fingerprint(
    name: str,
    *,
    stage_version: int,
    schema_version: int,
    versions: object,
    settings: Mapping[str, object],
    inputs: Mapping[str, str],
) -> str:
    """The hash of all that a stage's result follows from. The marks hold all of it but the name."""
    return fingerprint_of(
        [name, stage_version, schema_version, release_of(versions), dict(settings), dict(inputs)]
    )


def digest_of_files(files: Mapping[str, Path], settings: str = "the settings below task") -> str:
    """A short hash of files (name → path): of the names, sizes and whole contents. Raises
    DataError, which names `settings`.

    Every byte counts, also of weights. Files are read in parallel, and each once in a process.
    """
    digest = hashlib.blake2b(digest_size=10)
    try:
        with ThreadPoolExecutor() as pool:
            contents = dict(zip(files, pool.map(file_digest, files.values()), strict=True))
        for name, path in sorted(files.items()):
            digest.update(f"{name}\0{path.stat().st_size}\0{contents[name]}\0".encode())
    except OSError as error:
        path = error.filename or next(iter(files.values()))
        raise DataError(
            f"can't read {path}: {error.strerror or error}; check {settings}"
        ) from error
    return digest.hexdigest()


def model_contents(model: str, setting: str = "base.model") -> dict[str, str | None]:
    """A hash of the files that loaders read in the folder `model`, or in the folder of the file
    that it names; None if there are none. Empty for a Hub name. `setting` names the model.

    Raises DataError for a file that can't be read.
    """
    if not is_local(model):
        return {}
    folder = Path(model).expanduser()
    if folder.suffix.lower() == ".gguf":
        return {setting: digest_of_files({"": folder}, setting) if folder.is_file() else None}
    if folder.is_file():  # pickled weights are named by their file
        folder = folder.parent
    files = model_files(folder)
    return {setting: digest_of_files(files, setting) if files else None}


def model_files(folder: Path) -> dict[str, Path]:
    """The files that loaders read in a model's folder, by name."""
    return {
        p.name: p
        for p in folder.glob("*")
        if p.suffix in _MODEL_FILES and p.name not in _NO_MODEL_FILES and p.is_file()
    }


@functools.cache
def package_versions() -> dict[str, str]:
    """Package → version, for the installed packages that results depend on."""
    out = {"python": platform.python_version()}
    for name in ("glore", "torch", "transformers", "accelerate", "pyarrow", "math-verify"):
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out


def release_of(versions: object) -> str:
    """The first two numbers of glore's version: a third one promises the same results. `unknown`
    where it is not installed.
    """
    version = versions.get("glore") if isinstance(versions, dict) else None
    return ".".join(str(version).split(".")[:2]) if version else "unknown"


def flat_settings(value: object, path: str = "") -> dict[str, object]:
    """A section, list or plain value of the settings as dotted path → plain value; `path` is where
    it is. Raises TypeError for anything else.
    """
    if isinstance(value, BaseModel):
        children = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, dict):
        children = {str(key): child for key, child in value.items()}
    elif isinstance(value, tuple | list):
        children = {str(index): child for index, child in enumerate(value)}
    elif value is None or isinstance(value, str | int | float | bool):
        return {path or "value": value}
    else:
        raise TypeError(
            "settings are sections and plain values, got "
            f"{type(value).__name__} at {path or 'the top'}"
        )
    flat: dict[str, object] = {}
    for name, child in children.items():
        flat |= flat_settings(child, f"{path}.{name}" if path else name)
    return flat


def declared_settings(config: RunConfig, stage: Stage) -> dict[str, object]:
    """The settings that a stage's result depends on, as dotted path → plain value: the seed, and
    `reads` without `without` and without newer settings that have their defaults.

    A section that has `fingerprint_fields()` says itself what results depend on.
    """
    newer = dict(newer_settings(RunConfig))
    return {
        key: value
        for key, value in ({"seed": config.seed} | read_settings(config, stage)).items()
        if key not in newer or value != newer[key]
    }


def read_settings(config: RunConfig, stage: Stage) -> dict[str, object]:
    """As `declared_settings`, without the seed, and with newer settings at their defaults too."""
    flat: dict[str, object] = {}
    for path in stage.reads:
        value = functools.reduce(getattr, path.split("."), config)
        fields = getattr(value, "fingerprint_fields", None)
        flat |= flat_settings(value if fields is None else fields(), path)
    left_out = tuple(f"{path}." for path in stage.without)
    return {k: v for k, v in flat.items() if not f"{k}.".startswith(left_out)}


def difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """Why a fingerprint no longer fits, in words. Both hold `settings`, `inputs`, `stage_version`,
    `schema_version` and `versions`.
    """
    before, now = _mapping(old, "settings"), _mapping(new, "settings")
    reasons = [
        f"{key} {shown(before[key], 30) if key in before else 'unset'} → "
        f"{shown(now[key], 30) if key in now else 'unset'}"
        for key in sorted({*before, *now})
        if (key in before, before.get(key)) != (key in now, now.get(key))
    ]
    before, now = _mapping(old, "inputs"), _mapping(new, "inputs")
    stale = [name for name in now if before.get(name) != now[name]]
    if stale:
        reasons.append(f"made from another {', '.join(stale)}")
    if old.get("stage_version") != new["stage_version"]:
        reasons.append("the stage's code has another version")
    if old.get("schema_version") != new["schema_version"]:
        reasons.append("the records have another schema")
    if release_of(old.get("versions")) != release_of(new["versions"]):
        reasons.append(
            f"made by glore {release_of(old.get('versions'))}, this is "
            f"{release_of(new['versions'])}"
        )
    if len(reasons) > 4:
        reasons[4:] = [f"and {len(reasons) - 4} more"]
    return "; ".join(reasons) or "made under another fingerprint"


def _mapping(data: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
