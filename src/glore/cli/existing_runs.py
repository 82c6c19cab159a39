"""A run that a command is given: found by its folder or name, opened, reported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glore.errors import RunError, printable, shown

if TYPE_CHECKING:
    from rich.console import Console

    from glore.config import RunConfig

__all__ = ["ExistingRun", "FinishedRun", "open_run", "print_report"]

ExistingRun = Annotated[
    str, typer.Argument(metavar="RUN", help="A run: its folder, or its name below runs/.")
]
FinishedRun = Annotated[
    str, typer.Argument(metavar="RUN", help="A finished run: its folder, or its name below runs/.")
]


def open_run(name: str) -> RunConfig:
    """Folder or name of an existing run → its settings. The folder may have been moved since.
    Raises RunError.
    """
    for folder in (Path(os.path.expanduser(name)), Path("runs") / name):
        if (folder / "config.yaml").is_file():
            from glore.config import load_run

            return load_run(folder)
    raise RunError(
        f"there is no run {shown(name)} (no config.yaml there or in runs/); give a folder that "
        "glore run made"
    )


def print_report(run_dir: Path, console: Console) -> None:
    """Print the tables of a run and write its HTML report."""
    from glore.config import load_run
    from glore.report import build_report, print_tables
    from glore.studies.run import study_sections

    print_tables(run_dir, console)
    path = build_report(run_dir, study_sections(load_run(run_dir)))
    console.print(f"report: {printable(str(path))}", soft_wrap=True)
