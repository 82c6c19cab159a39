"""Solutions with a known first wrong step, from files or from the run, and their scores, for the
study `processbench`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from glore.config import Settings
from glore.config.section import LocalPath, Names
from glore.errors import ConfigError, DataError, shown
from glore.formats.reading import read_solutions
from glore.pipeline import StageContext
from glore.records import Problem, Solution, StepLabels
from glore.stages.common import kept_scorer
from glore.stages.labelling import train_drafts
from glore.studies.records import first_false

__all__ = [
    "TRAINING",
    "Judged",
    "ProcessBenchSettings",
    "from_files",
    "names_of",
    "of_run",
    "scored",
]

TRAINING, TEST = "training drafts", "test drafts"


class ProcessBenchSettings(Settings):
    """Of the study `processbench`."""

    files: Names = ()
    """Files of labelled solutions; none: the run's own drafts."""
    calibrate: str = "gsm8k"
    """T is chosen on the file whose name has this in it, in any case."""
    model: LocalPath | None = None
    """A reward model: folder, Hub name or NAME@REVISION; none: those of the run."""
    layout: str | None = None
    """How the model wants questions and steps written; none: what its folder tells."""


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """One solution, its first error and its scores."""

    file: str
    question: str
    error: int | None
    """0-based first wrong step; none: no step is wrong."""
    n_steps: int
    p: tuple[float, ...] | None
    """None: it does not fit into the model's context."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Given:
    """A solution to judge."""

    file: str
    question: str
    steps: tuple[str, ...]
    error: int | None


def names_of(paths: Sequence[Path]) -> list[str]:
    """What the files are called: their names without the ending, with as many folders before as
    keep them apart. Raises ConfigError for a file that is given twice.
    """
    parts = [path.absolute().with_suffix("").parts for path in paths]
    files = [path.resolve() for path in paths]
    twice = next((p for i, p in enumerate(paths) if files[i] in files[:i]), None)
    if twice is not None:
        raise ConfigError(f"files: {shown(str(twice))} is given twice; give each file once")
    for n in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-n:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def from_files(paths: Sequence[Path]) -> Iterator[_Given]:
    """The solutions whose labels tell the first wrong step or that none is. Raises DataError."""
    for path, name in zip(paths, names_of(paths), strict=True):
        n = 0
        for solution in read_solutions(path):
            labels = solution.labels
            if not labels:
                continue
            first = next((i for i, x in enumerate(labels) if x is False), None)
            if all(x is True for x in labels[:first]):
                n += 1
                yield _Given(name, solution.question, solution.steps, first)
        if not n:
            raise DataError(
                f"{path}: no solution has labels that tell its first wrong step; give a file in "
                "ProcessBench's layout"
            )


def of_run(ctx: StageContext) -> list[_Given]:
    """The run's training and test drafts, by the exact truth, else by the labels of rollouts."""
    out = []
    for name, split, stage, drafts in (
        (TRAINING, "train", "labels", train_drafts(ctx)),
        (TEST, "test", "test_labels", ctx.read("test_drafts", Solution)),
    ):
        problems = {p.id: p for p in ctx.read("problems", Problem, split)}
        truth = ctx.read(stage, StepLabels, "truth") or ctx.read(stage, StepLabels)
        of = {r.solution_id: r for r in truth if r.labels is not None}
        out += [
            _Given(name, problems[d.problem_id].question, d.steps, first_false(of[d.id]))
            for d in drafts
            if d.id in of and d.steps
        ]
    return out


def scored(
    ctx: StageContext, model: str, given: Sequence[_Given], settings: ProcessBenchSettings
) -> list[Judged]:
    """The solutions with the scores of a model: of the run, or that of the settings."""
    items = [(g.question, g.steps) for g in given]
    if settings.model is None:
        scorer = kept_scorer(ctx, model)
    else:
        from glore.reward_models.open import open_reward_model

        scorer = ctx.keep(
            open_reward_model(settings.model, settings.layout, ctx.config.engine), model
        )
    fits = scorer.fits(items)
    scores = scorer.score([item for item, fit in zip(items, fits, strict=True) if fit])
    ctx.count(too_long=fits.count(False))
    found = iter(scores)
    return [
        Judged(g.file, g.question, g.error, len(g.steps), next(found) if fit else None)
        for g, fit in zip(given, fits, strict=True)
    ]
