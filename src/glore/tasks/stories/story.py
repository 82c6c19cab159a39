"""What a story is: people with quantities, facts that say or relate them, a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CHECK",
    "CHOICES",
    "Change",
    "Derivation",
    "Fact",
    "Story",
    "equation",
    "found",
    "states",
    "with_letter",
    "with_number",
]

CHECK = "Check"
"""What a line begins with that tries a number found."""
CHOICES = ("A", "B", "C", "D", "E")
"""The letter of each number offered. A choice that is with_number is easily taken back: a refiner learns
to cross out a letter, not digits.
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A number added or taken away."""

    sign: str
    k: int
    of: str = ""
    """The person whose number it is; empty: the story states it."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """One piece of a solution: how a quantity follows from others."""

    name: str
    needs: tuple[str, ...]
    """People whose quantities must be known."""
    clauses: tuple[str, ...]
    """`a + b = c` each; a known person's number has the name before it."""
    check: str = ""
    """A number to be found has a line of its own, after the equation that says it: it is with_number and
    tried there.
    """

    @property
    def lines(self) -> tuple[str, ...]:
        said = f"{self.name}: {', '.join(self.clauses)}"
        return (said, f"{CHECK}: {self.check}") if self.check else (said,)


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact. `kind`: given (a = k), more (a = b + k), times (a = b * k), pair (a + b = k), sum
    (a = b + c), changes (a is what `changes` make of k), unknown (`changes` would make k of a).
    """

    kind: str
    people: tuple[str, ...]
    k: int
    new: str
    """The person whose quantity it tells, given the others'."""
    changes: tuple[Change, ...] = ()
    options: tuple[int, ...] = ()
    """Numbers that the story offers for one that is to be found; the true one is among them."""

    def derivations(self, values: dict[str, int]) -> tuple[Derivation, ...]:
        """A piece of solution for every quantity that this fact yields."""
        a, b, c = (*self.people, "", "")[:3]
        k, value = self.k, values
        if self.kind == "given":
            return (Derivation(a, (), (f"{k}",)),)
        if self.kind in ("changes", "unknown"):
            needs = tuple(change.of for change in self.changes if change.of)
            if self.kind == "changes":
                return (Derivation(a, needs, chain(k, self.changes)),)
            return (found(a, value[a], self.changes, k, self.options),)

        def known(name: str) -> str:
            return f"{name} {value[name]}"

        if self.kind == "more":
            pairs = [(a, b, f"{known(b)} + {k}"), (b, a, f"{known(a)} - {k}")]
        elif self.kind == "times":
            pairs = [(a, b, f"{known(b)} * {k}"), (b, a, f"{known(a)} / {k}")]
        elif self.kind == "pair":
            pairs = [(a, b, f"{k} - {known(b)}"), (b, a, f"{k} - {known(a)}")]
        else:
            return (
                Derivation(a, (b, c), (f"{known(b)} + {known(c)} = {value[a]}",)),
                Derivation(b, (a, c), (f"{known(a)} - {known(c)} = {value[b]}",)),
                Derivation(c, (a, b), (f"{known(a)} - {known(b)} = {value[c]}",)),
            )
        return tuple(
            Derivation(name, (source,), (f"{text} = {value[name]}",))
            for name, source, text in pairs
        )


@dataclass(frozen=True, slots=True)
class Story:
    """A story with its truth."""

    values: dict[str, int]
    facts: tuple[Fact, ...]
    asked: tuple[str, ...]
    """One name; two names and `total` or `difference`."""
    items: str

    @property
    def readings(self) -> dict[str, int]:
        """Everybody's number by name, and by name and letter where it is one of several offered:
        `Eva B`.
        """
        return {
            **self.values,
            **{
                with_letter(f.new, self.values[f.new], f.options): self.values[f.new]
                for f in self.facts
            },
        }

    @property
    def answer(self) -> int:
        first = self.values[self.asked[0]]
        if len(self.asked) == 1:
            return first
        second = self.values[self.asked[1]]
        return first + second if self.asked[2] == "total" else first - second


def states(start: int, changes: tuple[Change, ...]) -> list[int]:
    """The numbers from `start` through every change."""
    out = [start]
    for change in changes:
        out.append(out[-1] + change.k if change.sign == "+" else out[-1] - change.k)
    return out


def equation(changes: tuple[Change, ...]) -> str:
    """`? + 7 - Tom 4`."""
    return " ".join(
        ("?", *(f"{c.sign} {c.of} {c.k}" if c.of else f"{c.sign} {c.k}" for c in changes))
    )


def chain(start: int, changes: tuple[Change, ...]) -> tuple[str, ...]:
    """`12 + 7 = 19`, `19 - 4 = 15`."""
    passed = states(start, changes)
    return tuple(
        f"{x} {c.sign} {c.k} = {y}" for x, c, y in zip(passed, changes, passed[1:], strict=False)
    )


def with_letter(name: str, number: int, options: Sequence[int]) -> str:
    """A person, and which of the numbers offered is meant: `Eva B`, or `Eva` where none are."""
    return f"{name} {CHOICES[options.index(number)]}" if options else name


def with_number(name: str, number: int, options: Sequence[int]) -> str:
    """`placed` and the number: `Eva B 12`."""
    return f"{with_letter(name, number, options)} {number}"


def found(
    name: str, number: int, changes: tuple[Change, ...], result: int, options: Sequence[int] = ()
) -> Derivation:
    """A number found, and tried at once: `Eva: ? + 7 - 4 = 14`, then `Check: Eva B 12 + 7 = 19, 19
    - 4 = 15, 15 = 14`.

    The last clause has what comes of it and what should: that two numbers are not the same is the
    easiest thing to see.
    """
    tried = ", ".join((*chain(number, changes), f"{states(number, changes)[-1]} = {result}"))
    return Derivation(
        name,
        tuple(change.of for change in changes if change.of),
        (f"{equation(changes)} = {result}",),
        with_number(name, number, options) + tried.removeprefix(str(number)),
    )
