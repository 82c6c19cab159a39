"""Settings of prompts: plain or as a chat, and how the text of a solution is cut into steps."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from glore.config.section import NEWER, Settings
from glore.errors import shown

__all__ = ["PromptSettings"]


class PromptSettings(Settings):
    """How questions become prompts, and model output becomes steps (docs/method.md, Prompts)."""

    style: Annotated[Literal["plain", "chat"], NEWER] = "plain"
    """`plain`: `Question: … Answer:`; `chat`: the chat template of the model."""
    system: Annotated[str | None, Field(max_length=20_000), NEWER] = None
    """The system prompt of a chat, which may have several lines; none: what the template has
    without one.
    """
    steps: Annotated[Literal["line", "paragraph"], NEWER] = "line"
    """What a step is: a line, or what stands between empty lines, as reasoning models write."""
    think: Annotated[Literal["keep", "apart"], NEWER] = "keep"
    """`<think>` blocks of a solution: part of its steps, or kept apart from them, where no other
    model sees them.
    """
    max_solution_chars: Annotated[int, Field(ge=100, le=10_000_000), NEWER] = 20_000
    """Longer solutions are cut to this length, and counted."""

    multiline: ClassVar[frozenset[str]] = frozenset({"system"})

    @model_validator(mode="after")
    def _system_of_a_chat(self) -> PromptSettings:
        if self.system is not None and self.style != "chat":
            raise ValueError(
                f"system {shown(self.system, 40)} is for prompt.style chat, got {self.style}; drop "
                "it (prompt.system=null) or set the style"
            )
        return self
