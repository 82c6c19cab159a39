"""The commands that use a run's models: `glore refine · serve`. Each imports what it needs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from glore.cli.existing_runs import FinishedRun, open_run
from glore.cli.failures import outcome
from glore.cli.streams import new_console
from glore.errors import printable

__all__ = ["refine", "serve"]

MAX_CASCADE = 1000
"""Samples of a question."""


def refine(
    run: FinishedRun,
    question: Annotated[
        str | None, typer.Argument(help="The question. Default: read from stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A JSONL file with a field `question` per line.")
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print one JSON object per question.")
    ] = False,
    cascade: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_CASCADE,
            metavar="N",
            help="Stop at the first solution that the ORM accepts: draft, its global refinement, "
            "then at most N samples.",
        ),
    ] = None,
) -> None:
    """Answer questions: draft, find the first bad step, refine, choose. Shows every step."""
    with outcome() as own:
        config = open_run(run)
        own.log_dir = config.run_dir / "log"
        from glore.cli.questions import read_questions
        from glore.cli.refine_command import print_refinements
        from glore.refiner import Refiner

        questions = read_questions(question, file)

        with Refiner.from_run(config.run_dir) as refiner:
            answer = refiner.refine if cascade is None else partial(refiner.cascade, most=cascade)
            n_failed = print_refinements(answer, questions, jsonl, new_console())
        if n_failed:
            raise typer.Exit(2)


def serve(
    run: FinishedRun,
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
        config = open_run(run)
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
