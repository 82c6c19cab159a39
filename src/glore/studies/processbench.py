"""Study `processbench`: do step reward models find the first wrong step (Zheng et al. 2024)?

For every solution, the first step with a score of at most T is what the model calls the first
error; none: it calls the solution right. Error accuracy: the share of solutions with an error whose
first error is found. Correct accuracy: the share of the others in which no step is called wrong.
F1: their harmonic mean. T is chosen on one file alone (the authors: GSM8K), by F1, and used on all.

- `files=[gsm8k.json,math.json,…]`: files in ProcessBench's layout (or another that tells the first
  wrong step, docs/formats.md). T comes from the one whose name has `calibrate` (gsm8k) in it;
  without one, T is the run's threshold.
- without files: the run's own drafts with their exact truth (else the labels of rollouts) stand in,
  and T comes from training drafts.
- `model=FOLDER`: a reward model in any layout that glore reads (ours, Qwen-PRM, Math-Shepherd,
  RLHFlow, Skywork, TRL; `layout=…` if the folder does not tell). Without it, the run's ORM,
  Balanced ORM and SORM.

Solutions that don't fit into the model's context have no score; they are counted and judged wrong.
Published figures stand in a table of their own, quoted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from glore.config import RunConfig, Settings
from glore.config.section import LocalPath, Names
from glore.errors import DataError, shown
from glore.evaluation.inputs import REWARD_MODELS
from glore.formats.labelled import Label
from glore.formats.reading import read_solutions
from glore.pipeline import Stage, StageContext
from glore.pipeline.fingerprints import digest_of_files, model_contents
from glore.records import Problem, Solution, StepLabels
from glore.report.charts import Chart
from glore.report.views import MODEL_NAMES, TableView, percent
from glore.solution_files.judging import Agreement, FirstErrors
from glore.stages.checks import check_engine
from glore.stages.common import step_scorer
from glore.stages.labelling import train_drafts
from glore.statistics import Estimate
from glore.studies.measured import (
    Measured,
    dot_chart,
    estimate_of,
    find,
    number,
    pivot,
    read_measured,
    share,
)
from glore.studies.records import first_false
from glore.studies.study import Study

__all__ = ["PUBLISHED", "STUDY", "ProcessBenchSettings", "best_threshold"]

MEASURE = "processbench_measured"
TABLE, OVERALL = "processbench", "processbench-average"
TRAINING, TEST = "training drafts", "test drafts"
GRID = tuple(round(0.01 * i, 2) for i in range(1, 100))
OTHER = "given"
"""What a model from outside of the run is called in names of parts."""

PUBLISHED: tuple[tuple[str, str, str, str], ...] = (
    ("RLHFlow DeepSeek / Mistral", "rollouts", "no", "26.6 / 28.4"),
    ("Qwen2.5-Math-7B on Math-Shepherd's data", "rollouts", "no", "28.9"),
    ("Math-Shepherd-7B", "rollouts", "no", "31.5"),
    ("GroundedPRM", "tree search and tools", "no", "39.7"),
    ("Qwen, own rollouts, 860k", "rollouts", "no", "40.1"),
    ("uPRM-14B", "none", "no", "about 48.4"),
    ("FreePRM-7B", "outcomes, pseudo-labels", "no", "53.0"),
    ("Qwen2.5-Math-7B-PRM800K", "people", "no", "56.5"),
    ("SCAN", "rollouts, denoised", "no", "59.1"),
    ("Qwen2.5-Math-PRM-7B", "rollouts and a judge", "no", "73.5"),
    ("GenPRM-7B, pass@1 / maj@8", "rollouts and a judge", "yes", "75.2 / 80.5"),
    ("TIPS, Qwen3-4B", "outcomes, GRPO", "yes", "77.7–85.2"),
)
"""Model, supervision, generative, average F1 over the four sets, as the papers report them."""


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


def study(settings: Settings) -> Study:
    """The study with these settings."""
    assert isinstance(settings, ProcessBenchSettings)
    paths = [Path(f).expanduser() for f in settings.files]
    models = REWARD_MODELS if settings.model is None else (OTHER,)

    def contents(config: RunConfig) -> Mapping[str, str | None]:
        """Hashes of the files, and of the model's folder."""
        for path in paths:
            if not path.is_file():
                raise DataError(f"files: {shown(str(path))} is no file; give ProcessBench's files")
        found: dict[str, str | None] = {}
        if paths:
            names = {f"{i} {path.name}": path for i, path in enumerate(paths)}
            found["study.files"] = digest_of_files(names, "files")
        if settings.model is not None:
            (hashed,) = model_contents(settings.model).values() or (None,)
            if hashed is not None:
                found["study.model"] = hashed
        return found

    def judge(ctx: StageContext) -> None:
        """A part for each model."""
        given = list(_from_files(paths)) if paths else _of_run(ctx)
        for model in models:
            ctx.write(_scored(ctx, model, given, settings), Judged, model)
            ctx.release(model)
        ctx.count(solutions=len(given), with_error=sum(g.error is not None for g in given))

    def measure(ctx: StageContext) -> None:
        """Accuracies and F1 by model and file."""
        found: list[Measured] = []
        for model in models:
            name = settings.model or MODEL_NAMES[model]
            judged = ctx.read("solutions_judged", Judged, model)
            chosen = TRAINING if not paths else settings.calibrate
            found += _measured(name, judged, chosen, ctx.config.evaluation.threshold)
        ctx.write(found, Measured)

    def stages(config: RunConfig) -> tuple[Stage, ...]:
        run = ("labels", "test_labels", "samples") if not paths else ("problems",)
        judging = Stage(
            "solutions_judged",
            judge,
            inputs=(*run, *(models if settings.model is None else ())),
            reads=("engine", "reward.draft_samples"),
            opens=lambda _: models if settings.model is None else (),
            contents=contents,
            checks=(check_engine,),
            own={"model": settings.model, "layout": settings.layout},
        )
        measuring = Stage(
            MEASURE,
            measure,
            inputs=("solutions_judged",),
            reads=("evaluation.threshold",),
            opens=lambda _: (),
            own={"calibrate": settings.calibrate},
        )
        return judging, measuring

    return Study(
        "processbench",
        "Finding the first wrong step: error accuracy, correct accuracy, F1 (ProcessBench).",
        stages,
        tables,
        charts,
        findings,
        settings=settings,
        build=study,
    )


def _from_files(paths: Sequence[Path]) -> Iterator[_Given]:
    """The solutions whose labels tell the first wrong step or that there is none."""
    for path in paths:
        n = 0
        for solution in read_solutions(path):
            labels = solution.labels
            if not labels:
                continue
            first = next((i for i, x in enumerate(labels) if x is False), None)
            if all(x is True for x in labels[:first]):
                n += 1
                yield _Given(path.stem, solution.question, solution.steps, first)
        if not n:
            raise DataError(
                f"{path}: no solution has labels that tell its first wrong step; give a file in "
                "ProcessBench's layout"
            )


def _of_run(ctx: StageContext) -> list[_Given]:
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


def _scored(
    ctx: StageContext, model: str, given: Sequence[_Given], settings: ProcessBenchSettings
) -> list[Judged]:
    items = [(g.question, g.steps) for g in given]
    fits = [True] * len(items)
    if settings.model is None:
        scores = step_scorer(ctx, model)(items)
    else:
        from glore.reward_models.open import open_reward_model

        scorer = open_reward_model(settings.model, settings.layout, ctx.config.engine)
        ctx.keep(scorer, model)
        fits = scorer.fits(items)
        scores = scorer.score([item for item, fit in zip(items, fits, strict=True) if fit])
        ctx.count(too_long=fits.count(False))
    found = iter(scores)
    return [
        Judged(g.file, g.question, g.error, len(g.steps), next(found) if fit else None)
        for g, fit in zip(given, fits, strict=True)
    ]


def _measured(
    name: str, judged: Sequence[Judged], calibrate: str, default: float
) -> list[Measured]:
    files = list(dict.fromkeys(j.file for j in judged))
    chosen = [j for j in judged if calibrate.lower() in j.file.lower()]
    t = best_threshold(chosen) if chosen else default
    found, f1s = [], []
    for file in files:
        mine = [j for j in judged if j.file == file]
        row = (name, file)
        by_t = _first_errors(mine, t)
        f1s.append(by_t.f1.value)
        n_error = sum(j.error is not None for j in mine)
        found += [
            number(TABLE, row, "T", t),
            share(TABLE, row, "error accuracy", by_t.wrong),
            share(TABLE, row, "correct accuracy", by_t.right),
            share(TABLE, row, "F1", by_t.f1),
            share(TABLE, row, "F1 at 0.5", _first_errors(mine, 0.5).f1),
            number(TABLE, row, "with an error", n_error, total=True),
            number(TABLE, row, "without", len(mine) - n_error, total=True),
        ]
    known = [f for f in f1s if f is not None]
    held_out = [f for file, f in zip(files, f1s, strict=True) if f is not None and file != TRAINING]
    mean = float(np.mean(held_out or known)) if known else None
    found.append(number(OVERALL, name, "average F1, %", None if mean is None else 100 * mean))
    return found


def best_threshold(judged: Sequence[Judged]) -> float:
    """The threshold with the best F1; of several, the one in their middle."""
    scores = [(t, f1) for t in GRID if (f1 := _f1(judged, t)) is not None]
    if not scores:
        return 0.5
    best = max(f1 for _, f1 in scores)
    among = [t for t, f1 in scores if f1 == best]
    return among[len(among) // 2]


def _f1(judged: Sequence[Judged], t: float) -> float | None:
    """F1 without an interval."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for j in judged:
        hits[j.error is None].append(_called(j, t) == j.error)
    if not hits[True] or not hits[False]:
        return None
    right, wrong = (sum(h) / len(h) for h in (hits[True], hits[False]))
    return 2 * right * wrong / (right + wrong) if right + wrong else 0.0


def _called(judged: Judged, t: float) -> int | None:
    """The first step called wrong; -1 without scores, which is never right."""
    if judged.p is None:
        return -1
    return next((i for i, p in enumerate(judged.p) if p <= t), None)


def _first_errors(judged: Sequence[Judged], t: float) -> FirstErrors:
    """The numbers with intervals. A solution without scores is judged wrong."""
    found = Agreement(t, keeps=True)
    for j in judged:
        error = j.error
        known: tuple[Label, ...] = (True,) * (j.n_steps if error is None else error)
        rest: tuple[Label, ...] = (
            () if error is None else (False, *[None] * (j.n_steps - error - 1))
        )
        # Without scores, what misses the label for sure.
        p = j.p if j.p is not None else ((0.0,) if error is None else (1.0,)) * j.n_steps
        found.add(j.question, (*known, *rest), None, p)
    return found.first_errors()


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """Ours by file, averages, and published figures."""
    found = read_measured(folder, MEASURE)
    return [
        pivot(
            found,
            TABLE,
            "Finding the first wrong step",
            "T is chosen on the first kind of solutions alone (GSM8K of ProcessBench, or the "
            "training drafts of the run).",
            ("model", "solutions"),
        ),
        pivot(
            found,
            OVERALL,
            "Average F1",
            "Over all files; without files, of the test drafts. Drafts of this run are no "
            "ProcessBench: only figures on its own files compare with the published ones.",
            "model",
        ),
        TableView(
            "processbench-published",
            "ProcessBench, average F1 as published (quoted, not measured here)",
            "Over GSM8K, MATH, OlympiadBench and Omni-MATH, as the authors of each report it.",
            ("model", "supervision", "generative", "F1, quoted"),
            PUBLISHED,
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Accuracies and F1 of every model."""
    found = [
        dataclasses.replace(m, row=m.row[::-1])
        for m in read_measured(folder, MEASURE)
        if m.table == TABLE and m.column == "F1"
    ]
    turned = [dataclasses.replace(m, row=m.row[:1], column=m.row[1]) for m in found]
    return [
        dot_chart(
            turned,
            TABLE,
            "F1 of finding the first wrong step",
            "Whiskers: 95 % intervals over questions.",
            "F1, %",
        )
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """F1 of every model."""
    found = read_measured(folder, MEASURE)
    rows = list(dict.fromkeys(m.row for m in found if m.table == TABLE))
    shown_rows = [row for row in rows if row[1] != TRAINING]
    return [
        f"{row[0]}, {row[1]}: F1 {percent(_estimate(found, row, 'F1'))} % (error accuracy "
        f"{percent(_estimate(found, row, 'error accuracy'))} %, correct accuracy "
        f"{percent(_estimate(found, row, 'correct accuracy'))} %)."
        for row in shown_rows
    ]


def _estimate(found: Sequence[Measured], row: tuple[str, ...], column: str) -> Estimate:
    return estimate_of(find(found, TABLE, row, column))


STUDY = study(ProcessBenchSettings())
