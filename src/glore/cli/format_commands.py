"""What `glore export` and `glore validate` do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from glore.errors import printable
from glore.formats import LabelledSolution, write_solutions
from glore.formats.trl import SCHEMA_FILE
from glore.formats.validating import Validation, validate_file
from glore.formats.writing import UNLABELLED_STEP

__all__ = ["SkippedRows", "export_solutions", "print_schema", "print_validation"]

SHOWN_ROWS = 3
"""As many faulty rows are shown of those that are left out."""


class SkippedRows:
    """Counts faulty rows that are left out, and keeps the first ones."""

    def __init__(self) -> None:
        self.n = 0
        self.first: list[str] = []

    def __call__(self, fault: str) -> None:
        self.n += 1
        if len(self.first) < SHOWN_ROWS:
            self.first.append(fault)


def export_solutions(
    solutions: Iterable[LabelledSolution],
    output: Path,
    layout: str,
    console: Console,
    skipped: SkippedRows,
    *,
    threshold: float | None,
    neutral: str,
    missing: str,
    placeholder: str,
) -> None:
    """Write solutions to a file, and print what was written and what was lost. Raises DataError."""
    written = write_solutions(
        output,
        solutions,
        layout,
        threshold=threshold,
        neutral=neutral,
        missing=missing,
        placeholder=placeholder,
    )
    console.print(
        f"{written.n_solutions:,} solutions, {written.n_steps:,} steps, layout {written.layout}: "
        f"{printable(str(output))}",
        soft_wrap=True,
    )
    if skipped.n:
        console.print(f"left out: {skipped.n:,} faulty rows, the first:", soft_wrap=True)
    for fault in skipped.first:
        console.print(f"  {printable(fault)}", soft_wrap=True)
    for reason, n in written.left_out.items():
        is_cuttable = reason == UNLABELLED_STEP and missing != "cut"
        hint = " (--missing cut writes them up to the last label)" if is_cuttable else ""
        console.print(f"left out: {n:,} {reason}{hint}", soft_wrap=True)
    for n in dict.fromkeys(written.lost.values()):
        what = ", ".join(name for name, count in written.lost.items() if count == n)
        console.print(f"lost, in {n:,} solutions: {what}", soft_wrap=True)


def print_validation(
    path: Path, layout: str | None, console: Console, *, placeholder: str, max_faults: int
) -> bool:
    """Print what a file holds and its faults; true if it has none. Raises DataError for a file that
    can't be read.
    """
    found = validate_file(path, layout, placeholder=placeholder, max_faults=max_faults)
    for fault in found.faults:
        console.print(printable(fault), soft_wrap=True)
    if found.n_faults > len(found.faults):
        console.print(f"… and {found.n_faults - len(found.faults):,} more", soft_wrap=True)
    console.print(_summary(path, found), soft_wrap=True)
    if found.n_joined:
        console.print(
            f"note: of {found.n_joined:,} solutions the question can't be told from the first step "
            "(no single 'Step 1:'); it stays in that step",
            soft_wrap=True,
        )
    return not found.n_faults


def print_schema(console: Console) -> None:
    """Print the JSON schema of TRL's layout."""
    text = files("glore.formats").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    console.print(text.rstrip("\n"), soft_wrap=True)


def _summary(path: Path, found: Validation) -> str:
    faults = f"{found.n_faults:,} faults" if found.n_faults else "no fault"
    return (
        f"{printable(str(path))}: layout {found.layout}, {found.n_rows:,} rows, "
        f"{found.n_solutions:,} solutions, {found.n_steps:,} steps ({_kinds(found.labels)}): "
        f"{faults}"
    )


def _kinds(labels: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {kind}" for kind, n in sorted(labels.items())) or "no labels"
