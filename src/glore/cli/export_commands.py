"""The commands on layouts of labelled solutions: `glore export · validate`. Each imports what it
needs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from glore.cli.existing_runs import open_run
from glore.cli.failures import outcome
from glore.cli.streams import new_console
from glore.errors import DataError, printable

__all__ = ["export", "validate"]


def export(
    source: Annotated[
        str, typer.Argument(metavar="RUN|FILE", help="A run, or a file of labelled solutions.")
    ],
    to: Annotated[
        str, typer.Option("--format", help="A layout such as trl (docs/formats.md); inspect.")
    ],
    output: Annotated[
        Path, typer.Option(help="The file to write: *.jsonl, *.json, *.parquet; *.eval of inspect.")
    ],
    origin: Annotated[
        str | None,
        typer.Option("--from", help="The layout of FILE. Default: told from its fields."),
    ] = None,
    part: Annotated[str, typer.Option(help="Drafts of a run: train or test.")] = "train",
    labels: Annotated[str, typer.Option(help="Labels of a run: sorm, soft or truth.")] = "sorm",
    threshold: Annotated[
        float | None, typer.Option(help="Soft labels above it become good, if need be.")
    ] = None,
    neutral: Annotated[
        str, typer.Option(help="What neutral labels become, if need be: good, bad or missing.")
    ] = "good",
    missing: Annotated[
        str, typer.Option(help="Solutions with unlabelled steps, if need be: leave_out or cut.")
    ] = "leave_out",
    skip_faults: Annotated[
        bool, typer.Option("--skip-faults", help="Leave out faulty rows of FILE, and count them.")
    ] = False,
    placeholder: Annotated[str, typer.Option(help="Ends each step in the layout openrlhf.")] = "ки",
) -> None:
    """Write labelled solutions, of a run or a file, in another tool's layout; or a run's test
    questions as inspect_ai's log."""
    with outcome():
        if to == "inspect":
            from glore.report.inspect_log import write_inspect_log

            n = write_inspect_log(open_run(source).run_dir, output)
            where = printable(str(output))
            new_console().print(
                f"{n:,} test questions, as inspect_ai's log: {where}", soft_wrap=True
            )
            return
        from glore.cli.format_commands import SkippedRows, export_solutions
        from glore.formats import read_solutions
        from glore.formats.run_solutions import run_solutions
        from glore.tasks.data.readers import data_suffix

        skipped = SkippedRows()
        path = Path(os.path.expanduser(source))
        if path.is_file() or data_suffix(path.name):
            solutions = read_solutions(
                path, origin, placeholder=placeholder, on_fault=skipped if skip_faults else None
            )
        else:
            solutions = run_solutions(open_run(source).run_dir, part, labels)
        export_solutions(
            solutions,
            output,
            to,
            new_console(),
            skipped,
            threshold=threshold,
            neutral=neutral,
            missing=missing,
            placeholder=placeholder,
        )


def validate(
    file: Annotated[Path | None, typer.Argument(help="A file of labelled solutions.")] = None,
    layout: Annotated[
        str | None, typer.Option("--format", help="Its layout. Default: told from its fields.")
    ] = None,
    placeholder: Annotated[str, typer.Option(help="Ends each step in the layout openrlhf.")] = "ки",
    faults: Annotated[int, typer.Option(min=1, max=10_000, help="Faults to show.")] = 20,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of TRL's layout, and end.")
    ] = False,
) -> None:
    """Check a file of labelled solutions: line and field of each fault. Exit code 1 if any."""
    with outcome():
        from glore.cli.format_commands import print_schema, print_validation

        if schema:
            print_schema(new_console())
            return
        if file is None:
            raise DataError("give a file, or --schema")
        console = new_console()
        if not print_validation(file, layout, console, placeholder=placeholder, max_faults=faults):
            raise typer.Exit(1)
