"""What a run will do about each stage, and why: reuse it, go on with it, or compute it.

A stage is reused when its `done.json` holds the fingerprint that its declaration, its inputs and
the data it reads from outside the run give now, and its files are as it left them.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from glore.config import RunConfig
from glore.errors import DataError, RunError, shown
from glore.pipeline.chosen import with_engine
from glore.pipeline.fingerprints import (
    REGRADED,
    declared_settings,
    difference,
    flat_settings,
    package_versions,
    stage_fingerprint,
)
from glore.pipeline.integrity import check_inside, check_stage_files, is_removed
from glore.pipeline.marks import DoneMark, StartedMark, read_done, read_started
from glore.pipeline.removal import made_again
from glore.pipeline.stage import Stage
from glore.records import SCHEMA_VERSION

__all__ = ["StagePlan", "check_replaces_nothing", "check_settings", "made_from", "plan_stages"]

State = Literal["reused", "resumed", "computed"]


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
    """Estimated tokens; None if the stage is reused, or if there is no estimate."""
    done: DoneMark | None
    """The mark of the stage if it is reused."""
    replaces: bool
    """Whether computing it discards existing results: of other settings, damaged or unreadable."""
    damaged: bool = False
    """Whether these have the same settings, so that a copy of the files could be restored."""
    trains: bool = False
    """Whether it makes models; the work of other stages is sampling, if any."""
    removed: bool = False
    """Whether it is complete, but its model was removed to save disk and is needed again."""
    absent: tuple[str, ...] = ()
    """Settings that name a file or folder outside the run which is missing now."""


def plan_stages(
    stages: Sequence[Stage], config: RunConfig, redo: bool = False, *, estimates: bool = True
) -> tuple[StagePlan, ...]:
    """What running these stages would do, in their order. Reads the run folder and changes nothing.

    `estimates`: with tokens, for which the data of the task is read.

    Raises RunError for a mark that can't be read, unless `redo` replaces it; ConfigError where
    `engine.kind=auto` can't choose; ValueError for stages whose names or models collide, or whose
    inputs do not precede them.
    """
    config = with_engine(config).config
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
            stage, config, {name: plans[name].fingerprint for name in stage.inputs}, redo, estimates
        )
    return tuple(_with_removed(stages, plans, config, estimates).values())


def _with_removed(
    stages: Sequence[Stage], plans: dict[str, StagePlan], config: RunConfig, estimates: bool
) -> dict[str, StagePlan]:
    """The plans, with those complete stages computed again whose removed models are needed."""
    to_do = [plan.name for plan in plans.values() if plan.state != "reused"]
    marks = {plan.name: plan.done for plan in plans.values() if plan.done is not None}
    again = made_again(stages, to_do, marks, config)
    estimate = {s.name: s.estimate for s in stages if estimates and s.estimate is not None}
    return {
        name: plan
        if name not in again
        else dataclasses.replace(
            plan,
            state="computed",
            why=again[name],
            done=None,
            replaces=True,
            removed=True,
            tokens=estimate[name](config) if name in estimate else None,
        )
        for name, plan in plans.items()
    }


def _plan(
    stage: Stage, config: RunConfig, inputs: dict[str, str], redo: bool, estimates: bool
) -> StagePlan:
    folder = stage.folder(config.run_dir)
    model_folders = [stage.model_dir(config.run_dir, model) for model in stage.models]
    for path in (folder, *model_folders):
        check_inside(path, config.run_dir)
    done, started, unreadable = _marks(folder, redo)
    earlier = done or started
    found = stage.contents(config) if stage.contents else {}
    settings = {
        **declared_settings(config, stage),
        **flat_settings(dict(stage.own), "study"),
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
            dataclasses.asdict(earlier), made_from(stage, settings, inputs)
        )
        replaces = done is not None or _has_work(folder)
    elif done is not None:
        damage = check_stage_files(stage.home(config.run_dir), folder, done)
        state, why = "reused", _complete(stage, done, config)
        if damage is not None:
            state, why = "computed", damage.what
        replaces = damaged = damage is not None and not damage.is_absent
    elif started is not None:
        state, why = "resumed", "unfinished"
    else:
        # A user who removed the whole folder of a stage wants its models to be made again.
        models = folder.is_dir() and any(path.is_dir() for path in model_folders)
        replaces = damaged = models or _has_work(folder)
        unmarked = (
            f"{folder} holds records or has made models, but no done.json or started.json says "
            "from what"
        )
        why = unmarked if replaces else "no result yet"
    absent = [name for name, content in found.items() if content is None]
    if absent and state != "reused":
        why += f"; missing: {', '.join(absent)}"
    tokens = None
    if estimates and stage.estimate is not None and state != "reused":
        tokens = stage.estimate(config)
    mark = done if state == "reused" else None
    missing = () if state == "reused" else tuple(absent)
    return StagePlan(
        name=stage.name,
        state=state,
        why=why,
        fingerprint=fingerprint,
        settings=settings,
        inputs=inputs,
        tokens=tokens,
        done=mark,
        replaces=replaces,
        damaged=damaged,
        trains=bool(stage.models),
        absent=missing,
    )


def _complete(stage: Stage, done: DoneMark, config: RunConfig) -> str:
    gone = [
        f"models/{model}"
        for model in stage.models
        if is_removed(done, model, stage.model_dir(config.run_dir, model))
    ]
    return f"complete; removed to save disk: {', '.join(gone)}" if gone else "complete"


def _marks(folder: Path, redo: bool) -> tuple[DoneMark | None, StartedMark | None, str | None]:
    """The marks in `done.json`, else `started.json`; with `redo`, the reason why they can't be
    read. Raises RunError.
    """
    try:
        done = read_done(folder)
        return done, None if done else read_started(folder), None
    except RunError as error:
        if not redo:
            raise
        return None, None, str(error).partition(";")[0].partition(": it is damaged")[0]


def _has_work(folder: Path) -> bool:
    """Whether a stage has finished shards or checkpoints."""
    return any(folder.glob("*.parquet")) or any((folder / "work").glob("*"))


def _contents(
    found: Mapping[str, str | None], earlier: DoneMark | StartedMark | None
) -> dict[str, str]:
    """Hashes of what a stage reads from outside the run. Data that is missing now has the hash of
    an earlier attempt.

    The hash of regraded records is kept as well, even if the stage is computed again, so that a
    later stage from before the regrading does not match.
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


def made_from(
    stage: Stage, settings: dict[str, object], inputs: dict[str, str]
) -> dict[str, object]:
    """What a mark says of a stage besides its fingerprint."""
    return {
        "settings": settings,
        "inputs": inputs,
        "stage_version": stage.version,
        "schema_version": SCHEMA_VERSION,
        "versions": package_versions(),
    }


def check_settings(stages: Sequence[Stage], plans: Sequence[StagePlan], config: RunConfig) -> None:
    """Raise the GloreError that a stage to be computed would raise later."""
    to_do = [
        (stage, plan) for stage, plan in zip(stages, plans, strict=True) if plan.state != "reused"
    ]
    for stage, _ in to_do:
        for check in stage.checks:
            check(config)
    for stage, plan in to_do:
        for setting in plan.absent:
            value = functools.reduce(getattr, setting.split("."), config)
            raise DataError(
                f"{setting}: {shown(str(value))} does not exist, and stage {stage.name} reads it; "
                "give a path that exists"
            )


def check_replaces_nothing(
    plans: Sequence[StagePlan], run_dir: Path, of_study: bool = False
) -> None:
    replaced = [plan for plan in plans if plan.replaces]
    if not replaced:
        return
    again = [plan for plan in replaced if plan.removed]
    if again == replaced:
        raise RunError(
            f"{again[0].why} to save disk (keep=final), so {', '.join(p.name for p in again)} must "
            "be computed again, with the same settings; add --redo for that"
        )
    first, *others = [plan for plan in replaced if not plan.removed]
    if first.damaged:
        raise RunError(
            f"stage {first.name} can't be reused: {first.why}. Nothing was removed; restore the "
            "file from a copy, or add --redo to compute the stage again"
        )
    more = f" and {len(others)} after it" if others else ""
    why = first.why
    if again:
        why += f"; {', '.join(p.name for p in again)}, removed to save disk, too"
    if of_study:
        raise RunError(
            f"{run_dir} holds results of the study that would be made otherwise now: stage "
            f"{first.name}{more} ({why}); to replace them, add --redo"
        )
    if first.why.startswith("made from another"):
        raise RunError(
            f"{run_dir}: stage {first.name}{more} no longer matches its inputs ({why}), "
            "which were computed or regraded since; to keep it, give this run another name "
            "(name=…); to replace it, add --redo"
        )
    raise RunError(
        f"{run_dir} holds results of other settings: stage {first.name}{more} ({why}); to "
        "keep them, give this run another name (name=…); to continue with their settings: glore "
        f"run {shlex.quote(str(run_dir / 'config.yaml'))}; to replace them, add --redo"
    )
