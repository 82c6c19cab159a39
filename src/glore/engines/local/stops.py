"""Finds stop strings in completions, after every drawn token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["StopFinder"]

Decode = Callable[[list[list[int]]], list[str]]


class StopFinder:
    """Finds stop strings in drawn tokens.

    Texts are decoded whole, so it does not matter how a stop is divided into tokens.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ends: dict[str, dict[int, bool]] = {}
        """Last character of a stop → token → whether the token contains it."""

    def cut(self, rows: Sequence[tuple[list[int], str]]) -> list[str | None]:
        """For each (tokens, stop): the text before the stop; none if the text has no stop.

        To be called after every token: without the last one, no text has a stop.
        """
        found: list[str | None] = [None] * len(rows)
        near = [i for i, (tokens, stop) in enumerate(rows) if self._may_end(tokens[-1], stop[-1])]
        for i, text in zip(
            near, self._decode([rows[i][0] for i in near]) if near else (), strict=True
        ):
            before, mark, _ = text.partition(rows[i][1])
            found[i] = before if mark else None
        return found

    def _may_end(self, token: int, last: str) -> bool:
        """Whether the stop can have been completed by this token.

        A printable ASCII character or a line's end lies within one token. A space may come from the
        tokenizer (between words), and other characters may lie in several tokens: then the text
        itself must be searched.
        """
        if last == " " or not last.isascii():
            return True
        known = self._ends.setdefault(last, {})
        if token not in known:
            known[token] = last in self._decode([[token]])[0]
        return known[token]
