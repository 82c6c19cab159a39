"""Find the answer of a solution (method 8, grading): after a `####`, or in its last box.

The last `####` with a gradable text after it counts. Marks without text and headings (`#### Step
1`) don't. Otherwise the last `\\\\boxed{}` counts, if boxes are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from glore.prompts import lines_of
from glore.tasks.grading.latex_markup import box_contents, plain_latex
from glore.tasks.grading.numbers import canonical, parse_number

__all__ = [
    "ANSWER_MARK",
    "answer_line",
    "ends_with_answer",
    "find_answer",
    "find_boxed",
    "find_marked",
    "is_answer_line",
    "merge_answer_line",
    "strip_annotations",
    "with_answer_line",
]

ANSWER_MARK = "####"
_MAX_HEADING_CHARS = 80
_ANNOTATION = re.compile(r"<<[^<>]*>>")
_MARKS = re.compile(r"#{4,}")
_HEADINGS = (
    "step part case phase stage section example problem question exercise method approach attempt "
    "task",
    "solution explanation reasoning analysis calculation calculations computation verification "
    "check checking conclusion summary",
    "setup given note notes hint answer result results introduction overview proof remark final "
    "understanding",
)
_HEADING = re.compile(
    r"\W*(?:the\s+)?(?:"
    + "|".join(word for line in _HEADINGS for word in line.split())
    + r")(?![A-Za-z])",
    re.IGNORECASE,
)
_ANSWER_LEAD = re.compile(
    r"[\W_]*(?:the\s+)?(?:final\s+)?(?:answer|result|solution|conclusion)(?:\s+is\b[\s*_]*[:=]?|[\s*_]*[:=]|[\s*_]*$)[\s*_]*",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"\(?[0-9]{1,2}[.):]\s+[*_]*[A-Z][a-z]")
_MAY_BE_GRADED = re.compile(r"[0-9\\^_{}=<>+*/|∅∞π√⅐-⅞¼-¾]|^\W*[A-Za-z]\W*$")


def answer_line(answer: str) -> str:
    """The last step of a worked solution."""
    return f"{ANSWER_MARK} {answer}"


def merge_answer_line(steps: tuple[str, ...]) -> tuple[str, ...]:
    """The steps with the answer line joined to the step before it (an option in method,
    notation).
    """
    if len(steps) < 2 or not steps[-1].startswith(ANSWER_MARK):
        return steps
    return (*steps[:-2], f"{steps[-2]} {steps[-1]}")


def with_answer_line(steps: tuple[str, ...], merge: bool = False) -> tuple[str, ...]:
    """A right solution as training uses it: a line `#### N` is added if the answer is only in a
    box. `merge`: join that line to the step before it.
    """
    if find_marked(lines_of(steps)) is not None:
        return steps
    found = find_boxed("\n".join(steps))
    if found is None:
        return steps
    number = parse_number(plain_latex(found), algebra=True)
    longer = (*steps, answer_line(canonical(number) if number else " ".join(found.split())))
    return merge_answer_line(longer) if merge else longer


def strip_annotations(steps: tuple[str, ...]) -> tuple[str, ...]:
    """The steps without calculator annotations `<<48/2=24>>`, which are never executed."""
    return tuple(_ANNOTATION.sub("", step) for step in steps)


def find_answer(steps: Sequence[str], boxed: bool = False) -> str | None:
    """The answer of a solution; none if it has none. `boxed`: without a `####`, the last box
    counts.
    """
    marked = find_marked(steps)
    return find_boxed("\n".join(steps)) if marked is None and boxed else marked


def find_marked(steps: Sequence[str], words: bool = True) -> str | None:
    """The text after the last `####` with a gradable text; none if there is none.

    Numbers and mathematics take precedence over words, since words after a mark may be a heading.
    `words`: without numbers and mathematics, the last words count.
    """
    last_words = None
    for marked, next_step in _marked(steps):
        if _NUMBERED.match(marked) and next_step:
            continue
        text = _graded(marked, next_step)
        if text and (text != marked or _MAY_BE_GRADED.search(text)):
            return text
        last_words = last_words or text
    return (last_words or None) if words else None


def _graded(marked: str, next_step: str) -> str:
    """The gradable part of the text after a mark; empty for a heading. After `Answer:` alone, the
    answer is the next step.
    """
    if parse_number(marked) is not None:
        return marked
    lead = _ANSWER_LEAD.match(marked)
    if lead:
        return marked[lead.end() :].rstrip("*_ ") or next_step
    return "" if len(marked) <= _MAX_HEADING_CHARS and _HEADING.match(marked) else marked


def ends_with_answer(steps: Sequence[str], answer: str) -> bool:
    """Whether the last non-empty line is a `####` and this answer, word for word. Then it is no
    heading, even if it looks like one (`Step 2`, if the question asks for a step).
    """
    last = next((step for step in reversed(steps) if step.strip()), "")
    words = answer.casefold().split()
    return bool(words) and any(
        text.casefold().split() == words for text in _MARKS.split(last)[1:][-1:]
    )


def is_answer_line(line: str) -> bool:
    """Whether the line has a `####` with an answer after it. A heading is no answer."""
    return any(
        text.strip() and not _NUMBERED.match(text.strip()) and _graded(text.strip(), "")
        for text in _MARKS.split(line)[1:]
    )


def find_boxed(text: str) -> str | None:
    """The content of the last box that is closed and not empty."""
    return next(reversed(box_contents(text)), None)


def _marked(steps: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The non-empty texts after marks, the last first, each with the step after it."""
    for n in reversed(range(len(steps))):
        for text in reversed(_MARKS.split(steps[n])[1:]):
            if text.strip():
                yield text.strip(), steps[n + 1] if n + 1 < len(steps) else ""
