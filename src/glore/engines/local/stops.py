"""Where a text comes to its stop string, looked for after every drawn token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["StopFinder"]

Decode = Callable[[list[list[int]]], list[str]]


class StopFinder:
    """Looks for stop strings in what is drawn. Texts are decoded whole, so it does not matter how a
    stop falls into tokens.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ends: dict[str, dict[int, bool]] = {}
        """By last character of a stop: which tokens hold it."""

    def cut(self, rows: Sequence[tuple[list[int], str]]) -> list[str | None]:
        """For each (tokens, stop): the text before the stop, or none where it doesn't hold it.

        To be asked after every token: without the last one, no text holds its stop.
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

        A printable ASCII character or a line's end is whole within one token; a space may come from
        the tokenizer (between words), and other characters may lie in several tokens: then the text
        itself must be looked at.
        """
        if last == " " or not last.isascii():
            return True
        known = self._ends.setdefault(last, {})
        if token not in known:
            known[token] = last in self._decode([[token]])[0]
        return known[token]
