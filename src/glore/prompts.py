"""Questions and solutions → prompt text, and model output → steps. No other file knows how a prompt
looks.

A step is one non-empty line (method, notation), or a paragraph (`StepFormat`). A line ends at `\\n`
or `\\r\\n`, and at no other character. Every layout is a tuple of text *segments*. Tokenizers
encode each segment by itself, so a step has a last token, and the tokens of a prefix never depend
on the text after it. The mark is a segment of its own. No question or step equals it: their
segments end in a newline, or are cut in two.

In the plain layout a prompt is `Question: … Answer:`. In a chat the question is the user's turn and
the steps are the assistant's (`ChatTemplate`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

from glore.files import split_lines

__all__ = [
    "BAD_MARK",
    "LINES",
    "MAX_QUESTION_CHARS",
    "MAX_SOLUTION_CHARS",
    "PARAGRAPH_END",
    "PLAIN",
    "STEP_END",
    "THINK",
    "ChatTemplate",
    "ControlText",
    "PromptLayout",
    "Said",
    "Shot",
    "SolutionText",
    "StepFormat",
    "lines_of",
    "mark_draft",
    "refine_segments",
    "solve_segments",
    "split_steps",
    "step_text",
]

BAD_MARK = "[BAD]"
MAX_QUESTION_CHARS = 20_000
"""Longer questions are refused at inference."""
MAX_SOLUTION_CHARS = 20_000
"""Longer model output is cut to this length before it is parsed (`prompt.max_solution_chars`)."""
STEP_END = "\n"
"""Ends every step that is a line. As `SamplingParams.stop` it makes a completion one step, which is
empty if the model begins with an empty line.
"""
PARAGRAPH_END = "\n\n"
THINK, END_OF_THINK = "<think>", "</think>"
_THINK_MARKS = re.compile("(</?think>)")
CORRECT = "Write the corrected solution."
"""Ends the user's turn of a refinement. Templates may strip a turn, so it doesn't end in a
newline.
"""


class ControlText(str):
    """A segment in which the tokenizer's special tokens count, such as `<|im_start|>`: text of a
    chat template. In every other segment they are ordinary text. A prompt that begins with one gets
    no BOS in front: the template has its own.
    """

    __slots__ = ()


class SolutionText(NamedTuple):
    """A model's output, read."""

    steps: tuple[str, ...]
    thought: str
    """What its `<think>` blocks hold, if they are kept apart from the steps."""
    n_cut: int
    """Characters beyond the limit, which are not read."""


class Said(NamedTuple):
    """What a model's output says outside of its thoughts."""

    text: str
    ends: Sequence[int]
    """Where its first n characters end in the output, n from 0 to `len(text)`."""


@dataclasses.dataclass(frozen=True, slots=True)
class StepFormat:
    """How a solution is written as text: `prompt.steps`, `.think` and `.max_solution_chars`."""

    end: str = STEP_END
    """What ends a step: one newline, or two where steps are paragraphs."""
    think_apart: bool = False
    """Whether `<think>` blocks are kept apart from the steps. A block that is not closed is a
    thought to the end; what stands between the end of a block, or the beginning of the text, and
    a `</think>` without a `<think>` is one, too.
    """
    max_chars: int = MAX_SOLUTION_CHARS

    def read(self, text: str) -> SolutionText:
        """A model's output → its steps, and what is no part of them."""
        said, thought = self.said(text).text, ""
        if self.think_apart:
            thoughts = (text[start:end].strip() for start, end in _parts(text).thoughts)
            thought = "\n".join(filter(None, thoughts))
        kept = said[: self.max_chars]
        return SolutionText(self._split(kept), thought, len(said) - len(kept))

    def split(self, text: str) -> tuple[str, ...]:
        """A model's output → its steps."""
        return self.read(text).steps

    def said(self, text: str) -> Said:
        """A model's output without thoughts that are kept apart, whatever its length."""
        if self.think_apart:
            return _joined(text, _parts(text).outside)
        return Said(text, range(len(text) + 1))

    def text(self, step: str) -> str:
        """A step → its text in a prompt or target."""
        return f"{step}{self.end}"

    def _split(self, text: str) -> tuple[str, ...]:
        if self.end == STEP_END:
            lines = (line.strip() for line in split_lines(text))
            return tuple(line for line in lines if line)
        paragraphs: list[list[str]] = [[]]
        for line in split_lines(text):
            if line.strip():
                paragraphs[-1].append(line.rstrip())
            elif paragraphs[-1]:
                paragraphs.append([])
        return tuple("\n".join(p).strip() for p in paragraphs if p)


class _Parts(NamedTuple):
    """Where thoughts are, and what is around them, as (start, end) in a text."""

    thoughts: list[tuple[int, int]]
    outside: list[tuple[int, int]]


def _parts(text: str) -> _Parts:
    """The parts of a text in and outside of `<think>` blocks, without their marks."""
    parts, start, is_thought = _Parts([], []), 0, False
    for mark in _THINK_MARKS.finditer(text):
        if mark[0] == END_OF_THINK:  # without a start, what stands before it is a thought
            parts.thoughts.append((start, mark.start()))
        elif is_thought:
            continue
        else:
            parts.outside.append((start, mark.start()))
        start, is_thought = mark.end(), mark[0] == THINK
    (parts.thoughts if is_thought else parts.outside).append((start, len(text)))
    return parts


def _joined(text: str, outside: Sequence[tuple[int, int]]) -> Said:
    """These parts of a text. Parts that touch get a line each: `5<think>…</think>6` is not 56."""
    said, ends = "", [0]
    for start, end in outside:
        piece = text[start:end]
        if said[-1:].strip() and piece[:1].strip():
            said += "\n"
            ends.append(start)
        said += piece
        ends.extend(range(start + 1, end + 1))
    return Said(said, ends)


LINES = StepFormat()


def split_steps(text: str) -> tuple[str, ...]:
    """A solution text → its steps as lines: the non-empty ones, stripped."""
    return LINES.split(text)


def step_text(step: str) -> str:
    """A step that is a line → its text in a prompt or target."""
    return LINES.text(step)


def lines_of(steps: Sequence[str]) -> tuple[str, ...]:
    """The lines of steps that may be paragraphs. Graders read lines."""
    return tuple(line for step in steps for line in step.split("\n"))


def mark_draft(
    steps: Sequence[str], marked_step: int | None, end: str = STEP_END
) -> tuple[str, ...]:
    """The draft's segments with `[BAD]` before the step of index `marked_step` (0-based; none: no
    mark). A mark in the draft's own text is removed.
    """
    clean = [s.replace(BAD_MARK, "").strip() + end for s in steps]
    return tuple(
        part
        for i, s in enumerate(clean)
        for part in ((BAD_MARK, f" {s}") if i == marked_step else (s,))
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A model's chat template around one turn of the user (`glore.chat_template` reads it)."""

    before: str
    """From the start of the text to the user's words."""
    after: str
    """From there to the first token of the assistant."""
    special: tuple[str, ...]
    """Texts that the tokenizer takes for special tokens."""

    def turn(self, words: str) -> tuple[str, ...]:
        """The prompt in which the user says these words: one segment, encoded as the template's
        text is. Words that spell a special token are a segment apart, in which they are text.
        """
        if not self._spells_special(words):
            return (ControlText(self.before + words + self.after),)
        return (*self._apart(words), ControlText(self.after))

    def open_turn(self, words: str) -> tuple[str, ...]:
        """The same without what follows the words."""
        if not self._spells_special(words):
            return (ControlText(self.before + words),)
        return self._apart(words)

    def close_turn(self, words: str) -> tuple[str, ...]:
        """The last words of an opened turn, which are ours, and what follows them."""
        return (ControlText(words + self.after),)

    def _spells_special(self, words: str) -> bool:
        return any(token in words for token in self.special)

    def _apart(self, words: str) -> tuple[str, ...]:
        # A segment that equals the mark would be the mark.
        pieces = (words[:1], words[1:]) if words == BAD_MARK else (words,)
        return (ControlText(self.before), *pieces)


Shot = tuple[str, tuple[str, ...]]
"""Question and steps of a worked example."""


@dataclasses.dataclass(frozen=True, slots=True)
class PromptLayout:
    """How prompts look: plain or as a chat."""

    steps: StepFormat = LINES
    chat: ChatTemplate | None = None
    """None: the plain layout."""
    shots: tuple[Shot, ...] = ()
    """Worked examples before the question. A chat has them in its template, as earlier turns."""

    def solve(self, question: str, steps: Sequence[str] = ()) -> tuple[str, ...]:
        """Prompt of the student, and input of the reward models: the question, the steps so far."""
        if self.chat is not None:
            head = self.chat.turn(question.strip())
        else:
            examples = [(*self._plain(*shot), "\n") for shot in self.shots]
            head = (*(segment for shot in examples for segment in shot), *self._plain(question))
        return (*head, *map(self.steps.text, steps))

    def refine(
        self,
        question: str,
        draft: Sequence[str],
        marked_step: int | None,
        earlier: Sequence[Sequence[str]] = (),
    ) -> tuple[str, ...]:
        """Prompt of the refiner: the question, the marked draft, the start of the new solution
        (method 4). `earlier`: attempts before the draft, the oldest first, each under a line
        `Draft:` of its own. A prompt with one attempt more begins as the one without.
        """
        clean = [mark_draft(attempt, None, self.steps.end) for attempt in earlier]
        marked = (
            *(segment for attempt in clean for segment in (*attempt, "Draft:\n")),
            *mark_draft(draft, marked_step, self.steps.end),
        )
        if self.chat is None:
            return (f"Question: {question.strip()}\nDraft:\n", *marked, "Answer:\n")
        opened = self.chat.open_turn(f"{question.strip()}\nDraft:\n")
        return (*opened, *marked, *self.chat.close_turn(CORRECT))

    def _plain(self, question: str, steps: Sequence[str] = ()) -> tuple[str, ...]:
        return (f"Question: {question.strip()}\nAnswer:\n", *map(self.steps.text, steps))


PLAIN = PromptLayout()


def solve_segments(question: str, steps: Sequence[str] = ()) -> tuple[str, ...]:
    """The plain prompt of the student, whose steps are lines."""
    return PLAIN.solve(question, steps)


def refine_segments(
    question: str, draft: Sequence[str], marked_step: int | None
) -> tuple[str, ...]:
    """The plain prompt of the refiner, whose steps are lines."""
    return PLAIN.refine(question, draft, marked_step)
