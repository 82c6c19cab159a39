"""Runs stages in order: fingerprints, shards, resume. Knows no machine learning.

A stage is complete when its `done.json` is there and holds the fingerprint of the settings the
stage reads, the content of the data it reads from outside the run, its inputs' fingerprints, its
version, the records' schema version and glore's release. Anything else is made again, and the
reason is said; where that would replace what is there (computed under other settings, damaged, not
readable), only if asked to (`redo`). An unfinished stage goes on from the shards it has committed,
if they were made under the same fingerprint. Stages must be deterministic: then a run that was
killed anywhere and started again holds the same bytes as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import errno
import functools
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from glore.config import RunConfig, resolved_recipe
from glore.errors import ConfigError, DataError, GloreError, RunError, shown
from glore.pipeline.context import StageContext
from glore.pipeline.fingerprints import (
    REGRADED,
    difference,
    flat_settings,
    package_versions,
    stage_fingerprint,
)
from glore.pipeline.folder import (
    check_is_run_folder,
    clear_stage,
    locked,
    sweep,
    write_json,
    write_text,
)
from glore.pipeline.marks import (
    DoneMark,
    StartedMark,
    check_inside,
    check_records,
    check_stage_files,
    file_mark,
    model_marks,
    read_done,
    read_started,
)
from glore.pipeline.swap import finish_swap
from glore.progress import Progress, SilentProgress, duration
from glore.records import SCHEMA_VERSION

__all__ = ["Stage", "StageContext", "StagePlan", "plan_stages", "run_stages"]

State = Literal["reused", "resumed", "computed"]
SPARE_BYTES = 2**20
"""With less free space than this, a failed write means a full disk."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run: what it reads, and the function that does it."""

    name: str
    inputs: tuple[str, ...]
    """Stages whose records or models it reads; each stands earlier in the list."""
    settings: Callable[[RunConfig], object]
    """The settings it reads: a settings section, or a tuple or dict of sections and plain values.
    The run's seed is always one.
    """
    run: Callable[[StageContext], None]
    models: tuple[str, ...] = ()
    """The models it makes, if it makes any: folders below models/, which no other stage makes."""
    version: int = 1
    """Raise it when the stage's code changes what comes out."""
    contents: Callable[[RunConfig], Mapping[str, str | None]] | None = None
    """What it reads from outside the run: setting that names it → hash of the content. None: not
    there now, so it can't have changed.
    """
    estimate: Callable[[RunConfig], int] | None = None
    """Tokens the stage will generate or train on, roughly, for `--dry-run`."""
    check: Callable[[RunConfig], None] | None = None
    """Raises what the stage would refuse of the settings. Asked of every stage that is not reused,
    before the first of them begins.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class StagePlan:
    """What will be done about one stage, and why."""

    name: str
    state: State
    """`reused`: complete and fitting; `resumed`: unfinished and fitting; `computed`: from nothing.
    """
    why: str
    fingerprint: str
    settings: dict[str, object]
    """Dotted path → value, and `content of PATH` → hash."""
    inputs: dict[str, str]
    """Input stage → fingerprint."""
    tokens: int | None
    """Estimated tokens; none where the stage gives no estimate or is reused."""
    done: DoneMark | None
    """The mark of the complete stage, where it is reused."""
    replaces: bool
    """Whether computing it discards something that is there: made otherwise, damaged or not
    readable.
    """
    damaged: bool = False
    """Whether that was made under the same settings, so that a copy of it could be put back."""
    absent: tuple[str, ...] = ()
    """Settings that name what the stage reads from outside the run, where nothing is there now."""


def run_stages(
    stages: Sequence[Stage],
    config: RunConfig,
    until: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    redo: bool = False,
) -> tuple[StagePlan, ...]:
    """Run the stages up to and including `until`, reusing what fits, and return what was planned.

    `dry_run` only plans and checks, and touches nothing; `redo` lets go of what was computed under
    other settings. Raises ConfigError for an unknown stage, RunError for a folder that can't be
    used or, without `redo`, whose results would be replaced.
    """
    progress = progress or SilentProgress()
    run_dir = config.run_dir
    chosen = _up_to(stages, until)
    check_is_run_folder(run_dir)
    if dry_run:
        plans = plan_stages(chosen, config, redo)
        _check_settings(chosen, plans, config)
        return plans
    with locked(run_dir):
        finish_swap(run_dir)
        plans = plan_stages(chosen, config, redo)
        if not redo:
            _check_replaces_nothing(plans, run_dir)
        _check_settings(chosen, plans, config)
        swept = sweep(run_dir)
        if swept:
            progress.note(f"left behind by a killed process, and removed: {', '.join(swept)}")
        write_text(run_dir / "config.yaml", resolved_recipe(config))
        for number, (stage, plan) in enumerate(zip(chosen, plans, strict=True), start=1):
            label = f"stage {number}/{len(chosen)} {stage.name}"
            if plan.state == "reused":
                progress.note(f"{label}: reused")
                _tidy(run_dir / "stages" / stage.name)
            else:
                progress.note(f"{label}: {plan.state} ({plan.why})")
                _run_stage(stage, plan, chosen, config, _Labelled(progress, label), redo)
    return plans


def _check_settings(stages: Sequence[Stage], plans: Sequence[StagePlan], config: RunConfig) -> None:
    """Refuse now what any stage to be done would refuse later. Raises GloreError."""
    to_do = [
        (stage, plan) for stage, plan in zip(stages, plans, strict=True) if plan.state != "reused"
    ]
    for stage, _ in to_do:
        if stage.check is not None:
            stage.check(config)
    for stage, plan in to_do:
        for setting in plan.absent:
            value = functools.reduce(getattr, setting.split("."), config)
            raise DataError(
                f"{setting}: there is nothing to read at {shown(str(value))}, which stage "
                f"{stage.name} reads; give a path that exists"
            )


def _check_replaces_nothing(plans: Sequence[StagePlan], run_dir: Path) -> None:
    replaced = [plan for plan in plans if plan.replaces]
    if not replaced:
        return
    first, *others = replaced
    if first.damaged:
        raise RunError(
            f"stage {first.name} can't be used as it is: {first.why}. Nothing was removed; put the "
            "file back from a copy, or add --redo to compute the stage again in its place"
        )
    more = f" and {len(others)} after it" if others else ""
    if first.why.startswith("made from another"):
        raise RunError(
            f"{run_dir}: stage {first.name}{more} no longer fits what it comes from ({first.why}), "
            "which was made or regraded since; to keep it, give this run another name (name=…); "
            "to compute it again in its place, add --redo"
        )
    raise RunError(
        f"{run_dir} holds what was made by other settings: stage {first.name}{more} ({first.why}); "
        "to keep that, give this run another name (name=…); to go on as it was, run its own "
        f"settings: glore run {shlex.quote(str(run_dir / 'config.yaml'))}; to compute it again in "
        "its place, add --redo"
    )


def plan_stages(
    stages: Sequence[Stage], config: RunConfig, redo: bool = False
) -> tuple[StagePlan, ...]:
    """What running these stages would do. Reads the run folder, changes nothing.

    Raises RunError for what is there but can't be read, where it is not to be done again (`redo`).
    """
    plans: dict[str, StagePlan] = {}
    maker: dict[str, str] = {}
    for stage in stages:
        unknown = [name for name in stage.inputs if name not in plans]
        if unknown or stage.name in plans:
            raise ValueError(
                f"stage {stage.name}: its name must be new and its inputs must stand before it, "
                f"got {unknown or stage.name}"
            )
        for model in stage.models:
            if model in maker:
                raise ValueError(
                    f"stages {maker[model]} and {stage.name} both make models/{model}; give each "
                    "its own name"
                )
            maker[model] = stage.name
        plans[stage.name] = _plan(
            stage, config, {name: plans[name].fingerprint for name in stage.inputs}, redo
        )
    return tuple(plans.values())


def _plan(stage: Stage, config: RunConfig, inputs: dict[str, str], redo: bool) -> StagePlan:
    folder = config.run_dir / "stages" / stage.name
    for path in (folder, *(config.run_dir / "models" / model for model in stage.models)):
        check_inside(path, config.run_dir)
    done, started, unreadable = _marks(folder, redo)
    earlier = done or started
    found = stage.contents(config) if stage.contents else {}
    settings = {
        "seed": config.seed,
        **flat_settings(stage.settings(config), config),
        **_contents(found, earlier),
    }
    fingerprint = stage_fingerprint(
        stage.name,
        stage_version=stage.version,
        schema_version=SCHEMA_VERSION,
        versions=package_versions(),
        settings=settings,
        inputs=inputs,
    )
    state: State = "computed"
    replaces, damaged = unreadable is not None, False
    if unreadable is not None:
        why = unreadable
    elif earlier is not None and earlier.fingerprint != fingerprint:
        why = ("" if done else "unfinished, but ") + difference(
            dataclasses.asdict(earlier), _made_from(stage, settings, inputs)
        )
        replaces = done is not None or _has_work(folder)
    elif done is not None:
        damage = check_stage_files(config.run_dir, folder, done)
        state, why = ("computed", damage.what) if damage else ("reused", "complete")
        replaces = damaged = damage is not None and not damage.is_absent
    elif started is not None:
        state, why = "resumed", "unfinished"
    else:
        # A whole stage folder that is gone was removed by somebody; then its models are made again,
        # too.
        models = folder.is_dir() and any(
            (config.run_dir / "models" / model).is_dir() for model in stage.models
        )
        replaces = damaged = models or _has_work(folder)
        unmarked = f"{folder} holds records or has made models, but no done.json or started.json says from what"
        why = unmarked if replaces else "no result yet"
    absent = [name for name, content in found.items() if content is None]
    if absent and state != "reused":
        why += f"; nothing is there at {', '.join(absent)}"
    tokens = stage.estimate(config) if stage.estimate and state != "reused" else None
    mark = done if state == "reused" else None
    missing = () if state == "reused" else tuple(absent)
    return StagePlan(
        stage.name,
        state,
        why,
        fingerprint,
        settings,
        inputs,
        tokens,
        mark,
        replaces,
        damaged,
        missing,
    )


def _marks(folder: Path, redo: bool) -> tuple[DoneMark | None, StartedMark | None, str | None]:
    """The stage's mark, `done.json` before `started.json`; or, with `redo`, why it can't be read.
    Raises RunError.
    """
    try:
        done = read_done(folder)
        return done, None if done else read_started(folder), None
    except RunError as error:
        if not redo:
            raise
        return None, None, str(error).partition(";")[0].partition(": it is damaged")[0]


def _has_work(folder: Path) -> bool:
    """Are there finished shards or checkpoints of a stage?"""
    return any(folder.glob("*.parquet")) or any((folder / "work").glob("*"))


def _contents(
    found: Mapping[str, str | None], earlier: DoneMark | StartedMark | None
) -> dict[str, str]:
    """Hashes of what a stage reads from outside; where that isn't there now, the hash that an
    earlier attempt noted.

    So is the hash of what was regraded, also where the stage is made anew: a later stage that was
    made before must not fit.
    """
    noted = earlier.settings if earlier else {}
    hashes = {f"content of {name}": content for name, content in found.items()} | (
        {REGRADED: None} if REGRADED in noted else {}
    )
    return {
        key: content or str(noted[key])
        for key, content in hashes.items()
        if content or key in noted
    }


def _made_from(
    stage: Stage, settings: dict[str, object], inputs: dict[str, str]
) -> dict[str, object]:
    """What a mark says about the making of a stage, besides its fingerprint."""
    return {
        "settings": settings,
        "inputs": inputs,
        "stage_version": stage.version,
        "schema_version": SCHEMA_VERSION,
        "versions": package_versions(),
    }


def _run_stage(
    stage: Stage,
    plan: StagePlan,
    stages: Sequence[Stage],
    config: RunConfig,
    progress: Progress,
    redo: bool,
) -> None:
    run_dir = config.run_dir
    folder = run_dir / "stages" / stage.name
    if plan.state == "computed":
        models = _models_to_clear(stage, stages, folder)
        if folder.exists() or any((run_dir / "models" / model).exists() for model in models):
            for source in sorted(_ancestors(stage, stages)):
                check_records(
                    run_dir / "stages" / source
                )  # what can't be made again is not cleared
        clear_stage(run_dir, folder, models)
        write_json(
            folder / "started.json",
            {"fingerprint": plan.fingerprint, **_made_from(stage, plan.settings, plan.inputs)},
        )
    context = StageContext(
        config, stage.name, _ancestors(stage, stages), progress, stage.models, redo
    )
    begin = time.monotonic()
    # Takes the last stage's line down while this one opens its data and models.
    progress.begin("working", 0, "")
    try:
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
            m: model_marks(run_dir / "models" / m)
            for m in stage.models
            if (run_dir / "models" / m).is_dir()
        },
        versions=package_versions(),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    write_json(folder / "done.json", dataclasses.asdict(done))
    _tidy(folder)
    extra = f", {tokens:,} tokens" if tokens else ""
    progress.note(f"{stage.name} took {duration(seconds)}{extra}")


def _models_to_clear(stage: Stage, stages: Sequence[Stage], folder: Path) -> set[str]:
    """The models that the stage makes, and those that it made before and no other stage makes now."""
    try:
        done = read_done(folder)
    except RunError:  # its removal was asked for
        done = None
    others = {model for other in stages if other.name != stage.name for model in other.models}
    return {*stage.models, *(done.models if done else ())} - others


def _is_full(error: Exception, run_dir: Path) -> bool:
    """Did the disk refuse? torch and safetensors raise errors of their own then, which don't say
    so.
    """
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (
        isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError"
    ) and shutil.disk_usage(run_dir).free < SPARE_BYTES


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished stage needs. Safe to be killed in: the next run tidies again."""
    shutil.rmtree(folder / "work", ignore_errors=True)
    for path in (folder / "started.json", *folder.glob(".*")):
        with contextlib.suppress(OSError):  # a folder of somebody's, say
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


def _ancestors(stage: Stage, stages: Sequence[Stage]) -> frozenset[str]:
    by_name = {s.name: s for s in stages}
    found: set[str] = set()
    waiting = list(stage.inputs)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(by_name[name].inputs)
    return frozenset(found)


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
