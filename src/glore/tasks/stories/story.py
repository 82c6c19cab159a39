"""The model of a story: people with quantities, facts that state or relate them, a question."""

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
"""The label of a line that checks a number."""
CHOICES = ("A", "B", "C", "D", "E")
"""The letters of offered numbers. A refiner corrects a wrong letter more easily than digits."""


@dataclass(frozen=True, slots=True)
class Change:
    """A number added or taken away."""

    sign: str
    k: int
    of: str = ""
    """The person whose number it is; empty if the story states the number."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """One piece of a solution: a quantity derived from others."""

    name: str
    needs: tuple[str, ...]
    """People whose quantities must be known."""
    clauses: tuple[str, ...]
    """`a + b = c` each, with the name before a known person's number."""
    check: str = ""
    """For an unknown number, a second line after its equation that names and checks it."""

    @property
    def lines(self) -> tuple[str, ...]:
        equations = f"{self.name}: {', '.join(self.clauses)}"
        return (equations, f"{CHECK}: {self.check}") if self.check else (equations,)


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact. `kind`: given (a = k), more (a = b + k), times (a = b * k), pair (a + b = k), sum
    (a = b + c), changes (a is what `changes` make of k), unknown (`changes` would make k of a).
    """

    kind: str
    people: tuple[str, ...]
    k: int
    new: str
    """The person whose quantity it gives, given the others'."""
    changes: tuple[Change, ...] = ()
    options: tuple[int, ...] = ()
    """Numbers that the story offers for an unknown one; the true one is among them."""

    def derivations(self, values: dict[str, int]) -> tuple[Derivation, ...]:
        """A derivation for every quantity that this fact gives."""
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
    """A story with its true values."""

    values: dict[str, int]
    facts: tuple[Fact, ...]
    asked: tuple[str, ...]
    """One name; two names and `total` or `difference`."""
    items: str

    @property
    def readings(self) -> dict[str, int]:
        """Everyone's number by name, and by name and letter if it is one of those offered: `Eva
        B`.
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
    """The number after each change, `start` first."""
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
    """A person and the letter of a number among those offered: `Eva B`, or `Eva` without offers."""
    return f"{name} {CHOICES[options.index(number)]}" if options else name


def with_number(name: str, number: int, options: Sequence[int]) -> str:
    """`with_letter`, and the number: `Eva B 12`."""
    return f"{with_letter(name, number, options)} {number}"


def found(
    name: str, number: int, changes: tuple[Change, ...], result: int, options: Sequence[int] = ()
) -> Derivation:
    """The derivation of an unknown number, with its check: `Eva: ? + 7 - 4 = 14`, then `Check: Eva
    B 12 + 7 = 19, 19 - 4 = 15, 15 = 14`.

    The last clause has the result and the expected result, since two different numbers are easy to
    see.
    """
    tried = ", ".join((*chain(number, changes), f"{states(number, changes)[-1]} = {result}"))
    return Derivation(
        name,
        tuple(change.of for change in changes if change.of),
        (f"{equation(changes)} = {result}",),
        with_number(name, number, options) + tried.removeprefix(str(number)),
    )
