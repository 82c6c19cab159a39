"""The commands on files of solutions: `glore label · train · score`. Each imports what it needs."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from glore.cli.failures import outcome
from glore.cli.streams import new_console
from glore.errors import ConfigError, printable
from glore.step_head import LABEL_TOKENS

__all__ = ["label", "score", "train"]

Placeholder = Annotated[str, typer.Option(help="Ends each step in the layout openrlhf.")]
Origin = Annotated[
    str | None,
    typer.Option("--from", help="The layout of the file. Default: told from its fields."),
]


def label(
    solutions: Annotated[Path, typer.Argument(help="A file of solutions, in any known layout.")],
    policy: Annotated[
        str,
        typer.Option(help="The model that continues them: a folder, a Hub name or a GGUF file."),
    ],
    output: Annotated[Path, typer.Option(help="The file to write: *.jsonl, *.json, *.parquet.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings to change: rollouts=8 temperature=0.7 max_new_tokens=300 "
            "full_counts=true engine.kind=vllm prompt.style=chat task.kind=math …",
        ),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Gold answers: a file with question and answer per row.")
    ] = None,
    origin: Origin = None,
    labels: Annotated[
        str, typer.Option(help="hard, or soft: shares of right rollouts (all are drawn then).")
    ] = "hard",
    seed: Annotated[int, typer.Option(min=0, help="Of the rollouts.")] = 0,
    placeholder: Placeholder = "ки",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it costs in tokens and time, and end.")
    ] = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Replace rollouts that were drawn with other settings.")
    ] = False,
) -> None:
    """Label the steps of solutions by verifying rollouts. Again: continues where it stopped."""
    with outcome() as own:
        from glore.progress import TerminalProgress
        from glore.solution_files.label import LabelJob, label_config, label_file, labelling_cost

        _check_output(output, solutions)
        job = LabelJob(solutions, output, origin, placeholder, answers, labels)
        config = label_config(job, policy, overrides or [], seed)
        own.on_interrupt = "all finished work is kept: run the same command to continue"
        if dry_run:
            plans = label_file(job, config, dry_run=True)
            console = new_console()
            for plan in plans:
                console.print(f"{plan.name}: {plan.state} ({plan.why})", soft_wrap=True)
            if any(plan.name == "rollouts" and plan.state != "reused" for plan in plans):
                console.print(labelling_cost(job, config), soft_wrap=True)
            return
        own.log_dir = config.run_dir / "log"
        with TerminalProgress(log_file=config.run_dir / "log" / "run.log") as progress:
            label_file(job, config, progress, redo=redo)
        work = printable(str(config.run_dir.parent))
        print(f"the texts of the rollouts are in {work}", file=sys.stderr)


def train(
    rule: Annotated[
        str,
        typer.Argument(
            metavar="orm|sorm|prm|contrastive",
            help="Labels of answers, of steps (sorm, prm), or pairs of a right and a wrong answer.",
        ),
    ],
    file: Annotated[Path, typer.Argument(help="A file of labelled solutions, in any layout.")],
    base: Annotated[str, typer.Option(help="The model to start from: a folder or a Hub name.")],
    output: Annotated[Path, typer.Option(help="The folder to make for the reward model.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings to change: learning_rate=1e-5 epochs=2 save_steps=100 lora.r=16 "
            "bf16=true prompt.style=chat engine.device=cuda launch=… …",
        ),
    ] = None,
    origin: Origin = None,
    held_out: Annotated[
        float, typer.Option("--held-out", help="Share of the questions to judge the model on.")
    ] = 0.0,
    threshold: Annotated[
        float | None,
        typer.Option(help="Soft labels above it are good. Default: learned as they are."),
    ] = None,
    neutral: Annotated[
        str,
        typer.Option(
            help="What neutral labels are: good, bad or missing; with --classes 3: what p(neutral) "
            "counts as in a score, good or bad."
        ),
    ] = "good",
    head: Annotated[
        str,
        typer.Option(
            help="How the model says labels: classes (a head of its own), or label_token (it stays "
            "a language model)."
        ),
    ] = "classes",
    classes: Annotated[
        int, typer.Option(help="2: good and bad steps; 3: neutral steps are a class, too.")
    ] = 2,
    label_tokens: Annotated[
        str,
        typer.Option(
            "--label-tokens",
            help="With --head label_token: texts of one token each for good, bad and neutral "
            "steps, with blanks between.",
        ),
    ] = " ".join(LABEL_TOKENS),
    layout: Annotated[
        str,
        typer.Option(
            help="How the model reads questions and steps: glore, or another library's: trl, or "
            "with --head label_token math_shepherd, rlhflow."
        ),
    ] = "glore",
    seed: Annotated[int, typer.Option(min=0, help="Of the training.")] = 0,
    placeholder: Placeholder = "ки",
) -> None:
    """Train a reward model from labelled solutions. Again: continues from the last checkpoint."""
    with outcome() as own:
        from glore.cli.solution_results import print_trained
        from glore.formats import read_solutions
        from glore.progress import TerminalProgress
        from glore.solution_files.examples import LabelRule, step_head
        from glore.solution_files.train import train_config, train_file

        chosen = step_head(head, classes, label_tokens, neutral)
        labels = LabelRule(rule, threshold, neutral, chosen, layout)
        config = train_config(labels, base, output, overrides or [], seed)
        own.on_interrupt = "checkpoints are kept: run the same command to continue"
        with TerminalProgress() as progress:
            trained = train_file(
                read_solutions(file, origin, placeholder=placeholder),
                labels,
                config,
                output,
                progress,
                where=str(file),
                held_out=held_out,
            )
        print_trained(trained, output, new_console())


def score(
    file: Annotated[Path, typer.Argument(help="A file of solutions, in any known layout.")],
    model: Annotated[str, typer.Option(help="A reward model: a folder or a Hub name.")],
    output: Annotated[Path, typer.Option(help="The file to write: *.jsonl, *.json, *.parquet.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings to change: engine.device=cuda engine.scoring_tokens=65536 "
            "prompt.style=chat …",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="The layout of the model's inputs. Default: what its folder tells."),
    ] = None,
    origin: Origin = None,
    threshold: Annotated[
        float, typer.Option(help="A step whose score is at most this is called bad.")
    ] = 0.5,
    neutral: Annotated[
        str | None,
        typer.Option(
            help="Of a model with three classes: whether p(neutral) counts as good or bad. "
            "Default: what its folder says."
        ),
    ] = None,
    placeholder: Placeholder = "ки",
    redo: Annotated[
        bool, typer.Option("--redo", help="Replace scores of another file or model.")
    ] = False,
) -> None:
    """Score the steps of solutions; with labels in the file, say how well the scores agree. Again:
    continues where it stopped.
    """
    with outcome() as own:
        from glore.cli.solution_results import print_scored
        from glore.progress import TerminalProgress
        from glore.solution_files.score import ScoreJob, score_config, score_file

        _check_output(output, file)
        if not 0 <= threshold < 1:
            raise ConfigError(f"--threshold is from 0 to below 1, got {threshold}")
        job = ScoreJob(file, output, model, layout, origin, placeholder, threshold, neutral=neutral)
        config = score_config(job, overrides or [])
        if any(o.strip().startswith("prompt.") for o in overrides or []):
            job = dataclasses.replace(job, prompt=config.prompt)
        own.on_interrupt = "all finished work is kept: run the same command to continue"
        own.log_dir = config.run_dir / "log"
        with TerminalProgress(log_file=config.run_dir / "log" / "run.log") as progress:
            scored = score_file(job, config, progress, redo=redo)
        print_scored(scored, output, threshold, new_console())


def _check_output(output: Path, *sources: Path) -> None:
    """Raise ConfigError for an output that is a folder, or one of the files that are read."""
    if output.is_dir():
        raise ConfigError(f"--output {printable(str(output))} is a folder; give a file to write")
    for source in sources:
        if output.exists() and source.exists() and output.samefile(source):
            raise ConfigError(
                f"--output {printable(str(output))} is the file that is read; give another"
            )
