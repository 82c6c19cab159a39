"""The README.md of a saved model: its training data, settings and loss."""

from __future__ import annotations

from glore.config import Settings
from glore.training.examples import TrainReport

__all__ = ["model_card"]


def model_card(name: str, what: str, settings: Settings, report: TrainReport, seed: int) -> str:
    """Markdown without front matter. Wall time is left out: equal trainings write equal cards."""
    lines = [
        f"# {name}",
        "",
        what,
        "Made by a glore run; text of questions and solutions is encoded segment by segment (one "
        "segment a step).",
        "",
        "## Training",
        f"- rows: {report.n_rows} (left out as too long or without a target: {report.n_dropped})",
        f"- tokens seen: {report.n_tokens}",
        f"- optimiser steps: {report.n_steps}",
        f"- training loss, last tenth of the steps: {report.final_loss:.4f}",
        f"- seed: {seed}",
        "",
        "## Settings",
        *(f"- {key}: {value}" for key, value in settings.model_dump().items()),
        "",
    ]
    return "\n".join(lines)
