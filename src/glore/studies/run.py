"""Runs a study over a finished run: results in `RUN/studies/NAME`, under the run's lock."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from glore.config import RunConfig
from glore.pipeline import Stage, StagePlan, ancestors, run_stages
from glore.pipeline.folder import write_text
from glore.progress import Progress
from glore.report.table_files import to_csv
from glore.report.views import TableView, to_markdown
from glore.stages import build_stages
from glore.studies.study import Study

__all__ = ["run_study", "study_stages", "study_tables"]


def study_stages(study: Study, config: RunConfig) -> tuple[Stage, ...]:
    """The stages of the run that the study reads, then its own. Raises ValueError for an input that
    is none of them.
    """
    own = tuple(dataclasses.replace(stage, study=study.name) for stage in study.stages(config))
    everything = (*build_stages(config), *own)
    names = {stage.name for stage in everything}
    for stage in own:
        unknown = [name for name in stage.inputs if name not in names]
        if unknown:
            raise ValueError(f"study {study.name}: stage {stage.name} reads unknown {unknown[0]}")
    needed = {source.name for stage in own for source in ancestors(stage, everything)}
    needed |= {stage.name for stage in own}
    return tuple(stage for stage in everything if stage.name in needed)


def run_study(
    study: Study,
    config: RunConfig,
    dry_run: bool = False,
    progress: Progress | None = None,
    redo: bool = False,
) -> tuple[StagePlan, ...]:
    """Run the study's stages, reusing what fits, and write its tables; returns what was planned for
    its stages.

    Tables: `RUN/studies/NAME/tables.md`, and a CSV file each. Raises RunError where the run is not
    finished, or where, without `redo`, results would be replaced.
    """
    stages = study_stages(study, config)
    plans = run_stages(stages, config, dry_run=dry_run, progress=progress, redo=redo)
    if not dry_run:
        _write_tables(study, config, study_tables(study, config))
    return tuple(p for s, p in zip(stages, plans, strict=True) if s.study)


def study_tables(study: Study, config: RunConfig) -> list[TableView]:
    """The tables of a study that has run."""
    return study.tables(config, config.run_dir / "studies" / study.name)


def _write_tables(study: Study, config: RunConfig, views: Sequence[TableView]) -> None:
    folder = config.run_dir / "studies" / study.name
    text = "\n".join([f"# {study.name}\n\n{study.about}\n", *map(to_markdown, views)])
    write_text(folder / "tables.md", text)
    for view in views:
        write_text(folder / f"{view.id}.csv", to_csv(view))
