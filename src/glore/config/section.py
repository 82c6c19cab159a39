"""What every section of the settings keeps to."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from glore.errors import shown

__all__ = [
    "MAX_TEMPERATURE",
    "MIN_TEMPERATURE",
    "LocalPath",
    "Names",
    "Revision",
    "Settings",
    "Temperature",
    "TwoNumbers",
]

MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-3, 1e3
"""Beyond these a model's own logits no longer matter, or no longer fit into float32. Engines keep
to the same two (engines.encoding).
"""
Temperature = Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]
"""Of drawn solutions; greedy ones have no setting."""

Names = Annotated[tuple[str, ...], Field(strict=False)]
TwoNumbers = Annotated[tuple[int, int], Field(strict=False)]
"""Not strict, because YAML knows lists only; what stands in them is checked strictly all the same.
"""

Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")]
"""A commit, tag or branch of a repository on the Hugging Face Hub."""

_HOME = re.compile(r"\$(HOME\b|\{HOME\})")


def filled_path(text: str) -> str:
    """A path with `~` and `$HOME` filled in. Raises ValueError for any other variable, and for what
    can't be a path.
    """
    if not text:
        raise ValueError("a path is not empty; write null for none, or . for the folder you are in")
    if "$" in _HOME.sub("", text):
        raise ValueError(f"only $HOME is filled in (and ~), got {shown(text)}; write the path out")
    filled = os.path.expanduser(_HOME.sub(lambda _: os.path.expanduser("~"), text))
    if filled.startswith("~") or "~" in filled.split("/"):
        raise ValueError(
            f"~ stands for a home folder, and only in front, got {shown(text)}; write the path out"
        )
    return filled


LocalPath = Annotated[str, AfterValidator(filled_path)]
"""A file or folder, or a name on the Hub where a setting takes one."""

_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")


class Settings(BaseModel):
    """Base: no unknown keys, no changes after building, no infinities, no guessed types (`true` or
    `"4"` is no number).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _exponents(cls, value: object, info: ValidationInfo) -> object:
        """YAML 1.1 takes `1e-4` and `1.5e3`, which lack a point or a sign, for text; a float field
        means a number.
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
    def _plain_text(cls, value: object) -> object:
        """Texts here are names, paths and addresses, on which a NUL, a newline or a terminal escape
        can only do harm.
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
                unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text
            ):
                raise ValueError(
                    "a text holds no control characters (NUL, newline, escape, …), got "
                    f"{shown(text)}; write it without"
                )
        return value
