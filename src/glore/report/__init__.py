"""A run's records → terminal tables and one self-contained HTML page.

tables     the tables as text cells: one source for terminal, page and Markdown
views      what such a table is, numbers as text, Markdown
summary    what came out, in plain words
figures    inline SVG, drawn with `svg`
solutions  the data of the solution browser
page       the HTML page (page.css, page.js)
terminal   rich tables
paper      the paper's numbers, for orientation
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from glore.config import RunConfig
    from glore.evaluation import Evaluation
    from glore.report.page import RunFacts

__all__ = ["build_report", "print_tables"]


def build_report(run_dir: Path) -> Path:
    """Write `report/index.html` of a finished run and return its path. Raises RunError where the
    run is not finished, or its stages don't belong together.
    """
    from glore.pipeline.folder import write_text
    from glore.report.page import render_page
    from glore.stages.evaluating import read_inputs

    made = _made_with(run_dir)
    path = run_dir / "report" / "index.html"
    write_text(
        path,
        render_page(_evaluation(run_dir, made), read_inputs(run_dir, made), _facts(run_dir, made)),
    )
    return path


def print_tables(run_dir: Path, console: Console) -> None:
    """Print the main tables of a finished run, with intervals, beside the paper's numbers."""
    from glore.report.terminal import print_evaluation

    print_evaluation(_evaluation(run_dir, _made_with(run_dir)), console)


def _made_with(run_dir: Path) -> RunConfig:
    """The settings that the evaluation's records were made with; of an unfinished run, those of all
    its finished stages.
    """
    from glore.config import load_run
    from glore.pipeline.marks import read_done
    from glore.pipeline.recorded import made_with
    from glore.stages import build_stages

    is_done = read_done(run_dir / "stages" / "evaluate") is not None
    return made_with(
        run_dir,
        ["evaluate"] if is_done else [stage.name for stage in build_stages(load_run(run_dir))],
    )


def _evaluation(run_dir: Path, made: RunConfig) -> Evaluation:
    """What the evaluate stage wrote; made again from the records where the file is gone, damaged or
    of another version, and where the stage is not done, so that it may be about other records.
    """
    from glore.errors import RunError
    from glore.evaluation import evaluate, read_evaluation, write_evaluation
    from glore.pipeline.integrity import check_belongs_together
    from glore.pipeline.marks import read_done
    from glore.stages import build_stages
    from glore.stages.evaluating import evaluation_options, read_inputs

    check_belongs_together(run_dir, [stage.name for stage in build_stages(made)])
    path = run_dir / "report" / "evaluation.json"
    if read_done(run_dir / "stages" / "evaluate") is not None:
        try:
            return read_evaluation(path)
        except RunError:
            pass
    evaluation = evaluate(read_inputs(run_dir, made), evaluation_options(made), made.labels)
    write_evaluation(path, evaluation)
    return evaluation


def _facts(run_dir: Path, made: RunConfig) -> RunFacts:
    from glore.config import load_run, resolved_recipe
    from glore.pipeline.marks import read_done
    from glore.pipeline.recorded import changed_since
    from glore.report.page import RunFacts, StageFacts
    from glore.stages import build_stages

    marks = [
        mark
        for stage in build_stages(made)
        if (mark := read_done(run_dir / "stages" / stage.name)) is not None
    ]
    stages = tuple(
        StageFacts(m.stage, m.seconds, m.tokens, tuple(sorted(m.counts.items()))) for m in marks
    )
    changed = changed_since(made, load_run(run_dir))
    note = "".join(f"# config.yaml says otherwise now: {line}\n" for line in changed)
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
