"""Refine questions with a finished run, from Python.

    python examples/refine.py runs/quickstart
    python examples/refine.py runs/quickstart "Jan has 4 pens. Eva has 5. How many have both?"

Without a question, the first three test questions of the run are taken. The run itself can be made
from Python too: `run(load_config("recipes/quickstart.yaml"))`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from glore import GloreError, Problem, Refinement, Refiner, read_records


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit('usage: python examples/refine.py RUN ["QUESTION" …]')
    run_dir, questions = Path(sys.argv[1]), sys.argv[2:]
    try:
        for refinement in Refiner.from_run(run_dir).refine(
            questions or first_test_questions(run_dir, 3)
        ):
            print(as_text(refinement), end="\n\n")
    except GloreError as error:
        raise SystemExit(f"error: {error}") from error


def first_test_questions(run_dir: Path, n: int) -> list[str]:
    """Questions as the run's first stage wrote them."""
    return [
        p.question
        for p in read_records(run_dir / "stages" / "problems" / "test-00000.parquet", Problem)[:n]
    ]


def as_text(r: Refinement) -> str:
    """When, where, how, and what was chosen."""
    lines = [r.question]
    for i, (step, p) in enumerate(zip(r.draft, r.sorm_scores, strict=True)):
        lines.append(f"  {p:.2f} {'[BAD] ' if i == r.marked_step else ''}{step}")
    lines.append(f"the ORM thinks the draft {'needs work' if r.needs_work else 'looks right'}")
    for kind, steps, score in zip(r.candidate_kinds, r.candidates, r.candidate_scores, strict=True):
        lines.append(f"  {score:.2f} {kind}: {' / '.join(steps)}")
    lines.append(f"chosen: {r.candidate_kinds[r.chosen]}, answer {r.answer}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
