"""Where a solution states its answer (method 8, grading): after a `####`, or in its last box.

The last `####` that something gradable follows counts; marks that nothing follows and headings
(`#### Step 1`) don't. Else the last `\\\\boxed{}` counts, where boxes are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from glore.tasks.grading.dressing import box_contents, plain_latex
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
_SAYS_ANSWER = re.compile(
    r"[\W_]*(?:the\s+)?(?:final\s+)?(?:answer|result|solution|conclusion)(?:\s+is\b[\s*_]*[:=]?|[\s*_]*[:=]|[\s*_]*$)[\s*_]*",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"\(?[0-9]{1,2}[.):]\s+[*_]*[A-Z][a-z]")
_MAY_BE_GRADED = re.compile(r"[0-9\\^_{}=<>+*/|∅∞π√⅐-⅞¼-¾]|^\W*[A-Za-z]\W*$")


def answer_line(answer: str) -> str:
    """The last step of a worked solution."""
    return f"{ANSWER_MARK} {answer}"


def merge_answer_line(steps: tuple[str, ...]) -> tuple[str, ...]:
    """Let the answer line be part of the step before it (the option in method, notation)."""
    if len(steps) < 2 or not steps[-1].startswith(ANSWER_MARK):
        return steps
    return (*steps[:-2], f"{steps[-2]} {steps[-1]}")


def with_answer_line(steps: tuple[str, ...], merge: bool = False) -> tuple[str, ...]:
    """A right solution as it is learnt from: one that states its answer in a box alone gets the
    line `#### N`. `merge` as above.
    """
    if find_marked(steps) is not None:
        return steps
    found = find_boxed("\n".join(steps))
    if found is None:
        return steps
    number = parse_number(plain_latex(found), algebra=True)
    longer = (*steps, answer_line(canonical(number) if number else " ".join(found.split())))
    return merge_answer_line(longer) if merge else longer


def strip_annotations(steps: tuple[str, ...]) -> tuple[str, ...]:
    """Remove calculator annotations `<<48/2=24>>` as a whole; they are never executed."""
    return tuple(_ANNOTATION.sub("", step) for step in steps)


def find_answer(steps: Sequence[str], boxed: bool = False) -> str | None:
    """What a solution gives as its answer; none where it gives none. `boxed`: without a `####`, the
    last box counts.
    """
    marked = find_marked(steps)
    return find_boxed("\n".join(steps)) if marked is None and boxed else marked


def find_marked(steps: Sequence[str], words: bool = True) -> str | None:
    """The text after the last `####` that something gradable follows; none where there is none.

    Numbers and mathematics go before words, since words behind a mark may be a heading. `words`:
    else the last words count.
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
    """What may be graded of the text behind a mark; empty for a heading. Behind `Answer:` alone,
    the answer is the next step.
    """
    if parse_number(marked) is not None:
        return marked
    said = _SAYS_ANSWER.match(marked)
    if said:
        return marked[said.end() :].rstrip("*_ ") or next_step
    return "" if len(marked) <= _MAX_HEADING_CHARS and _HEADING.match(marked) else marked


def ends_with_answer(steps: Sequence[str], answer: str) -> bool:
    """Whether the last line with text in it is a `####` and this answer, word for word. Then it is
    no heading, however it reads (`Step 2`, where the question asks for a step).
    """
    last = next((step for step in reversed(steps) if step.strip()), "")
    words = answer.casefold().split()
    return bool(words) and any(
        said.casefold().split() == words for said in _MARKS.split(last)[1:][-1:]
    )


def is_answer_line(line: str) -> bool:
    """Does the line hold a `####` that an answer follows? A heading is none."""
    return any(
        text.strip() and not _NUMBERED.match(text.strip()) and _graded(text.strip(), "")
        for text in _MARKS.split(line)[1:]
    )


def find_boxed(text: str) -> str | None:
    """The content of the last box that holds something and is closed."""
    return next(reversed(box_contents(text)), None)


def _marked(steps: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What follows the marks, the last first, each with the step after it; empty texts are left
    out.
    """
    for n in reversed(range(len(steps))):
        for text in reversed(_MARKS.split(steps[n])[1:]):
            if text.strip():
                yield text.strip(), steps[n + 1] if n + 1 < len(steps) else ""
