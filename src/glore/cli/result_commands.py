"""The commands that show finished runs: `glore report · compare · show`. Each imports what it
needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glore.cli.existing_runs import ExistingRun, open_run, print_report
from glore.cli.failures import outcome
from glore.cli.streams import new_console
from glore.errors import printable

__all__ = ["compare", "report", "show"]


def report(
    run: ExistingRun,
) -> None:
    """Print the tables and write the HTML report."""
    with outcome() as own:
        config = open_run(run)
        own.log_dir = config.run_dir / "log"
        print_report(config.run_dir, new_console())


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Finished runs: folders, or names.")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers to this file as JSON.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write all numbers to this file as CSV.")
    ] = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option("--pooled", help="Write every table of the pooled seeds as Markdown."),
    ] = None,
) -> None:
    """Finished runs side by side: accuracies, and differences on the same test questions."""
    with outcome():
        folders = [open_run(run).run_dir for run in runs]
        from glore.cli.compare_command import print_comparison

        print_comparison(
            folders,
            new_console(),
            json_file=json_file,
            csv_file=csv_file,
            markdown_file=markdown_file,
        )


def show(
    run: ExistingRun,
) -> None:
    """Stages of a run: state, counts, time, tokens."""
    with outcome() as own:
        config = open_run(run)
        own.log_dir = config.run_dir / "log"
        from glore.cli.display import (
            stage_backends,
            stage_engines,
            stage_warnings,
            stages_table,
        )
        from glore.pipeline import plan_stages
        from glore.stages import build_stages

        console = new_console()
        plans = plan_stages(build_stages(config), config, estimates=False)
        console.print(stages_table(plans, config.run_dir))
        for line in stage_engines(plans, config.run_dir):
            console.print(printable(f"engine {line}"), soft_wrap=True)
        for line in stage_backends(plans, config.run_dir):
            console.print(printable(f"backend {line}"), soft_wrap=True)
        for warning in stage_warnings(plans, config.run_dir):
            console.print(printable(warning), soft_wrap=True)
