"""The commands that compute in a run folder: `glore run · study · regrade`. Each imports what it
needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glore.cli.existing_runs import ExistingRun, FinishedRun, open_run, print_report
from glore.cli.failures import outcome
from glore.cli.streams import new_console
from glore.errors import printable

__all__ = ["regrade", "run", "study"]


def run(
    recipe: Annotated[
        str,
        typer.Argument(help="A YAML file, or the name of a recipe (glore recipes), as quickstart."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY.PATH=VALUE]...", help="Settings to change, e.g. labels.rollouts=4."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be computed and what is reused.")
    ] = False,
    redo: Annotated[
        bool,
        typer.Option("--redo", help="Replace results that were computed with other settings."),
    ] = False,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Models that stay: all (the default), or final, those that glore refine reads. "
            "The same as keep=…."
        ),
    ] = None,
) -> None:
    """Run a recipe. Run it again to continue where it stopped."""
    with outcome() as own:
        from glore.config import load_config
        from glore.pipeline import run_stages
        from glore.progress import TerminalProgress
        from glore.stages import build_stages

        given = [*(overrides or []), *([] if keep is None else [f"keep={keep}"])]
        config = load_config(recipe, given)
        stages = build_stages(config)
        console = new_console()
        if dry_run:
            from glore.cli.dry_run import data_note, disk_note, engine_note, gpu_note, plan_table

            plans = run_stages(stages, config, until=until, dry_run=True)
            console.print(plan_table(plans, str(config.run_dir)))
            console.print(engine_note(config), soft_wrap=True)
            console.print(data_note(config), soft_wrap=True)
            console.print(disk_note(config, stages), soft_wrap=True)
            if estimate := gpu_note(config, plans):
                console.print(estimate, soft_wrap=True)
            return
        own.log_dir = config.run_dir / "log"
        own.on_interrupt = "all finished work is kept: run the same command to continue"
        with TerminalProgress(log_file=config.run_dir / "log" / "run.log") as progress:
            run_stages(stages, config, until=until, progress=progress, redo=redo)
        if until is None:
            print_report(config.run_dir, console)
        else:
            console.print(f"done up to {until}; see: glore show {printable(str(config.run_dir))}")


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A study, such as rerank.")],
    run: FinishedRun,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN | KEY=VALUE]...",
            help="More runs of the same recipe with other seeds, for tables over all of them; the "
            "study's own settings, such as samples=32; settings of the run that change no result, "
            "such as engine.max_rows=64.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be computed and what is reused.")
    ] = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Compute again what the study has from other settings.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="With several runs: the folder for the tables over all of them; without it, "
            "pooled/NAME beside the first run."
        ),
    ] = None,
) -> None:
    """Ask a finished run a question of the papers; its tables are printed and kept."""
    with outcome() as own:
        from glore.studies.study import configured, find_study, own_settings

        asked = find_study(name)
        runs, overrides = _runs_and_settings([run, *(more or [])])
        mine, others = own_settings(asked, overrides)
        asked = configured(asked, {}, mine)
        folders = [open_run(r).run_dir for r in runs]
        from glore.cli.study_command import study_one, study_several
        from glore.config import load_config

        configs = [load_config(folder / "config.yaml", others) for folder in folders]
        own.log_dir = None if dry_run else folders[0] / "log"
        own.on_interrupt = "all finished work is kept: run the same command to continue"
        if len(folders) == 1 and out is None:
            study_one(asked, configs[0], dry_run=dry_run, redo=redo)
        else:
            place = out or folders[0].parent / "pooled" / name
            study_several(asked, configs, place, dry_run=dry_run, redo=redo)


def _runs_and_settings(given: list[str]) -> tuple[list[str], list[str]]:
    """Arguments → runs, and settings as `KEY=VALUE`. A folder may have a `=` in its name."""
    settings = [g for g in given[1:] if "=" in g and not Path(g).is_dir()]
    return [given[0], *(g for g in given[1:] if g not in settings)], settings


def regrade(
    run: ExistingRun,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Write the changes. Stages made from them become stale."),
    ] = False,
    examples: Annotated[
        int, typer.Option(min=0, max=1000, help="Examples per stage and change of verdict.")
    ] = 3,
) -> None:
    """Grade a run's records with the current graders, and show the changes. Draws nothing."""
    with outcome() as own:
        config = open_run(run)
        own.log_dir = config.run_dir / "log"
        own.on_interrupt = (
            "nothing was changed"
            if not apply
            else "either all changes were written or none: run the same command to see which"
        )
        from glore.cli.display import regrading_notes, regrading_tables
        from glore.progress import TerminalProgress
        from glore.regrade import regrade as regrade_run

        with TerminalProgress(
            log_file=config.run_dir / "log" / "run.log" if apply else None
        ) as progress:
            found = regrade_run(config, apply=apply, n_examples=examples, progress=progress)
            if found.is_applied:
                progress.note(f"regraded: {', '.join(found.changed)}")
        console = new_console()
        for table in regrading_tables(found, config.run_dir):
            console.print(table)
        for note in regrading_notes(found, config.run_dir):
            console.print(printable(note), soft_wrap=True)
