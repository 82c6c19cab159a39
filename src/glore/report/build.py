"""A run folder → the page of its report, and its tables in a terminal."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from glore.chat_template import step_format
from glore.config import RunConfig, load_run, resolved_recipe
from glore.errors import RunError, printable
from glore.evaluation import Evaluation, evaluate, read_evaluation, write_evaluation
from glore.pipeline.folder import write_text
from glore.pipeline.integrity import check_belongs_together
from glore.pipeline.marks import read_done
from glore.pipeline.recorded import changed_since, made_with
from glore.report.page import RunFacts, StageFacts, render_page
from glore.report.solution_browser import Json, solution_data
from glore.report.studied import StudySection
from glore.report.table_files import TABLES, write_tables
from glore.report.terminal import print_evaluation
from glore.stages import build_stages, evaluation_options, read_inputs

__all__ = ["browser_data", "build_report", "print_tables"]


def build_report(run_dir: Path, studies: Sequence[StudySection] = ()) -> Path:
    """Write `report/index.html` of a finished run, and its tables as files beside it, and return
    the page's path. `studies`: what the run's studies found. Raises RunError if the run is not
    finished, or its stages don't fit each other.
    """
    made = _made_with(run_dir)
    evaluation = _evaluation(run_dir, made)
    path = run_dir / "report" / "index.html"
    write_tables(path.parent / TABLES, evaluation)
    page = render_page(evaluation, read_inputs(run_dir, made), _facts(run_dir, made), studies)
    write_text(path, page)
    return path


def browser_data(run_dir: Path) -> dict[str, Json]:
    """The test set of a finished run as the solution browser shows it, every digit kept. Raises
    RunError if the run is not finished, or its stages don't fit each other.
    """
    made = _made_with(run_dir)
    check_belongs_together(run_dir, [stage.name for stage in build_stages(made)])
    return solution_data(read_inputs(run_dir, made), evaluation_options(made), digits=None)


def print_tables(run_dir: Path, console: Console) -> None:
    """Print the main tables of a finished run, with intervals, beside the paper's numbers."""
    made = _made_with(run_dir)
    print_evaluation(_evaluation(run_dir, made), console)
    for stage in _facts(run_dir, made).stages:
        for text in stage.warnings:
            console.print(f"warning: {stage.name}: {printable(text)}", soft_wrap=True, markup=False)


def _made_with(run_dir: Path) -> RunConfig:
    """The settings that the evaluation's records were made with. Without a finished evaluate stage:
    those of all finished stages.
    """
    is_done = read_done(run_dir / "stages" / "evaluate") is not None
    return made_with(
        run_dir,
        ["evaluate"] if is_done else [stage.name for stage in build_stages(load_run(run_dir))],
    )


def _evaluation(run_dir: Path, made: RunConfig) -> Evaluation:
    """What the evaluate stage wrote. It is made again from the records if the file is missing,
    damaged or of another version, or if the stage is not done (it may be about other records).
    """
    check_belongs_together(run_dir, [stage.name for stage in build_stages(made)])
    path = run_dir / "report" / "evaluation.json"
    if read_done(run_dir / "stages" / "evaluate") is not None:
        try:
            return read_evaluation(path)
        except RunError:
            pass
    steps = step_format(made.prompt)
    evaluation = evaluate(read_inputs(run_dir, made), evaluation_options(made), made.labels, steps)
    write_evaluation(path, evaluation)
    return evaluation


def _facts(run_dir: Path, made: RunConfig) -> RunFacts:
    marks = [
        mark
        for stage in build_stages(made)
        if (mark := read_done(run_dir / "stages" / stage.name)) is not None
    ]
    stages = tuple(
        StageFacts(m.stage, m.seconds, m.tokens, tuple(sorted(m.counts.items())), m.warnings)
        for m in marks
    )
    changed = changed_since(made, load_run(run_dir))
    note = "".join(f"# changed in config.yaml since: {line}\n" for line in changed)
    releases = sorted({m.versions["glore"] for m in marks if "glore" in m.versions}) or [
        importlib.metadata.version("glore")
    ]
    return RunFacts(
        trained=_trained(made),
        stages=stages,
        config=note + resolved_recipe(made),
        made_by=f"glore {', '.join(releases)}",
    )


def _trained(config: RunConfig) -> str:
    base, ei = config.base, config.student.ei
    tokens = f"{base.scratch.n_tokens:,}"
    start = (
        base.reference
        or base.model
        or f"a {base.scratch.n_layers}-layer Llama trained from nothing on {tokens} tokens"
    )
    first = (
        "supervised fine-tuning, then"
        if config.student.bootstrap == "sft"
        else "a prompted base, then"
    )
    rounds = "1 round" if ei.max_rounds == 1 else f"{ei.max_rounds} rounds"
    return (
        f"Task {config.task.kind}, seed {config.seed}. Base: {start}. Student: {first} up to "
        f"{rounds} of expert iteration. Reward models: ORM, Balanced ORM, SORM "
        f"({config.labels.rollouts} verifying rollouts per step). One refiner, global and local."
    )
