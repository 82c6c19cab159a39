"""Study `processbench`: do step reward models find the first wrong step (Zheng et al. 2024)?

For every solution, the first step with a score of at most T is what the model calls the first
error; none: it calls the solution right. Error accuracy: the share of solutions with an error whose
first error is found. Correct accuracy: the share of the others in which no step is called wrong.
F1: their harmonic mean. T is chosen on one file alone (the authors: GSM8K), by F1, and used on all.

- `files=[gsm8k.json,math.json,…]`: files in ProcessBench's layout (or another that tells the first
  wrong step, docs/formats.md). T comes from the one whose name has `calibrate` (gsm8k) in it, if it
  has solutions with and without an error; else T is the run's threshold.
- without files: the run's own drafts with their exact truth (else the labels of rollouts) stand in,
  and T comes from training drafts.
- `model=FOLDER`: a reward model in any layout that glore reads (ours, Qwen-PRM, Math-Shepherd,
  RLHFlow, Skywork, TRL; `layout=…` if the folder does not tell). Without it, the run's ORM,
  Balanced ORM and SORM.

Solutions that don't fit into the model's context have no score; they are counted and judged wrong.
Published figures stand in a table of their own, quoted.

judged   solutions and their scores
results  accuracies, F1, the threshold
views    tables with published figures, charts, sentences
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path

from glore.config import RunConfig, Settings
from glore.config.training import is_local
from glore.errors import ConfigError, DataError, shown
from glore.evaluation.inputs import REWARD_MODELS
from glore.pipeline import Stage, StageContext
from glore.pipeline.fingerprints import digest_of_files, model_contents
from glore.report.views import MODEL_NAMES
from glore.reward_models.open import layout_at
from glore.stages.checks import check_engine
from glore.studies.measured import Measured
from glore.studies.processbench.judged import (
    TRAINING,
    Judged,
    ProcessBenchSettings,
    from_files,
    names_of,
    of_run,
    scored,
)
from glore.studies.processbench.results import best_threshold, measured
from glore.studies.processbench.views import MEASURE, PUBLISHED, charts, findings, tables
from glore.studies.study import Study

__all__ = ["PUBLISHED", "STUDY", "Judged", "ProcessBenchSettings", "best_threshold"]

OTHER = "given"
"""What a model from outside of the run is called in names of parts."""


def study(settings: Settings) -> Study:
    """The study with these settings. Raises ConfigError for those that don't go together."""
    assert isinstance(settings, ProcessBenchSettings)
    paths = [Path(f).expanduser() for f in settings.files]
    names_of(paths)
    if settings.layout is not None and settings.model is None:
        raise ConfigError(
            f"layout: {shown(settings.layout)} is how the model of model=FOLDER reads solutions; "
            "give a model, or drop it"
        )
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

    def check(config: RunConfig) -> None:
        """The files can be read, and the model's folder tells its layout; a Hub name is not looked
        up.
        """
        collections.deque(from_files(paths), maxlen=0)
        if settings.model is not None and is_local(settings.model):
            layout_at(settings.model, settings.layout)

    def judge(ctx: StageContext) -> None:
        """A part for each model."""
        given = list(from_files(paths)) if paths else of_run(ctx)
        for model in models:
            ctx.write(scored(ctx, model, given, settings), Judged, model)
            ctx.release(model)
        ctx.count(solutions=len(given), with_error=sum(g.error is not None for g in given))

    def measure(ctx: StageContext) -> None:
        """Accuracies and F1 by model and file."""
        found: list[Measured] = []
        for model in models:
            name = settings.model or MODEL_NAMES[model]
            judged = ctx.read("solutions_judged", Judged, model)
            chosen = TRAINING if not paths else settings.calibrate
            found += measured(name, judged, chosen, ctx.config.evaluation.threshold)
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
            checks=(check_engine, check),
            own={"model": settings.model, "layout": settings.layout},
        )
        measuring = Stage(
            MEASURE,
            measure,
            inputs=("solutions_judged",),
            reads=("evaluation.threshold",),
            opens=lambda _: (),
            own={"calibrate": settings.calibrate},
            version=2,
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


STUDY = study(ProcessBenchSettings())
