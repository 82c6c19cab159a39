"""What a user gives on the command line → settings: those of a run, with the parts that a command
does not read left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from glore.config import RunConfig, config_of
from glore.errors import ConfigError, shown
from glore.model_folder import split_reference

__all__ = ["command_config", "model_section", "work_folder"]


def work_folder(output: Path) -> Path:
    """Where unfinished work on an output file or folder is kept: beside it."""
    return output.with_name(f"{output.name}.work")


def model_section(reference: str) -> dict[str, object]:
    """A folder, Hub name or NAME@REVISION → the section `base` of settings."""
    if Path(reference).expanduser().exists():
        return {"model": reference}
    name, revision = split_reference(reference)
    return {"model": name, "revision": revision}


def command_config(
    data: Mapping[str, object],
    overrides: Sequence[str],
    section: str,
    kind: type[BaseModel],
    others: Sequence[str],
) -> RunConfig:
    """Settings of a command. A key without a section is one of `section`, whose class is `kind`:
    `rollouts=4` stands for `labels.rollouts=4`. `others`: sections that may be given too.

    Raises ConfigError for any other setting, since it would have no effect.
    """
    whole = [_completed(override, section, kind) for override in overrides]
    for given, override in zip(overrides, whole, strict=True):
        path = override.partition("=")[0].strip()
        if not any(path == o or path.startswith(f"{o}.") for o in (section, *others)):
            raise ConfigError(
                f"override {shown(given)}: this command reads the settings of "
                f"{', '.join((section, *others))} alone"
            )
    return config_of(data, whole)


def _completed(override: str, section: str, kind: type[BaseModel]) -> str:
    first = override.partition("=")[0].strip().partition(".")[0]
    return f"{section}.{override.strip()}" if first in kind.model_fields else override
