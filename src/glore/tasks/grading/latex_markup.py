"""Remove LaTeX markup from a simple answer (dollars, boxes, `\\\\text{}`, spaces), so that numbers
and words can be read.
"""

from __future__ import annotations

import re

from glore.tasks.grading.units import holds_multiplier

__all__ = [
    "MATHS_COMMAND",
    "TEXT_COMMAND",
    "box_contents",
    "compact",
    "plain_latex",
    "unboxed",
    "undollared",
]

_BOX = re.compile(r"\\(?:f?boxed|fbox)(?![A-Za-z])\s*(\{)?")
_FRACTION = re.compile(
    r"\\[dtc]?frac\s*(?:\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}|([0-9])\s*([0-9])(?![0-9]))"
)
TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|sc|up)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|operatorname\*?)\s*\{([^{}]*)\}"
)
"""A command whose argument is text; group 1 is the argument."""
MATHS_COMMAND = re.compile(r"\\(?:begin|end|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
"""A command of mathematics, whose letters are no symbols."""
_AFTER_BOX = re.compile(
    r"(?:\s|\\[ ,;!~)\]]|[~$*]|\\(?:text(?:bf|it|rm)?|mathrm|mbox)\s*\{)*(\\?%|[A-Za-z]+)"
)
_SUBSCRIPT = re.compile(r"\s*[_^]\s*(?:\{[^{}]{0,40}\}|[0-9A-Za-z])|\s*[₀-₉⁰¹²³⁴-⁹]+")


def box_contents(text: str) -> list[str]:
    """The contents of the boxes in a text, in order: `\\\\boxed{…}` with balanced braces, or
    `\\\\boxed 5`.

    A percent sign, a word of scale, an index or a power right after a box belongs to its number.
    Empty and unclosed boxes are left out.
    """
    found, closed = [], _closing_braces(text)
    for box in _BOX.finditer(text):
        if not box[1]:
            line = text.find("\n", box.end())
            found.append(text[box.end() : len(text) if line < 0 else line].split("$")[0].strip())
            continue
        end = closed.get(box.end() - 1)
        content = "" if end is None else text[box.end() : end].strip()
        found.append(
            content + _suffix_of_box(text[end + 1 : end + 61].split("\n")[0])
            if end is not None and content
            else ""
        )
    return [content for content in found if content]


def _suffix_of_box(after: str) -> str:
    """The part of the text after a box that belongs to the number in it."""
    index, word = _SUBSCRIPT.match(after), _AFTER_BOX.match(after)
    if index:
        return index[0].strip()
    changes = word and (
        word[1] in ("%", "\\%")
        or word[1].lower().startswith("percent")
        or holds_multiplier(word[1])
    )
    return f" {word[1]}" if word and changes else ""


def _closing_braces(text: str) -> dict[int, int]:
    """Position of each opening brace → position of its closing one. One pass, since a text may have
    thousands.
    """
    closed, opened = {}, []
    for at, character in enumerate(text):
        if character == "{":
            opened.append(at)
        elif character == "}" and opened:
            closed[opened.pop()] = at
    return closed


def undollared(text: str) -> str:
    """The text without the delimiters of mathematics: `$x$`, `\\\\(x\\\\)`."""
    text = text.strip()
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(left) and text.endswith(right) and len(text) > len(left + right):
            text = text[len(left) : -len(right)].strip()
    return text


def unboxed(text: str) -> str:
    """`\\\\boxed{72} apples` as `72 apples`. The text after the box is kept, since it may change
    the number (`\\\\boxed{72} + 1`).
    """
    while box := _BOX.match(text):
        if not box[1]:
            return text[box.end() :].strip()
        end = _closing_braces(text).get(box.end() - 1)
        if end is None:
            break
        text = f"{text[box.end() : end].strip()} {text[end + 1 :].strip()}".strip()
    return text


def plain_latex(text: str) -> str:
    """A simple answer without LaTeX markup, so that `$\\\\frac{1}{2}$` or `1{,}234` can be read as
    numbers.
    """
    text = unboxed(undollared(text))
    text = text.replace("{,}", ",").replace("\\!", "").replace("\\$", "$").replace("\\%", "%")
    text = re.sub(r"\\[,;: ]|\\q?quad(?![A-Za-z])|(?<=[^\s~])~", " ", text)
    text = TEXT_COMMAND.sub(r" \1 ", text)
    text = _FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]}", text)
    return re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "°", text).strip()


def compact(text: str) -> str:
    """The text for comparing answers as text: without LaTeX markup, spaces and a final dot."""
    text = (
        re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])", "", text)
        .replace("\\dfrac", "\\frac")
        .replace("\\tfrac", "\\frac")
    )
    text = re.sub(r"([_^])\{([0-9A-Za-z])\}", r"\1\2", text)
    return re.sub(r"\s+", "", plain_latex(text)).removesuffix(".")
