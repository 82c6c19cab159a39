"""What a story is: people with hidden quantities, facts that relate them, a question."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Fact", "Story", "filled", "names_in"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One relation. `kind`: given (a = k), more (a = b + k), times (a = b * k), pair (a + b = k), sum (a = b + c)."""

    kind: str
    people: tuple[str, ...]
    k: int
    new: str
    """The person whose quantity it tells, given the others'."""

    def ways(self) -> tuple[tuple[str, str], ...]:
        """(name, expression) for every quantity that this fact yields from the others."""
        if self.kind == "given":
            return ()
        a, b = self.people[:2]
        if self.kind == "more":
            return (a, f"{b} + {self.k}"), (b, f"{a} - {self.k}")
        if self.kind == "times":
            return (a, f"{b} * {self.k}"), (b, f"{a} / {self.k}")
        if self.kind == "pair":
            return (a, f"{self.k} - {b}"), (b, f"{self.k} - {a}")
        c = self.people[2]
        return (a, f"{b} + {c}"), (b, f"{a} - {c}"), (c, f"{a} - {b}")


@dataclass(frozen=True, slots=True)
class Story:
    """A story with its truth."""

    values: dict[str, int]
    facts: tuple[Fact, ...]
    asked: tuple[str, ...]
    """One name; two names and `total` or `difference`."""
    items: str

    @property
    def answer(self) -> int:
        first = self.values[self.asked[0]]
        if len(self.asked) == 1:
            return first
        second = self.values[self.asked[1]]
        return first + second if self.asked[2] == "total" else first - second


def names_in(text: str) -> set[str]:
    """The names in an expression."""
    return set(re.findall(r"[A-Z][a-z]+", text))


def filled(text: str, values: dict[str, int]) -> str:
    """The expression with numbers for names."""
    return re.sub(r"[A-Z][a-z]+", lambda m: str(values[m.group()]), text)
