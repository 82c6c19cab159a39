"""The folder of a low-rank adapter: which files it has, and which model it changes."""

from __future__ import annotations

import json
from pathlib import Path

from glore.errors import ModelError, shown

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "BASE_NOTE",
    "adapter_base",
    "is_adapter",
    "is_own_adapter",
]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""As peft names them."""
BASE_NOTE = "glore-base.json"
"""What glore notes of the model that an adapter changes: file → its size, and a hash of its ends.
"""
_MAX_BYTES = 1 << 20


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter instead of a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def is_own_adapter(folder: Path) -> bool:
    """Whether glore wrote the adapter in the folder."""
    return is_adapter(folder) and (folder / BASE_NOTE).is_file()


def adapter_base(folder: Path) -> str:
    """The model that the adapter in `folder` changes: a path, a Hub name or NAME@REVISION. One that
    begins with a dot counts from `folder`. Raises ModelError.
    """
    path = folder / ADAPTER_CONFIG
    try:
        with path.open("rb") as stream:
            data = json.loads(stream.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} can't be read ({error}); copy the folder again") from error
    name = data.get("base_model_name_or_path") if isinstance(data, dict) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise ModelError(
            f"{path} names no base model (base_model_name_or_path is {shown(name)}); train the "
            "adapter again, or give a merged model"
        )
    revision = data.get("revision")
    if name.startswith("."):
        return str((folder / name).resolve())
    return f"{name}@{revision}" if isinstance(revision, str) and revision else name
