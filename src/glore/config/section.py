"""What every section of the settings keeps to."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

__all__ = ["Names", "Revision", "Settings", "TwoNumbers"]

Names = Annotated[tuple[str, ...], Field(strict=False)]
TwoNumbers = Annotated[tuple[int, int], Field(strict=False)]
"""Not strict, because YAML knows lists only; what stands in them is checked strictly all the same."""

Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")]
"""A commit, tag or branch of a repository on the Hugging Face Hub."""

_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")


class Settings(BaseModel):
    """Base: no unknown keys, no changes after building, no infinities, no guessed types (`true` or `"4"` is no number)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _exponents(cls, value: object, info: ValidationInfo) -> object:
        """YAML 1.1 takes `1e-4` and `1.5e3`, which lack a point or a sign, for text; a float field means a number."""
        is_float = info.field_name is not None and cls.model_fields[info.field_name].annotation is float
        return float(value) if is_float and isinstance(value, str) and _EXPONENT.fullmatch(value) else value
