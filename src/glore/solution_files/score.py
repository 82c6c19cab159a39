"""Step scores of a reward model, ours or another's, for the solutions of a file.

The file is read as a stream: once to count it, once to score it and once to write it again with its
scores. Scores are committed shard by shard in a work folder beside the output, so a scoring that
was killed goes on with the same command to the same bytes. In memory are one shard of solutions,
and a few numbers for each question.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from glore.config import EngineSettings, PromptSettings, RunConfig
from glore.digests import file_digest
from glore.errors import DataError
from glore.formats import LabelledSolution, read_solutions
from glore.pipeline import Stage, StageContext, run_stages
from glore.pipeline.fingerprints import fingerprint_of, model_contents
from glore.pipeline.integrity import recorded_files
from glore.progress import Progress
from glore.records import StepScores, read_records
from glore.reward_models.layouts import good_classes, note_of
from glore.solution_files.judging import Agreement, FirstErrors, Judged, Ranked
from glore.solution_files.settings import command_config, model_section, work_folder
from glore.solution_files.writing import write_plain
from glore.where import first_bad_step

__all__ = ["ScoreJob", "Scored", "score_config", "score_file"]

SCORED_TOGETHER = 2048
"""Solutions given to the scorer at a time. It shares what those of one question have in common."""


@dataclasses.dataclass(frozen=True, slots=True)
class ScoreJob:
    """A file of solutions to score, and where the scores go."""

    source: Path
    output: Path
    model: str
    """A reward model: a folder, a Hub name or NAME@REVISION."""
    layout: str | None = None
    """Of the model's inputs; none: what its folder tells."""
    origin: str | None = None
    """The layout of the file; none: told from its fields."""
    placeholder: str = "ки"
    threshold: float = 0.5
    """A step whose score is at most this is called bad."""
    prompt: PromptSettings | None = None
    """How a model of ours was trained to be prompted; none: as its folder or its run says."""
    neutral: str | None = None
    """What a neutral class counts as, `good` or `bad`; none: what the model's folder says."""

    def solutions(self) -> Iterator[LabelledSolution]:
        """What the source holds. Raises DataError."""
        return read_solutions(self.source, self.origin, placeholder=self.placeholder)

    def contents(self, config: RunConfig) -> dict[str, str | None]:
        """What the scores depend on besides settings. Raises DataError, ModelError."""
        from glore.reward_models.open import layout_at, prompt_at

        chosen = layout_at(self.model, self.layout, self.prompt)
        prompt = self.prompt or prompt_at(self.model) if chosen.name == "glore" else None
        return {
            "the solutions": _digest(self.source),
            "their layout": fingerprint_of([self.origin, self.placeholder]),
            "the layout of the model": fingerprint_of(note_of(chosen, prompt).decode()),
            **(
                {"the good classes": fingerprint_of(list(good_classes(self.model, self.neutral)))}
                if self.neutral is not None
                else {}
            ),
            **model_contents(config.base.model or ""),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """What was scored, and how well the scores agree with what the file says of the solutions."""

    n_solutions: int
    n_steps: int
    n_too_long: int
    """Solutions without scores, since they don't fit into the model's context."""
    steps: Judged
    first: FirstErrors
    ranked: Ranked


def score_config(job: ScoreJob, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of a scoring: `engine`, and `prompt` where it differs from what the model's
    folder says. Raises ConfigError.
    """
    data = {
        "name": "score",
        "runs_dir": str(work_folder(job.output)),
        "task": {"kind": "jsonl"},
        "base": model_section(job.model),
    }
    return command_config(data, overrides, "engine", EngineSettings, ("prompt",))


def score_file(
    job: ScoreJob, config: RunConfig, progress: Progress, *, redo: bool = False
) -> Scored:
    """Score every solution, and write all to `job.output` with the columns `scores` (one per step,
    the probability that it is good), `first_bad` (0-based index of the first step whose score is at
    most the threshold, or -1) and `model`. A solution that does not fit into the model's context
    has none of them, and is counted.

    Raises GloreError: for a file or model that can't be read, and for an unfinished scoring of
    another file or model, without `redo`.
    """
    pinned = ("base.revision",) if config.base.revision else ()
    stage = Stage(
        "scores",
        functools.partial(_score, job),
        reads=("base.model", *pinned, "engine"),
        contents=job.contents,
    )
    run_stages((stage,), config, progress=progress, redo=redo)
    agreement = Agreement(job.threshold)
    counts = {"steps": 0, "too_long": 0}
    rows = _scored(job, stage.folder(config.run_dir), agreement, counts)
    progress.begin("writing", 0, "solutions")
    n = write_plain(job.output, rows)
    shutil.rmtree(work_folder(job.output), ignore_errors=True)
    return Scored(
        n,
        counts["steps"],
        counts["too_long"],
        agreement.steps(),
        agreement.first_errors(),
        agreement.ranked(),
    )


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise DataError(
            f"can't read {path}: {error.strerror or error}; give a file of solutions"
        ) from error


def _score(job: ScoreJob, ctx: StageContext) -> None:
    """Parts: `part`, a record per solution; its id is the number in the file, from 1. One without
    scores is too long.
    """
    from glore.reward_models.open import open_reward_model

    n = sum(1 for _ in job.solutions())  # a fault in the last row is found before the first score
    source, position = job.solutions(), 0
    scorer = functools.cache(
        lambda: ctx.keep(
            open_reward_model(job.model, job.layout, ctx.config.engine, job.prompt, job.neutral),
            job.model,
        )
    )

    def work(shard: Sequence[int]) -> list[StepScores]:
        nonlocal position
        if not shard:
            return []
        chunk = list(islice(source, shard[0] - position, shard[-1] + 1 - position))
        position = shard[-1] + 1
        items = [(s.question, s.steps) for s in chunk]
        fitting = scorer().fits(items)
        found = iter(scorer().score([i for i, fits in zip(items, fitting, strict=True) if fits]))
        return [
            StepScores(str(number + 1), job.model, next(found) if fits else ())
            for number, fits in zip(shard, fitting, strict=True)
        ]

    for _ in ctx.shards(range(n), SCORED_TOGETHER, work, StepScores, unit="solutions"):
        pass


def _scored(
    job: ScoreJob, folder: Path, agreement: Agreement, counts: dict[str, int]
) -> Iterator[tuple[LabelledSolution, dict[str, object]]]:
    """The file's solutions with their columns. They are counted, and added to the agreement."""
    records = (
        record
        for path in recorded_files(folder, "part")
        for record in read_records(path, StepScores)
    )
    for solution, record in zip(job.solutions(), records, strict=True):
        p = record.p_correct
        if len(p) < len(solution.steps):
            counts["too_long"] += 1
            yield solution, {"scores": None, "first_bad": None, "model": None}
            continue
        counts["steps"] += len(p)
        agreement.add(solution.question, solution.labels, solution.correct, p)
        first = first_bad_step(p, job.threshold)
        yield (
            solution,
            {"scores": list(p), "first_bad": -1 if first is None else first, "model": job.model},
        )
