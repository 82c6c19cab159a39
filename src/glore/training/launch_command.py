"""The command that starts a training on several devices: parses it and refuses what it, or its
configuration, can't do.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from glore.config import TrainSettings
from glore.errors import ConfigError, shown

__all__ = [
    "SHARDED",
    "check_launch",
    "launch_path",
    "launch_words",
    "no_launcher",
    "refuse_sharded",
]

SHARDED = ("FSDP", "DEEPSPEED")
"""accelerate's names for training with sharded weights."""
_MAX_FILE_BYTES = 1 << 20


def launch_words(launch: str) -> list[str]:
    """The words of a command line, with `~` expanded. Raises ConfigError for unclosed quotes."""
    try:
        return [os.path.expanduser(word) for word in shlex.split(launch)]
    except ValueError as error:
        raise ConfigError(
            f"launch: {shown(launch)} is no command line ({error}); close its quotes"
        ) from error


def launch_path() -> str:
    """The search path for commands: the folder of this Python first."""
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))


def check_launch(launch: str, settings: TrainSettings) -> None:
    """Check that the command and its configuration exist and can train with the settings.

    Raises ConfigError.
    """
    words = launch_words(launch)
    if not words:
        return
    if shutil.which(words[0], path=launch_path()) is None:
        raise no_launcher(words[0], "No such file or directory, or nothing that can be executed")
    if {"--use_fsdp", "--use-fsdp", "--use_deepspeed", "--use-deepspeed"} & set(
        words
    ) or _is_sharded(_configuration(words)):
        refuse_sharded(settings)


def no_launcher(command: str, why: str) -> ConfigError:
    """The error for a command that can't be started."""
    return ConfigError(
        f"launch: can't start {shown(command)}: {why}; see docs/cluster.md for launch commands"
    )


def refuse_sharded(settings: TrainSettings) -> None:
    """Raise ConfigError for settings that don't work with sharded weights."""
    if settings.lora is not None or settings.optimizer != "adamw":
        raise ConfigError(
            "FSDP and DeepSpeed train whole weights with AdamW here: set lora to null and "
            "optimizer to adamw, or launch with plain data parallelism "
            "(recipes/accelerate/ddp.yaml)"
        )


def _configuration(words: Sequence[str]) -> Path | None:
    """The file after accelerate's `--config_file`."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, sign, value = word.partition("=")
        if name in ("--config_file", "--config-file"):
            path = Path(value if sign else after)
            if not path.is_file():
                raise ConfigError(
                    f"launch: there is no file {shown(str(path))} for {name}; see docs/cluster.md "
                    "for launch commands"
                )
            return path
    return None


def _is_sharded(configuration: Path | None) -> bool:
    if configuration is None:
        return False
    try:
        with configuration.open("rb") as stream:
            data = yaml.safe_load(stream.read(_MAX_FILE_BYTES))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False  # accelerate reports the error
    return isinstance(data, dict) and str(data.get("distributed_type")) in SHARDED
