"""What counts as right (method 8, grading): find the final answer in a solution, compare it with the gold one.

The answer is what follows the last `####` of the steps. Verdicts: `right`; `wrong` (another answer, or none at all);
`unknown` (an answer is there but can't be compared). Gold answers are kept in one spelling (`normalise_gold`): numbers
as `numbers.canonical` writes them (`18`, `0.5`, `1/3`, `25%`), anything else as its LaTeX source, words as words.
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
_MARKS = re.compile(r"#{4,}")
_BOX = re.compile(r"\\f?boxed\s*(\{)?")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}|([0-9])\s*([0-9])(?![0-9]))")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox|textrm)\s*\{([^{}]*)\}")
_LOOKS_LIKE_LATEX = re.compile(r"\\[A-Za-z]|[\^_{}]|^\$.*\$$")
_WORDS = re.compile(r"(?:[^\W\d_]|[\s.,;:!?'’()-])*")
_COMMAND = re.compile(r"\\(?:begin|end|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_FUNCTIONS = frozenset(
    word
    for words in ("sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan", "log ln exp pi sqrt abs max min gcd lcm inf infinity")
    for word in words.split()
)
_THOUSANDS = re.compile(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")


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
    """The text after the last `####`, none where there is no mark or nothing follows it. Marks that close the line don't count.

    `boxed`: without a `####`, the content of the last `\\boxed{}` counts.
    """
    for step in reversed(steps):
        _, *answers = _MARKS.split(step)
        if answers:
            return next((answer.strip() for answer in reversed(answers) if answer.strip()), None)
    return find_boxed("\n".join(steps)) if boxed else None


def find_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}` (braces balanced) or `\\boxed 5`; none where there is none or it isn't closed."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if not boxes[-1].group(1):
        return text[start:].split("$")[0].split("\n")[0].strip() or None
    end = _closing_brace(text, start)
    return None if end is None else text[start:end].strip() or None


def _closing_brace(text: str, start: int) -> int | None:
    """Where the brace opened just before `start` is closed."""
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return end
    return None


def plain_latex(text: str) -> str:
    """LaTeX dressing taken off a simple answer, so that `$\\frac{1}{2}$` or `1{,}234` can be read as plain numbers."""
    text = text.strip()
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(left) and text.endswith(right) and len(text) > len(left + right):
            text = text[len(left) : -len(right)].strip()
    text = _without_box(text)
    text = text.replace("{,}", ",").replace("\\!", "").replace("\\,", " ").replace("\\ ", " ").replace("\\$", "$").replace("\\%", "%")
    text = _TEXT.sub(r" \1 ", text)
    text = _FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]}", text)
    return re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "°", text).strip()


def _without_box(text: str) -> str:
    """`\\boxed{72} apples` as `72 apples`: what follows the box is kept, since it may change the number (`\\boxed{72} + 1`)."""
    while box := _BOX.match(text):
        if not box[1]:
            return text[box.end() :].strip()
        end = _closing_brace(text, box.end())
        if end is None:
            break
        text = f"{text[box.end() : end].strip()} {text[end + 1 :].strip()}".strip()
    return text


def normalise_gold(text: str) -> str | None:
    """A gold answer in the spelling of `Problem.answer`; none where it is neither a number nor LaTeX."""
    number = parse_number(text) or _plain_number(text)
    if number is not None:
        return canonical(number)
    text = text.strip()
    return _without_box(text) or None if len(text) <= MAX_LATEX_CHARS and _LOOKS_LIKE_LATEX.search(text) else None


def grade_number_answer(gold: str, steps: Sequence[str]) -> Grade:
    """Grade a solution against a gold number, in microseconds. An answer that isn't one number (boxed or not) is `unknown`."""
    found = find_answer(steps)
    if found is None:
        return Grade("wrong", None)
    gold_number, number = parse_number(gold), parse_number(found)
    if number is None and "boxed" in found:
        number = _plain_number(found)
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
    return Grade(_grade_latex(gold, found, gold_number, number, checker) if len(found) <= MAX_LATEX_CHARS else "unknown", shown)


def _plain_number(text: str) -> Number | None:
    return parse_number(plain_latex(text)) if len(text) <= MAX_LATEX_CHARS else None


def _grade_latex(gold: str, found: str, gold_number: Number | None, number: Number | None, checker: LatexChecker) -> str:
    """At most one of the two is a number. What can't be decided is `unknown`."""
    if _compact(gold) == _compact(found):
        # `5, 100` are two numbers, `5,100` is one.
        return "unknown" if number is not None and "," in gold else "right"
    if _TEXT.fullmatch(gold.strip()) or _is_words(gold):
        return _grade_words(gold, found, number)
    if gold_number is not None and not _LOOKS_LIKE_LATEX.search(found):
        # Several numbers, a sum, a range: the checker would take the last number for the answer.
        return "unknown"
    if ("%" in found) != ("%" in gold):
        # The checker holds 25 = 25% and 0.25 = 25%.
        return "unknown"
    if _THOUSANDS.search(gold) or (_THOUSANDS.search(found) and (number is None or "," in gold)):
        # `3,500` is a number, but within brackets or a list it may be two.
        return "unknown"
    verdict = checker.check(gold, found)
    if verdict == "right" and (_mixes_cases(f"{gold} {found}") or _loses_order(gold, found)):
        return "unknown"
    if verdict == "wrong" and (_holds_words(gold) or _holds_words(found)):
        return "unknown"
    return verdict


def _grade_words(gold: str, found: str, number: Number | None) -> str:
    """A gold answer in words ("Evelyn", "(C)"): the checker would read the letters as symbols."""
    gold_letters, letters = _letters(gold), _letters(found)
    if gold_letters == letters:
        return "right"
    if sorted(filter(str.isalnum, gold_letters)) == sorted(filter(str.isalnum, _COMMAND.sub("", letters))):
        return "unknown"  # `abc` and `bca`: a product, perhaps
    return "wrong" if number is not None or _WORDS.fullmatch(plain_latex(found)) else "unknown"


def _is_words(text: str) -> bool:
    """Nothing but letters and punctuation, with at least one word that isn't a function: `Evelyn`, not `p - q`, `(C)` or `sin x`."""
    plain = plain_latex(text)
    return _WORDS.fullmatch(plain) is not None and any(word not in _FUNCTIONS for word in re.findall(r"[^\W\d_]{3,}", plain))


def _holds_words(text: str) -> bool:
    """Is there a word among the mathematics, whose letters the checker takes for symbols? Three letters may be a product."""
    words = re.findall(r"[^\W\d_]+", _COMMAND.sub(" ", _TEXT.sub(" ", text)))
    return _is_words(text) or any(len(word) > 3 or word in _FUNCTIONS for word in words)


def _mixes_cases(text: str) -> bool:
    """`R - r`: the checker makes one symbol of the two."""
    letters = set(_COMMAND.sub("", _TEXT.sub("", text)))
    return any(letter.isupper() and letter.lower() in letters for letter in letters)


def _loses_order(gold: str, found: str) -> bool:
    """One says which value is which (`(3, 4)`; `x = 3, y = 4`), the other lists them (`4, 3`): the checker doesn't mind."""
    return "," in gold and "," in found and _is_list(gold) != _is_list(found)


def _is_list(text: str) -> bool:
    return not re.search(r"[(\[][^()\[\]]*,", text) and len(set(re.findall(r"([A-Za-z])\s*=", text))) < 2


def _compact(text: str) -> str:
    """For comparing answers as text: LaTeX dressing, spaces and a final dot don't count."""
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])", "", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return re.sub(r"\s+", "", plain_latex(text)).removesuffix(".")


def _letters(text: str) -> str:
    """For comparing answers in words: nor do case and brackets around them."""
    return re.sub(r"\((.*)\)", r"\1", _compact(text)).casefold()
