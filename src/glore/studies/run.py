"""Runs a study over a finished run: results in `RUN/studies/NAME`, under the run's lock."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from glore.config import RunConfig
from glore.errors import GloreError, RunError
from glore.files import read_given
from glore.pipeline import Stage, StagePlan, ancestors, plan_stages, run_stages
from glore.pipeline.folder import write_json
from glore.progress import Progress
from glore.report.studied import StudySection, write_study
from glore.report.views import TableView
from glore.stages import build_stages
from glore.studies.study import Study, configured, find_study

__all__ = [
    "given_settings",
    "run_study",
    "study_section",
    "study_sections",
    "study_stages",
    "study_tables",
]

SETTINGS = "settings.json"
"""The study's own settings, in its folder."""
MAX_BYTES = 1 << 20


def study_stages(study: Study, config: RunConfig) -> tuple[Stage, ...]:
    """The stages of the run that the study reads, those of other studies (`Study.after`), then its
    own. Raises ValueError for an input that is none of them.
    """
    own = _named(study, config)
    others = (stage for name in study.after for stage in _named(find_study(name), config))
    everything = (*build_stages(config), *others, *own)
    names = {stage.name for stage in everything}
    for stage in own:
        unknown = [name for name in stage.inputs if name not in names]
        if unknown:
            raise ValueError(f"study {study.name}: stage {stage.name} reads unknown {unknown[0]}")
    needed = {source.name for stage in own for source in ancestors(stage, everything)}
    needed |= {stage.name for stage in own}
    return tuple(stage for stage in everything if stage.name in needed)


def _named(study: Study, config: RunConfig) -> tuple[Stage, ...]:
    return tuple(dataclasses.replace(stage, study=study.name) for stage in study.stages(config))


def run_study(
    study: Study,
    config: RunConfig,
    dry_run: bool = False,
    progress: Progress | None = None,
    redo: bool = False,
) -> tuple[StagePlan, ...]:
    """Run the study's stages, reusing what fits, and write its tables and charts; returns what was
    planned for its stages.

    In `RUN/studies/NAME`: `tables.md`, a CSV and a LaTeX file for each table and chart, an SVG file
    for each chart. Raises RunError where the run is not finished, or where, without `redo`, results
    would be replaced.
    """
    stages = study_stages(study, config)
    plans = run_stages(stages, config, dry_run=dry_run, progress=progress, redo=redo)
    if not dry_run:
        folder = _folder(study, config)
        write_json(folder / SETTINGS, study.settings.model_dump(mode="json"))
        write_study(folder, study_section(study, config))
    return tuple(p for s, p in zip(stages, plans, strict=True) if s.study)


def study_tables(study: Study, config: RunConfig) -> list[TableView]:
    """The tables of a study that has run."""
    return study.tables(config, _folder(study, config))


def study_section(study: Study, config: RunConfig) -> StudySection:
    """What a study that has run found."""
    folder = _folder(study, config)
    return StudySection(
        study.name,
        study.asked,
        tuple(study.tables(config, folder)),
        tuple(study.charts(config, folder)),
        tuple(study.findings(config, folder)),
    )


def study_sections(config: RunConfig) -> list[StudySection]:
    """A section for every study in the run's folder, by name. One whose results are not those of
    the run as it is now, or can't be read, says so in `stale` and shows no numbers.
    """
    folders = sorted(p for p in (config.run_dir / "studies").glob("*") if p.is_dir())
    return [_section(folder.name, config) for folder in folders]


def _section(name: str, config: RunConfig) -> StudySection:
    again = f"run it again: glore study {name} {config.run_dir}"
    about = ""
    try:
        study = find_study(name)
        about = study.about
        study = configured(study, given_settings(config.run_dir / "studies" / name))
        plans = plan_stages(study_stages(study, config), config, estimates=False)
        to_do = [plan for plan in plans if plan.state != "reused"]
        if to_do:
            why = f"its stage {to_do[0].name} would be {to_do[0].state} ({to_do[0].why})"
            return StudySection(name, about, stale=f"The results are not shown: {why}; {again}.")
        return study_section(study, config)
    except GloreError as error:
        return StudySection(name, about, stale=f"The results can't be read: {error}; {again}.")


def given_settings(folder: Path) -> dict[str, object]:
    """The settings that the study in a folder had; empty if it has not run. Raises RunError."""
    path = folder / SETTINGS
    if not path.exists():
        return {}
    try:
        found = json.loads(read_given(path, MAX_BYTES))
    except (OSError, ValueError) as error:
        raise RunError(f"can't read {path}: {error}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} holds no settings; remove it")
    return found


def _folder(study: Study, config: RunConfig) -> Path:
    return config.run_dir / "studies" / study.name
