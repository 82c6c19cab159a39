"""Whether a verifying rollout uses the results of the prefix that it continues (method 3.1).

A rollout that ignores the prefix and solves the question from the start says nothing about the
prefix, so it does not count as a success. The result R_k of every prefix step k must appear after
step k in P_i ⊕ T.

Numbers are compared in canonical form (no thousands commas, `$`, leading or trailing zeros) and as
whole numbers: 5 is not found inside 15 or 2.5. Options: the paper's literal substring check, and
R_i alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["consistent_rollouts", "numbers", "step_result"]

_NUMBER = re.compile(
    r"(?P<sign>[-−]\s?)?\$?(?P<value>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)",
    re.ASCII,
)
_ANNOTATION = re.compile(r"<<([^<>]*)>>")


def step_result(step: str) -> str | None:
    """A step → R_k as written: the number after `=` of the last `<<…=v>>`, else after the last `=`,
    else the last number, else none.
    """
    annotations = [a for a in _ANNOTATION.findall(step) if "=" in a]
    for place in (annotations[-1:], [step] if "=" in step else []):
        if place and (found := _written(place[0].rpartition("=")[2])):
            return found[0]
    written = _written(step)
    return written[-1] if written else None


def numbers(text: str) -> frozenset[str]:
    """All numbers of a text in canonical form."""
    return frozenset(_canonical(n) for n in _written(text))


def consistent_rollouts(
    prefix: Sequence[str],
    rollouts: Sequence[Sequence[str]],
    how: str = "number",
    steps: str = "all",
) -> list[bool]:
    """One flag per rollout of a prefix: do its steps use the results of the prefix's steps?

    `how`, `steps`: `consistency` and `consistency_steps` of `LabelSettings`.
    """
    if how == "off":
        return [True] * len(rollouts)
    checked = range(len(prefix)) if steps == "all" else range(len(prefix))[-1:]
    results = [(k, result) for k in checked if (result := step_result(prefix[k])) is not None]
    if how == "substring":
        unused = {r for k, r in results if not any(r in later for later in prefix[k + 1 :])}
        return [all(any(r in step for step in rollout) for r in unused) for rollout in rollouts]
    found = [numbers(step) for step in prefix]
    unused = {
        _canonical(r)
        for k, r in results
        if not any(_canonical(r) in later for later in found[k + 1 :])
    }
    return [unused <= frozenset().union(*map(numbers, rollout)) for rollout in rollouts]


def _written(text: str) -> list[str]:
    """The numbers of a text as written, in order, with their sign and without `$`."""
    return [
        ("-" if m["sign"] and _is_sign(text[max(0, m.start() - 9) : m.start()], m["sign"]) else "")
        + m["value"]
        for m in _NUMBER.finditer(text)
    ]


def _is_sign(before: str, minus: str) -> bool:
    """True if a minus after the text `before` is a sign: not an operator (`12 - 3`), not part of a
    word (`step-3`), and no bullet (`- 3 pens`).
    """
    last = before.rstrip()[-1:]
    operand = last.isdigit() or last in tuple(")%") or before[-1:].isalpha()
    return not operand and bool(last or len(minus) == 1)


def _canonical(number: str) -> str:
    """A number → the one spelling of its value: `$1,234.50` and `01234.5` give the same. Works on
    text, so a number may have any length.
    """
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, _, fraction = digits.replace(",", "").partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    value = f"{whole}.{fraction}" if fraction else whole
    return value if value == "0" else sign + value
