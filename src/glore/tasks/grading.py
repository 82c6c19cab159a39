"""What counts as right (method 8, grading): find the final answer in a solution, compare it with the gold one.

The answer is what follows the last `####` of the steps. Verdicts: `right`; `wrong` (another answer, or none at all);
`unknown` (an answer is there but can't be compared). Gold answers are kept in one spelling (`normalise_gold`): numbers
as `numbers.canonical` writes them (`18`, `0.5`, `1/3`, `25%`), anything else as its LaTeX source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from glore.tasks.latex import LatexChecker
from glore.tasks.numbers import Number, canonical, parse_number, same_number
from glore.tasks.protocol import Grade

__all__ = [
    "ANSWER_MARK",
    "MAX_LATEX_CHARS",
    "answer_line",
    "find_answer",
    "find_boxed",
    "grade_answer",
    "grade_number_answer",
    "merge_answer_line",
    "normalise_gold",
    "strip_annotations",
]

ANSWER_MARK = "####"
MAX_LATEX_CHARS = 1_000
"""A longer answer is not compared as LaTeX: verdict `unknown`."""
_SHOWN_CHARS = 80
_ANNOTATION = re.compile(r"<<[^<>]*>>")
_BOX = re.compile(r"\\f?boxed\s*(\{)?")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}|([0-9])\s*([0-9])(?![0-9]))")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox|textrm)\s*\{([^{}]*)\}")
_LOOKS_LIKE_LATEX = re.compile(r"\\[A-Za-z]|[\^_{}]|^\$.*\$$")


def answer_line(answer: str) -> str:
    """The last step of a worked solution."""
    return f"{ANSWER_MARK} {answer}"


def merge_answer_line(steps: tuple[str, ...]) -> tuple[str, ...]:
    """Let the answer line be part of the step before it (the option in method, notation)."""
    if len(steps) < 2 or not steps[-1].startswith(ANSWER_MARK):
        return steps
    return (*steps[:-2], f"{steps[-2]} {steps[-1]}")


def strip_annotations(steps: tuple[str, ...]) -> tuple[str, ...]:
    """Remove calculator annotations `<<48/2=24>>` as a whole; they are never executed."""
    return tuple(_ANNOTATION.sub("", step) for step in steps)


def find_answer(steps: Sequence[str], boxed: bool = False) -> str | None:
    """The text after the last `####`, none where there is no mark or nothing follows it.

    `boxed`: without a `####`, the content of the last `\\boxed{}` counts.
    """
    for step in reversed(steps):
        _, mark, answer = step.rpartition(ANSWER_MARK)
        if mark:
            return answer.strip() or None
    return find_boxed("\n".join(steps)) if boxed else None


def find_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}` (braces balanced) or `\\boxed 5`; none where there is none or it isn't closed."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    last = boxes[-1]
    if not last.group(1):
        return text[last.end() :].split("$")[0].split("\n")[0].strip() or None
    depth = 1
    for end in range(last.end(), len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[last.end() : end].strip() or None
    return None


def plain_latex(text: str) -> str:
    """LaTeX dressing taken off a simple answer, so that `$\\frac{1}{2}$` or `1{,}234` can be read as plain numbers."""
    text = text.strip()
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(left) and text.endswith(right) and len(text) > len(left + right):
            text = text[len(left) : -len(right)].strip()
    if text.startswith("\\boxed") and (inner := find_boxed(text)):
        text = inner
    text = text.replace("{,}", ",").replace("\\!", "").replace("\\,", " ").replace("\\ ", " ").replace("\\$", "$").replace("\\%", "%")
    text = _TEXT.sub(r" \1 ", text)
    text = _FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]}", text)
    return re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "°", text).strip()


def normalise_gold(text: str) -> str | None:
    """A gold answer in the spelling of `Problem.answer`; none where it is neither a number nor LaTeX."""
    number = parse_number(text) or _plain_number(text)
    if number is not None:
        return canonical(number)
    text = text.strip()
    inner = find_boxed(text) if text.startswith("\\boxed") else text
    return inner if inner and len(inner) <= MAX_LATEX_CHARS and _LOOKS_LIKE_LATEX.search(text) else None


def grade_number_answer(gold: str, steps: Sequence[str]) -> Grade:
    """Grade a solution against a gold number, in microseconds. An answer that isn't one number is `unknown`."""
    found = find_answer(steps)
    if found is None:
        return Grade("wrong", None)
    gold_number, number = parse_number(gold), parse_number(found)
    if gold_number is None or number is None:
        return Grade("unknown", canonical(number) if number else found[:_SHOWN_CHARS])
    return Grade("right" if same_number(gold_number, number) else "wrong", canonical(number))


def grade_answer(gold: str, steps: Sequence[str], checker: LatexChecker) -> Grade:
    """Grade a solution whose answer may be LaTeX or stand in `\\boxed{}`; plain numbers never reach the slow checker."""
    found = find_answer(steps, boxed=True)
    if found is None:
        return Grade("wrong", None)
    gold_number, number = parse_number(gold), parse_number(found) or _plain_number(found)
    if gold_number and number:
        return Grade("right" if same_number(gold_number, number) else "wrong", canonical(number))
    shown = canonical(number) if number else found[:_SHOWN_CHARS]
    return Grade(_grade_latex(gold, found, gold_number, checker) if len(found) <= MAX_LATEX_CHARS else "unknown", shown)


def _plain_number(text: str) -> Number | None:
    return parse_number(plain_latex(text)) if len(text) <= MAX_LATEX_CHARS else None


def _grade_latex(gold: str, found: str, gold_number: Number | None, checker: LatexChecker) -> str:
    if _compact(gold) == _compact(found):
        return "right"
    if _TEXT.fullmatch(gold.strip()):
        # A gold answer in words ("Evelyn", "(C)"): the checker would read the letters as symbols.
        return "right" if _letters(gold) == _letters(found) else "wrong"
    if gold_number is not None and not _LOOKS_LIKE_LATEX.search(found):
        # Several numbers, a sum, a range: the checker would take the last number for the answer.
        return "unknown"
    if ("%" in found) != ("%" in gold):
        # The checker holds 25 = 25% and 0.25 = 25%.
        return "unknown"
    return checker.check(gold, found)


def _compact(text: str) -> str:
    """For comparing answers as text: LaTeX dressing, spaces and a final dot don't count."""
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])", "", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return re.sub(r"\s+", "", plain_latex(text)).removesuffix(".")


def _letters(text: str) -> str:
    """For comparing answers in words: nor do case and brackets around them."""
    return re.sub(r"\((.*)\)", r"\1", _compact(text)).casefold()
