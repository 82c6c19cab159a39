"""Runs stages in order: reuses, resumes or computes each. Knows no machine learning.

A complete stage is reused (`glore.pipeline.reuse` says when). Any other stage is computed, and
the progress line gives the reason. Existing results are replaced only with `redo`. An unfinished
stage resumes from its committed shards if they have the same fingerprint. Stages are deterministic,
so a run that was killed and started again holds the same bytes as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import errno
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from glore.config import RunConfig, resolved_recipe
from glore.errors import ConfigError, GloreError, RunError, shown
from glore.pipeline.chosen import with_engine
from glore.pipeline.context import StageContext
from glore.pipeline.fingerprints import package_versions
from glore.pipeline.folder import (
    check_is_run_folder,
    clear_stage,
    locked,
    sweep,
    write_json,
    write_text,
)
from glore.pipeline.integrity import check_records, file_mark, model_marks
from glore.pipeline.marks import DoneMark, read_done
from glore.pipeline.removal import remove_unread
from glore.pipeline.reuse import (
    StagePlan,
    check_replaces_nothing,
    check_settings,
    made_from,
    plan_stages,
)
from glore.pipeline.stage import Stage, ancestors, opened_models
from glore.pipeline.swap import finish_swap
from glore.pipeline.view import settings_view
from glore.progress import Progress, SilentProgress, duration
from glore.records import SCHEMA_VERSION

__all__ = ["run_stages"]

SPARE_BYTES = 2**20
"""A write that fails with less free space than this means a full disk."""


def run_stages(
    stages: Sequence[Stage],
    config: RunConfig,
    until: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    redo: bool = False,
) -> tuple[StagePlan, ...]:
    """Run the stages up to and including `until`, reusing what fits, and return what was planned.

    `dry_run` only plans and checks, and touches nothing; `redo` replaces what was computed under
    other settings. Raises ConfigError for an unknown stage, RunError for a folder that can't be
    used or, without `redo`, whose results would be replaced. Where stages of a study are among
    them, the run's own must be finished: a study only reads them.
    """
    progress = progress or SilentProgress()
    given, (config, engine) = config, with_engine(config)
    run_dir = config.run_dir
    chosen = _up_to(stages, until)
    check_is_run_folder(run_dir)
    is_study = any(stage.study for stage in chosen)
    if dry_run:
        plans = plan_stages(chosen, config, redo)
        if is_study:
            _check_run_is_finished(chosen, plans, run_dir)
        check_settings(chosen, plans, config)
        return plans
    with locked(run_dir):
        finish_swap(run_dir)
        plans = plan_stages(chosen, config, redo, estimates=False)
        if is_study:
            _check_run_is_finished(chosen, plans, run_dir)
        if not redo:
            check_replaces_nothing(plans, run_dir, of_study=is_study)
        check_settings(chosen, plans, config)
        swept = sweep(run_dir)
        if swept:
            progress.note(f"left behind by a killed process, and removed: {', '.join(swept)}")
        if not is_study:
            write_text(run_dir / "config.yaml", resolved_recipe(given))
        if engine and any(plan.state != "reused" for plan in plans):
            progress.note(f"engine {engine}")
        warned: set[str] = set()
        done = {plan.name for plan in plans if plan.state == "reused"}
        own = [pair for pair in zip(chosen, plans, strict=True) if not is_study or pair[0].study]
        for number, (stage, plan) in enumerate(own, start=1):
            label = f"stage {number}/{len(own)} {stage.name}"
            if plan.state == "reused":
                progress.note(f"{label}: reused")
                _tidy(stage.folder(run_dir))
            else:
                progress.note(f"{label}: {plan.state} ({plan.why})")
                labelled = _Labelled(progress, label)
                _run_stage(stage, plan, chosen, config, engine, labelled, redo, warned)
                done.add(stage.name)
            if config.keep == "final" and not is_study:
                remove_unread(stages, done, config, progress)
    return plans


def _check_run_is_finished(
    stages: Sequence[Stage], plans: Sequence[StagePlan], run_dir: Path
) -> None:
    """Raise RunError where a stage of the run itself is not done under these settings."""
    for stage, plan in zip(stages, plans, strict=True):
        if plan.removed:
            raise RunError(
                f"{run_dir}: {plan.why} to save disk (keep=final); to make it again, remove the "
                f"folder {stage.folder(run_dir)} and run with keep=all: glore run "
                f"{shlex.quote(str(run_dir / 'config.yaml'))} keep=all"
            )
        if not stage.study and plan.state != "reused":
            raise RunError(
                f"{run_dir}: a study reads a finished run, but stage {stage.name} would be "
                f"{plan.state} ({plan.why}); finish it first: glore run "
                f"{shlex.quote(str(run_dir / 'config.yaml'))}"
            )


def _run_stage(
    stage: Stage,
    plan: StagePlan,
    stages: Sequence[Stage],
    config: RunConfig,
    engine: str,
    progress: Progress,
    redo: bool,
    warned: set[str],
) -> None:
    run_dir = config.run_dir
    folder, sources = stage.folder(run_dir), ancestors(stage, stages)
    opened = opened_models(stage, stages, config)
    if plan.state == "computed":
        models = [stage.model_dir(run_dir, m) for m in _models_to_clear(stage, stages, folder)]
        if any(path.exists() for path in (folder, *models)):
            for source in sources:  # what can't be made again is not cleared
                check_records(source.folder(run_dir))
        clear_stage(run_dir, folder, models)
        write_json(
            folder / "started.json",
            {"fingerprint": plan.fingerprint, **made_from(stage, plan.settings, plan.inputs)},
        )
    context = StageContext(
        settings_view(config, stage, sources),
        name=stage.name,
        run_dir=run_dir,
        folder=folder,
        inputs={source.name: source.folder(run_dir) for source in sources},
        models={
            m: s.model_dir(run_dir, m)
            for s in (*sources, stage)
            for m in s.models
            if s is stage or m in opened
        },
        makes=stage.models,
        progress=progress,
        redo=redo,
        warned=warned,
        fingerprint=plan.fingerprint,
        track=config.track,
    )
    begin = time.monotonic()
    # Replaces the last stage's line while this one opens its data and models.
    progress.begin("working", 0, "")
    try:
        with contextlib.closing(context):
            stage.run(context)
    except Exception as error:
        if isinstance(error, GloreError) or not _is_full(error, run_dir):
            raise
        raise RunError(
            f"no space left while computing {stage.name} "
            f"({getattr(error, 'filename', None) or run_dir}); everything finished is kept: free "
            "some space and run the same command to go on"
        ) from error
    seconds = time.monotonic() - begin + context.reused_seconds
    counts = dict(context.counts)
    tokens = int(counts.pop("tokens", 0))
    done = DoneMark(
        stage=stage.name,
        fingerprint=plan.fingerprint,
        settings=plan.settings,
        inputs=plan.inputs,
        stage_version=stage.version,
        schema_version=SCHEMA_VERSION,
        counts=counts,
        seconds=round(seconds, 3),
        tokens=tokens,
        files={p.name: file_mark(p) for p in sorted(folder.glob("*.parquet")) if p.is_file()},
        models={
            model: model_marks(path)
            for model in stage.models
            if (path := stage.model_dir(run_dir, model)).is_dir()
        },
        versions=package_versions(),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        warnings=context.warnings,
        backends=context.backends,
        spared=context.spared,
        engine=engine if "engine.kind" in plan.settings else "",
    )
    write_json(folder / "done.json", dataclasses.asdict(done))
    _tidy(folder)
    extra = f", {tokens:,} tokens" if tokens else ""
    progress.note(f"{stage.name} took {duration(seconds)}{extra}")


def _models_to_clear(stage: Stage, stages: Sequence[Stage], folder: Path) -> set[str]:
    """The models that the stage makes, and those that it alone made before."""
    try:
        done = read_done(folder)
    except RunError:  # unreadable, and `redo` replaces it
        done = None
    others = {
        model
        for other in stages
        if other.name != stage.name and other.study == stage.study
        for model in other.models
    }
    return {*stage.models, *(done.models if done else ())} - others


def _is_full(error: Exception, run_dir: Path) -> bool:
    """Whether the disk is full. torch and safetensors then raise errors that don't say so."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (
        isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError"
    ) and shutil.disk_usage(run_dir).free < SPARE_BYTES


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished stage needs. A kill in here is made good by the next run."""
    shutil.rmtree(folder / "work", ignore_errors=True)
    for path in (folder / "started.json", *folder.glob(".*")):
        with contextlib.suppress(OSError):  # such as a folder that a user made
            path.unlink()


def _up_to(stages: Sequence[Stage], until: str | None) -> tuple[Stage, ...]:
    names = [s.name for s in stages]
    if until is None:
        return tuple(stages)
    if until not in names:
        near = difflib.get_close_matches(until, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"stages: {', '.join(names)}"
        raise ConfigError(f"--until: there is no stage {shown(until)}; {hint}")
    return tuple(stages[: names.index(until) + 1])


class _Labelled:
    """Puts the stage's label before every line of work."""

    def __init__(self, inner: Progress, label: str) -> None:
        self._inner, self._label = inner, label

    def begin(self, what: str, total: int, unit: str) -> None:
        self._inner.begin(f"{self._label} · {what}", total, unit)

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        self._inner.advance(n, tokens)

    def note(self, message: str) -> None:
        self._inner.note(f"  {message}")
