"""What `glore study` does: a study of one run, or of several that differ in the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from glore.cli.dry_run import plan_table
from glore.cli.streams import new_console
from glore.config import RunConfig
from glore.errors import printable
from glore.progress import TerminalProgress
from glore.report import build_report
from glore.report.studied import StudySection
from glore.report.terminal import print_view
from glore.studies import Study, run_study
from glore.studies.over_runs import plan_over_runs, study_over_runs
from glore.studies.run import study_section, study_sections

__all__ = ["study_one", "study_several"]


def study_one(study: Study, config: RunConfig, *, dry_run: bool, redo: bool) -> None:
    """Run a study over a run and print its tables, or print what would be done. Raises RunError."""
    folder, console = config.run_dir, new_console()
    if dry_run:
        plans = run_study(study, config, dry_run=True)
        console.print(plan_table(plans, str(folder / "studies" / study.name)))
        return
    with TerminalProgress(log_file=folder / "log" / "run.log") as progress:
        run_study(study, config, progress=progress, redo=redo)
    _print_found(study_section(study, config), folder / "studies" / study.name, console)
    page = build_report(folder, study_sections(config))
    console.print(f"report: {printable(str(page))}#study-{study.name}", soft_wrap=True)


def study_several(
    study: Study, configs: Sequence[RunConfig], out: Path, *, dry_run: bool, redo: bool
) -> None:
    """Run a study over runs that differ in the seed, and print its tables over all of them, or
    print what would be done in each run. Raises RunError.
    """
    console = new_console()
    if dry_run:
        plans = plan_over_runs(study, configs, redo)
        for config, plan in zip(configs, plans, strict=True):
            console.print(plan_table(plan, str(config.run_dir / "studies" / study.name)))
        return
    with TerminalProgress(log_file=configs[0].run_dir / "log" / "run.log") as progress:
        found = study_over_runs(study, configs, out, progress, redo)
    _print_found(found, out, console)


def _print_found(section: StudySection, folder: Path, console: Console) -> None:
    for view in section.tables:
        print_view(view, console)
    for sentence in section.findings:
        console.print(printable(f"- {sentence}"), soft_wrap=True)
    where = printable(str(folder / "tables.md"))
    console.print(f"tables and figures: {where}", soft_wrap=True)
