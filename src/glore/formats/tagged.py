"""Steps in one text, each ended by a token: `step ки\\nstep ки`."""

from __future__ import annotations

from collections.abc import Sequence

from glore.formats.fields import FieldError

__all__ = ["join_steps", "split_tagged"]


def join_steps(steps: Sequence[str], endings: Sequence[str]) -> str:
    """Each step, a space and its ending, on lines of their own."""
    return "\n".join(f"{step} {end}" for step, end in zip(steps, endings, strict=True))


def split_tagged(text: str, token: str, field: str) -> list[str]:
    """A text → the text before each token, with the step's own blanks. Raises FieldError.

    Of the blanks around a token, one space before and one newline after belong to the layout.
    """
    *pieces, rest = text.split(token)
    if not pieces:
        raise FieldError(field, f"has no {token!r} that ends a step")
    if rest.strip():
        raise FieldError(field, f"has text after the last {token!r}")
    return [
        (piece.removeprefix("\n") if i else piece).removesuffix(" ")
        for i, piece in enumerate(pieces)
    ]
