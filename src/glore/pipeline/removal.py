"""Removes models that no stage reads any more (`keep: final`), and finds what is needed again.

A stage whose model was removed counts as complete: its `done.json` names the model and the reason.
If a stage that opens the model has to be computed later, the one that makes it is computed again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from glore.adapter_folder import adapter_base, is_adapter
from glore.config import RunConfig
from glore.errors import RunError
from glore.files import remove_folder
from glore.pipeline.folder import write_json
from glore.pipeline.integrity import check_inside, is_removed
from glore.pipeline.marks import DoneMark, read_done
from glore.pipeline.stage import Stage, opened_models
from glore.progress import Progress

__all__ = ["made_again", "readers_of", "remove_unread"]


def remove_unread(
    stages: Sequence[Stage], done: Collection[str], config: RunConfig, progress: Progress
) -> None:
    """Remove the models that only stages in `done` open, but those that a stage delivers.

    `stages`: all of the run, also those that are not computed now. The caller holds the run's lock.
    A mark says first what is removed, so a kill in between leaves a model too many, not a damaged
    run. Raises RunError when the disk refuses.
    """
    run_dir = config.run_dir
    found = {s.name: read_done(s.folder(run_dir)) for s in stages if s.name in done}
    marks = {name: mark for name, mark in found.items() if mark is not None}
    for stage in stages:
        for model in stage.models if stage.name in marks else ():
            folder = stage.model_dir(run_dir, model)
            if model in stage.delivers or model not in marks[stage.name].models:
                continue
            readers = readers_of(model, stages, marks, config)
            if not folder.is_dir() or set(readers) - set(done) or _carries_another(folder):
                continue
            check_inside(folder, run_dir)
            last = f"no stage after {readers[-1]} opens it" if readers else "no stage opens it"
            marks[stage.name] = mark = _with_removed(marks[stage.name], model, last)
            write_json(stage.folder(run_dir) / "done.json", dataclasses.asdict(mark))
            _remove(folder)
            progress.note(f"models/{model} is removed to save disk: {last} (keep=final)")


def readers_of(
    model: str, stages: Sequence[Stage], marks: Mapping[str, DoneMark], config: RunConfig
) -> list[str]:
    """The stages that open a model of the run, in their order. `marks`: of the finished stages;
    they may spare it some.
    """
    spared = {name for mark in marks.values() for name in mark.spared.get(model, ())}
    return [
        stage.name
        for stage in stages
        if stage.name not in spared and model in opened_models(stage, stages, config)
    ]


def made_again(
    stages: Sequence[Stage],
    to_do: Collection[str],
    marks: Mapping[str, DoneMark],
    config: RunConfig,
) -> dict[str, str]:
    """Finished stage that has to be computed again → why: its model was removed, and a stage in
    `to_do`, or another one that is computed again, opens it. `marks`: of the finished stages.
    """
    maker = {model: stage for stage in stages for model in stage.models}
    found: dict[str, str] = {}
    for reader in reversed(stages):
        if reader.name not in to_do and reader.name not in found:
            continue
        for model in sorted(opened_models(reader, stages, config)):
            mark = marks.get(maker[model].name)
            if (
                mark is not None
                and is_removed(mark, model, maker[model].model_dir(config.run_dir, model))
                and reader.name in readers_of(model, stages, marks, config)
            ):
                found.setdefault(
                    maker[model].name, f"{reader.name} opens models/{model}, which was removed"
                )
    return found


def _carries_another(folder: Path) -> bool:
    """Whether an adapter beside this model changes it, and so can't be loaded without it."""
    return any(
        is_adapter(other) and Path(adapter_base(other)) == folder.resolve()
        for other in folder.parent.iterdir()
        if other != folder and not other.name.startswith(".")
    )


def _with_removed(mark: DoneMark, model: str, why: str) -> DoneMark:
    return dataclasses.replace(mark, removed={**mark.removed, model: why})


def _remove(folder: Path) -> None:
    try:
        remove_folder(folder)
    except OSError as error:
        raise RunError(
            f"can't remove {folder}: {error.strerror or error}; remove it by hand, then run again"
        ) from error
