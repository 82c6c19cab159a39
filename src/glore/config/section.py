"""The base class of every section of the settings, and types of fields that several share."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from glore.errors import shown

__all__ = [
    "MAX_TEMPERATURE",
    "MAX_TOP_K",
    "MIN_TEMPERATURE",
    "NEWER",
    "LocalPath",
    "Names",
    "Revision",
    "SamplingSettings",
    "Settings",
    "Temperature",
    "TwoNumbers",
    "newer_settings",
]

MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-3, 1e3
"""Beyond these a model's own logits no longer matter, or no longer fit into float32. Engines have
the same limits (engines.encoding).
"""
MAX_TOP_K = 2**31 - 1
Temperature = Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]
"""Of sampled solutions; greedy decoding has no setting."""

Names = Annotated[tuple[str, ...], Field(strict=False)]
TwoNumbers = Annotated[tuple[int, int], Field(strict=False)]
"""Not strict, because YAML has lists only. Their items are checked strictly."""

Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")]
"""A commit, tag or branch of a repository on the Hugging Face Hub."""

NEWER: Final = "newer than runs made without it"
"""Marks a setting in the metadata of its field. A fingerprint holds it only if its value is not the
default, so runs made before the setting existed stay valid.
"""

_HOME = re.compile(r"\$(HOME\b|\{HOME\})")


def expanded_path(text: str) -> str:
    """A path with `~` and `$HOME` expanded. Raises ValueError for any other variable, and for text
    that can't be a path.
    """
    if not text:
        raise ValueError("a path can't be empty; write null for none, or . for the current folder")
    if "$" in _HOME.sub("", text):
        raise ValueError(f"only $HOME and ~ are expanded, got {shown(text)}; write the full path")
    filled = os.path.expanduser(_HOME.sub(lambda _: os.path.expanduser("~"), text))
    if filled.startswith("~") or "~" in filled.split("/"):
        raise ValueError(
            f"~ is expanded only at the beginning of a path and for a known user, got "
            f"{shown(text)}; write the full path"
        )
    return filled


LocalPath = Annotated[str, AfterValidator(expanded_path)]
"""A file or folder, or a name on the Hub where a setting takes one."""

_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")


class Settings(BaseModel):
    """Base of all sections: no unknown keys, frozen, no infinities, no type coercion (`true` and
    `"4"` are no numbers).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    multiline: ClassVar[frozenset[str]] = frozenset()
    """Names of texts that may hold newlines."""

    @field_validator("*", mode="before")
    @classmethod
    def _exponents(cls, value: object, info: ValidationInfo) -> object:
        """Floats from texts like `1e-4` and `1.5e3`: without a point or a sign YAML 1.1 reads them
        as text.
        """
        is_float = (
            info.field_name is not None and cls.model_fields[info.field_name].annotation is float
        )
        return (
            float(value)
            if is_float and isinstance(value, str) and _EXPONENT.fullmatch(value)
            else value
        )

    @field_validator("*", mode="after")
    @classmethod
    def _without_control_characters(cls, value: object, info: ValidationInfo) -> object:
        """Texts are names, paths and addresses: a NUL, a newline or a terminal escape in one can
        only do harm.
        """
        parts = (
            [*value, *value.values()]
            if isinstance(value, dict)
            else value
            if isinstance(value, tuple)
            else (value,)
        )
        for text in parts:
            if isinstance(text, str) and any(
                unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
                and not (c == "\n" and info.field_name in cls.multiline)
                for c in text
            ):
                raise ValueError(
                    "a text can't have control characters (NUL, newline, escape, …), got "
                    f"{shown(text)}; remove them"
                )
        return value


class SamplingSettings(Settings):
    """How solutions are drawn."""

    temperature: Temperature = 1.0
    """Logits are divided by it before a token is drawn."""
    top_p: Annotated[float, Field(gt=0, le=1), NEWER] = 1.0
    """Draw from the fewest tokens that have this share of the probability; 1: from all."""
    top_k: Annotated[int, Field(ge=0, le=MAX_TOP_K), NEWER] = 0
    """Draw from this many of the likeliest tokens; 0: from all."""


def newer_settings(kind: type[BaseModel], path: str = "") -> Iterator[tuple[str, object]]:
    """Dotted path and default of each setting marked `NEWER`, in the sections below `kind` that are
    of one class, also those that may be absent. `path`: where the section is.
    """
    for name, field in kind.model_fields.items():
        here = f"{path}.{name}" if path else name
        # A section that may be absent is `SECTION | None`.
        for annotation in get_args(field.annotation) or (field.annotation,):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from newer_settings(annotation, here)
        if NEWER in field.metadata:
            yield here, field.default
