"""The commands: `glore run · refine · serve · report · compare · show · study · regrade · export ·
validate`; from `solution_commands`, `label · train · score`; from `recipe_commands`, `recipes ·
settings`.

`glore.cli.failures` turns every error into one line and an exit code.

Each command imports what it needs, so `glore --help` answers at once. Tables and results go to
stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from glore.cli.failures import outcome, run_app
from glore.cli.recipe_commands import recipes, settings
from glore.cli.solution_commands import label, score, train
from glore.errors import DataError, RunError, printable, shown

if TYPE_CHECKING:
    from rich.console import Console

    from glore.config import RunConfig

__all__ = ["app", "main"]

app = typer.Typer(
    help="GLoRe: when, where and how to refine a language model's reasoning, with nothing but "
    "checkable final answers.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


ExistingRun = Annotated[
    str, typer.Argument(metavar="RUN", help="A run: its folder, or its name below runs/.")
]


@app.command()
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
        console = _console()
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
            _print_report(config.run_dir, console)
        else:
            console.print(f"done up to {until}; see: glore show {printable(str(config.run_dir))}")


@app.command()
def refine(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A finished run: its folder, or its name below runs/."),
    ],
    question: Annotated[
        str | None, typer.Argument(help="The question. Default: read from stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A JSONL file with a field `question` per line.")
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print one JSON object per question.")
    ] = False,
) -> None:
    """Answer questions: draft, find the first bad step, refine, choose. Shows every step."""
    with outcome() as own:
        config = _open_run(run)
        own.log_dir = config.run_dir / "log"
        from glore.cli.questions import read_questions
        from glore.cli.refine_command import print_refinements
        from glore.refiner import Refiner

        questions = read_questions(question, file)

        with Refiner.from_run(config.run_dir) as refiner:
            n_failed = print_refinements(refiner, questions, jsonl, _console())
        if n_failed:
            raise typer.Exit(2)


@app.command()
def serve(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A finished run: its folder, or its name below runs/."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    key_file: Annotated[
        Path | None,
        typer.Option(help="A file with the API key. Default: $GLORE_API_KEY; none: no key."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens of a sampled text, in a request.")
    ] = 2048,
    max_n: Annotated[int, typer.Option(min=1, help="Most choices per prompt.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Most requests that wait.")] = 256,
    seconds: Annotated[float, typer.Option(min=1, help="Most seconds for an answer.")] = 300,
    drain: Annotated[int, typer.Option(min=0, help="Seconds to finish after SIGTERM.")] = 60,
) -> None:
    """Serve a run's models behind OpenAI's API (needs the extra serve)."""
    with outcome() as own:
        config = _open_run(run)
        own.log_dir = config.run_dir / "log"
        from glore.cli.serve_command import serve as serve_run
        from glore.serve.limits import Limits

        limits = Limits(
            tokens=max_tokens, n=max_n, queue=queue, seconds=seconds, drain_seconds=drain
        )
        serve_run(
            config,
            host=host,
            port=port,
            key_file=key_file,
            limits=limits,
            say=lambda line: print(printable(line), file=sys.stderr, flush=True),
        )


@app.command()
def report(
    run: ExistingRun,
) -> None:
    """Print the tables and write the HTML report."""
    with outcome() as own:
        config = _open_run(run)
        own.log_dir = config.run_dir / "log"
        _print_report(config.run_dir, _console())


@app.command()
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
        folders = [_open_run(run).run_dir for run in runs]
        from glore.cli.compare_command import print_comparison

        print_comparison(
            folders,
            _console(),
            json_file=json_file,
            csv_file=csv_file,
            markdown_file=markdown_file,
        )


@app.command()
def show(
    run: ExistingRun,
) -> None:
    """Stages of a run: state, counts, time, tokens."""
    with outcome() as own:
        config = _open_run(run)
        own.log_dir = config.run_dir / "log"
        from glore.cli.display import (
            stage_backends,
            stage_engines,
            stage_warnings,
            stages_table,
        )
        from glore.pipeline import plan_stages
        from glore.stages import build_stages

        console = _console()
        plans = plan_stages(build_stages(config), config, estimates=False)
        console.print(stages_table(plans, config.run_dir))
        for line in stage_engines(plans, config.run_dir):
            console.print(printable(f"engine {line}"), soft_wrap=True)
        for line in stage_backends(plans, config.run_dir):
            console.print(printable(f"backend {line}"), soft_wrap=True)
        for warning in stage_warnings(plans, config.run_dir):
            console.print(printable(warning), soft_wrap=True)


@app.command()
def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A study, such as rerank.")],
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A finished run: its folder, or its name below runs/."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="The study's own settings, such as samples=32; settings of the run that change "
            "no result, such as engine.max_rows=64.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be computed and what is reused.")
    ] = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Compute again what the study has from other settings.")
    ] = False,
) -> None:
    """Ask a finished run a question of the papers; its tables are printed and kept."""
    with outcome() as own:
        from glore.studies.study import configured, find_study, own_settings

        asked = find_study(name)
        mine, others = own_settings(asked, overrides or [])
        asked = configured(asked, {}, mine)
        folder = _open_run(run).run_dir
        from glore.cli.dry_run import plan_table
        from glore.config import load_config
        from glore.progress import TerminalProgress
        from glore.report import build_report
        from glore.report.terminal import print_view
        from glore.studies.run import run_study, study_section, study_sections

        config = load_config(folder / "config.yaml", others)
        console = _console()
        if dry_run:
            plans = run_study(asked, config, dry_run=True)
            console.print(plan_table(plans, str(folder / "studies" / name)))
            return
        own.log_dir = folder / "log"
        own.on_interrupt = "all finished work is kept: run the same command to continue"
        with TerminalProgress(log_file=folder / "log" / "run.log") as progress:
            run_study(asked, config, progress=progress, redo=redo)
        found = study_section(asked, config)
        for view in found.tables:
            print_view(view, console)
        for sentence in found.findings:
            console.print(printable(f"- {sentence}"), soft_wrap=True)
        where = printable(str(folder / "studies" / name / "tables.md"))
        console.print(f"tables and figures: {where}", soft_wrap=True)
        page = build_report(folder, study_sections(config))
        console.print(f"report: {printable(str(page))}#study-{name}", soft_wrap=True)


@app.command()
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
        config = _open_run(run)
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
        console = _console()
        for table in regrading_tables(found, config.run_dir):
            console.print(table)
        for note in regrading_notes(found, config.run_dir):
            console.print(printable(note), soft_wrap=True)


@app.command()
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

            n = write_inspect_log(_open_run(source).run_dir, output)
            where = printable(str(output))
            _console().print(f"{n:,} test questions, as inspect_ai's log: {where}", soft_wrap=True)
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
            solutions = run_solutions(_open_run(source).run_dir, part, labels)
        export_solutions(
            solutions,
            output,
            to,
            _console(),
            skipped,
            threshold=threshold,
            neutral=neutral,
            missing=missing,
            placeholder=placeholder,
        )


@app.command()
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
            print_schema(_console())
            return
        if file is None:
            raise DataError("give a file, or --schema")
        console = _console()
        if not print_validation(file, layout, console, placeholder=placeholder, max_faults=faults):
            raise typer.Exit(1)


for command in (label, train, score, recipes, settings):
    app.command()(command)


def main() -> NoReturn:
    """Entry point of the `glore` command."""
    run_app(app)


def _console() -> Console:
    from rich.console import Console

    # A pipe has no width; 80 columns would fold the tables there.
    width = None if sys.stdout.isatty() else 160
    return Console(highlight=False, markup=False, emoji=False, width=width)


def _print_report(run_dir: Path, console: Console) -> None:
    from glore.config import load_run
    from glore.report import build_report, print_tables
    from glore.studies.run import study_sections

    print_tables(run_dir, console)
    path = build_report(run_dir, study_sections(load_run(run_dir)))
    console.print(f"report: {printable(str(path))}", soft_wrap=True)


def _open_run(name: str) -> RunConfig:
    """Folder or name of an existing run → its settings. The folder may have been moved since."""
    for folder in (Path(os.path.expanduser(name)), Path("runs") / name):
        if (folder / "config.yaml").is_file():
            from glore.config import load_run

            return load_run(folder)
    raise RunError(
        f"there is no run {shown(name)} (no config.yaml there or in runs/); give a folder that "
        "glore run made"
    )
