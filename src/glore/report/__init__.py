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
    """Write `report/index.html` of a finished run and return its path. Raises RunError where the run is not finished, or its
    stages don't belong together."""
    from glore.config import load_config
    from glore.report.page import render_page
    from glore.runfolder import write_text
    from glore.stages.testing import read_inputs

    evaluation = _evaluation(run_dir)
    config = load_config(run_dir / "config.yaml")
    path = run_dir / "report" / "index.html"
    write_text(path, render_page(evaluation, read_inputs(run_dir), _facts(run_dir, config)))
    return path


def print_tables(run_dir: Path, console: Console) -> None:
    """Print the main tables of a finished run, with intervals, beside the paper's numbers."""
    from glore.report.terminal import print_evaluation

    print_evaluation(_evaluation(run_dir), console)


def _evaluation(run_dir: Path) -> Evaluation:
    """What the evaluate stage wrote; made again from the records where the file is gone, damaged or of another version."""
    from glore.config import load_config
    from glore.errors import RunError
    from glore.evaluation import evaluate, read_evaluation, write_evaluation
    from glore.runfolder import check_belongs_together
    from glore.stages import build_stages
    from glore.stages.testing import evaluation_options, read_inputs

    config = load_config(run_dir / "config.yaml")
    check_belongs_together(run_dir, [stage.name for stage in build_stages(config)])
    path = run_dir / "report" / "evaluation.json"
    try:
        return read_evaluation(path)
    except RunError:
        evaluation = evaluate(read_inputs(run_dir), evaluation_options(config), config.labels)
        write_evaluation(path, evaluation)
        return evaluation


def _facts(run_dir: Path, config: RunConfig) -> RunFacts:
    from glore.report.page import RunFacts, StageFacts
    from glore.runfolder import read_done
    from glore.stages import build_stages

    marks = (read_done(run_dir / "stages" / stage.name) for stage in build_stages(config))
    stages = tuple(StageFacts(m.stage, m.seconds, m.tokens, tuple(sorted(m.counts.items()))) for m in marks if m is not None)
    return RunFacts(
        trained=_trained(config),
        stages=stages,
        config=(run_dir / "config.yaml").read_text(encoding="utf-8"),
        made_by=f"glore {importlib.metadata.version('glore')}",
    )


def _trained(config: RunConfig) -> str:
    base, ei = config.base, config.student.ei
    tokens = f"{base.scratch.n_tokens:,}"
    start = base.reference or f"a {base.scratch.n_layers}-layer Llama trained from nothing on {tokens} tokens"
    first = "supervised fine-tuning, then" if config.student.bootstrap == "sft" else "a prompted base, then"
    rounds = "1 round" if ei.max_rounds == 1 else f"{ei.max_rounds} rounds"
    return (
        f"Task {config.task.kind}, seed {config.seed}. Base: {start}. Student: {first} up to {rounds} of expert iteration. "
        f"Reward models: ORM, Balanced ORM, SORM ({config.labels.rollouts} verifying rollouts per step). One refiner, global and local."
    )
