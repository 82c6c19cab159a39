"""The commands of `glore`, in the order that `glore --help` shows.

`glore.cli.failures` turns every error into one line and an exit code.

Each command imports what it needs, so `glore --help` answers at once. Tables and results go to
stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

from typing import NoReturn

import typer

from glore.cli.export_commands import export, validate
from glore.cli.failures import run_app
from glore.cli.inference_commands import refine, serve
from glore.cli.recipe_commands import recipes, settings
from glore.cli.result_commands import compare, report, show
from glore.cli.run_commands import regrade, run, study
from glore.cli.solution_commands import label, score, train

__all__ = ["app", "main"]

app = typer.Typer(
    help="GLoRe: when, where and how to refine a language model's reasoning, with nothing but "
    "checkable final answers.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

COMMANDS = (
    *(run, refine, serve, report, compare, show, study, regrade, export, validate),
    *(label, train, score, recipes, settings),
)
for command in COMMANDS:
    app.command()(command)


def main() -> NoReturn:
    """Entry point of the `glore` command."""
    run_app(app)
