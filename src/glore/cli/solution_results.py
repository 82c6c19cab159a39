"""What `glore train` and `glore score` print of their results."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from glore.errors import printable
from glore.solution_files.judging import Judged, Ranked
from glore.solution_files.score import Scored
from glore.solution_files.train import Trained
from glore.statistics import Estimate

__all__ = ["print_scored", "print_trained"]


def print_trained(trained: Trained, output: Path, console: Console) -> None:
    """A training: rows, loss, and the accuracy on what was held out."""
    report = trained.report
    dropped = f", {report.n_dropped:,} left out as too long" if report.n_dropped else ""
    lines = [f"left out: {n:,} {why}" for why, n in trained.left_out.items()]
    soft = f", {trained.soft_steps:,} with a soft label" if trained.soft_steps else ""
    soft += f", {trained.neutral_steps:,} neutral" if trained.neutral_steps else ""
    data = (
        f"{trained.n_pairs:,} pairs"
        if trained.n_pairs
        else f"{trained.good_steps:,} good and {trained.bad_steps:,} bad steps{soft}"
    )
    lines.append(
        f"{report.n_rows:,} rows ({data}{dropped}), {report.n_steps:,} optimiser steps, loss "
        f"{report.final_loss:.4f}"
    )
    if isinstance(trained.held_out, Ranked):
        lines.append(f"held out: {_ranked(trained.held_out)}")
    elif trained.held_out is not None:
        lines.append(f"held out: {_judged(trained.held_out)}")
    for line in (*lines, f"reward model: {output}"):
        console.print(printable(line), soft_wrap=True)


def print_scored(scored: Scored, output: Path, threshold: float, console: Console) -> None:
    """What was scored, and the agreement with the labels of the file if it has some."""
    lines = [f"{scored.n_solutions:,} solutions, {scored.n_steps:,} step scores: {output}"]
    if scored.n_too_long:
        lines.append(
            f"without scores: {scored.n_too_long:,} solutions that don't fit into the model's "
            "context"
        )
    if scored.steps.natural.n:
        lines.append(f"steps above {threshold:g} against the labels: {_judged(scored.steps)}")
    first = scored.first
    if first.f1.value is not None:
        lines.append(
            f"first wrong step: found in {_estimate(first.wrong)} of the solutions with one, no "
            f"step called bad in {_estimate(first.right)} of those without; F1 "
            f"{_estimate(first.f1)}"
        )
    if scored.ranked.n_pairs:
        lines.append(_ranked(scored.ranked))
    for line in lines:
        console.print(printable(line), soft_wrap=True)


def _judged(found: Judged) -> str:
    return f"{_estimate(found.natural)} right, class-balanced {_estimate(found.balanced)}"


def _ranked(found: Ranked) -> str:
    return (
        f"right solutions scored above wrong ones of the same question in {_estimate(found.above)} "
        f"of {found.n_pairs:,} pairs, n: questions"
    )


def _estimate(found: Estimate) -> str:
    """A share with its interval and n, in percent."""
    if found.value is None or found.low is None or found.high is None:
        return f"not measured (n={found.n:,})"
    return (
        f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}] (n={found.n:,})"
    )
