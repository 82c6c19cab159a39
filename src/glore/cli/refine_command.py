"""What `glore refine` does with its questions: batches, results in order, failures one by one."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from glore.cli.display import refinement_json, refinement_text
from glore.cli.questions import Question
from glore.errors import DataError, EngineError, GloreError, ModelError, printable
from glore.records import Refinement

__all__ = ["Refine", "print_refinements"]

Refine = Callable[[Sequence[str]], list[Refinement]]
"""Questions → their refinements, in order: a method of `glore.refiner.Refiner`."""

REFINE_BATCH = 64
"""Questions refined together; results of a batch are printed before the next begins."""
REFINE_FAILURES = 5
"""After this many failures in a row, the rest is not tried: the questions are hardly the cause (a
server may be down).
"""


def print_refinements(
    refine: Refine, questions: Sequence[Question], jsonl: bool, console: Console
) -> int:
    """Refine the questions and print every result, as text or as JSON lines. Returns the number of
    questions that failed. Raises EngineError after REFINE_FAILURES failures in a row.
    """
    n_failed = in_a_row = 0
    for start in range(0, len(questions), REFINE_BATCH):
        for asked, result in _refined(refine, questions[start : start + REFINE_BATCH]):
            if isinstance(result, GloreError):
                n_failed, in_a_row = n_failed + 1, in_a_row + 1
                _print_failure(asked, result, jsonl)
                if in_a_row == REFINE_FAILURES and asked is not questions[-1]:
                    raise EngineError(
                        f"{in_a_row} questions in a row failed; fix the cause, then give the "
                        f"questions after {asked.where} again"
                    )
                continue
            in_a_row = 0
            if jsonl:
                sys.stdout.write(refinement_json(result) + "\n")
            else:
                console.print(refinement_text(result))
        sys.stdout.flush()
    return n_failed


def _refined(
    refine: Refine, asked: Sequence[Question]
) -> Iterator[tuple[Question, Refinement | GloreError]]:
    """Questions with their results, in order. A batch that fails is halved until the question at
    fault is alone, so that all others get a result.
    """
    try:
        results = refine([q.text for q in asked])
    except (DataError, EngineError, ModelError) as error:
        if len(asked) == 1:
            yield asked[0], error
            return
        half = len(asked) // 2
        yield from _refined(refine, asked[:half])
        yield from _refined(refine, asked[half:])
    else:
        for q, result in zip(asked, results, strict=True):
            yield q, dataclasses.replace(result, problem_id=q.id)


def _print_failure(asked: Question, error: GloreError, jsonl: bool) -> None:
    """Print one line to stderr, and with `jsonl` an object in place of the result."""
    # Users know the question by its line, not by its id within a batch.
    message = printable(re.sub(r"^request 'q0[^']*': ", "", str(error)))
    if jsonl:
        print(json.dumps({"problem_id": asked.id, "question": asked.text, "error": message}))
    print(f"error: {printable(asked.where)}: {message}", file=sys.stderr)
