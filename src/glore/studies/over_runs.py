"""Runs a study over several runs of one recipe, and writes its tables over all of them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.errors import RunError
from glore.pipeline import StagePlan, run_stages
from glore.pipeline.integrity import recorded_files
from glore.pipeline.reuse import check_replaces_nothing
from glore.progress import Progress
from glore.records import Problem, read_records, write_records
from glore.report.run_recipes import (
    changed_settings,
    check_given_once,
    recipe_of,
    run_names,
    some_of,
    tables_made_with,
)
from glore.report.studied import StudySection, write_study
from glore.studies.measured import Measured, Observed
from glore.studies.observed import observations
from glore.studies.pooled import SeedRun, pooled_numbers, seed_views
from glore.studies.run import given_settings, run_study, study_stages
from glore.studies.study import Study

__all__ = ["plan_over_runs", "pool_study", "study_over_runs"]

SPLITS = ("train", "dev", "test")


def plan_over_runs(
    study: Study, configs: Sequence[RunConfig], redo: bool = False
) -> list[tuple[StagePlan, ...]]:
    """What the study would do in each run; nothing is changed.

    Raises RunError where the runs differ in more than the seed, where two have the same seed, where
    one isn't finished, and, without `redo`, where one has the study with other settings.
    """
    folders = [config.run_dir for config in configs]
    check_given_once(folders)
    made = [tables_made_with(folder) for folder in folders]
    first, *others = [recipe_of(d, m) for d, m in zip(folders, made, strict=True)]
    for folder, other in zip(folders[1:], others, strict=True):
        if changed := changed_settings(first, other):
            raise RunError(
                f"{folder} was made with other settings than {folders[0]} ({some_of(changed)}); a "
                "study is pooled over runs of one recipe that differ in the seed alone"
            )
    seeds = [m.seed for m in made]
    twice = next((s for s in seeds if seeds.count(s) > 1), None)
    if twice is not None:
        same = [str(f) for f, s in zip(folders, seeds, strict=True) if s == twice]
        raise RunError(
            f"{same[0]} and {same[1]} both have seed {twice}, so the same questions would count "
            f"twice; make a run with another seed: glore run "
            f"{shlex.quote(same[1] + '/config.yaml')} seed=N name=…"
        )
    plans = []
    for config in configs:
        if not redo:
            _check_settings(study, config)
        stages = study_stages(study, config)
        planned = run_stages(stages, config, dry_run=True, redo=redo)
        if not redo:
            check_replaces_nothing(planned, config.run_dir, of_study=True)
        plans.append(tuple(p for s, p in zip(stages, planned, strict=True) if s.study))
    return plans


def _check_settings(study: Study, config: RunConfig) -> None:
    """Raise RunError where the run has the study with other settings."""
    folder = config.run_dir / "studies" / study.name
    earlier, asked = given_settings(folder), study.settings.model_dump(mode="json")
    changed = [
        f"{name}={earlier[name]}, not {asked[name]}"
        for name in asked
        if name in earlier and earlier[name] != asked[name]
    ]
    if changed:
        raise RunError(
            f"{folder} holds the study with other settings ({'; '.join(changed)}); give its "
            "settings for all runs, or add --redo to compute it again"
        )


def study_over_runs(
    study: Study,
    configs: Sequence[RunConfig],
    out: Path,
    progress: Progress | None = None,
    redo: bool = False,
) -> StudySection:
    """Run the study where it is missing, in every run, and write its tables over all runs to `out`.

    Raises RunError as `plan_over_runs` does, before anything is computed.
    """
    _check_out(out)
    plan_over_runs(study, configs, redo)
    for config in configs:
        if progress is not None:
            progress.note(f"study {study.name} of {config.run_dir}")
        run_study(study, config, progress=progress, redo=redo)
    return pool_study(study, configs, out)


def pool_study(study: Study, configs: Sequence[RunConfig], out: Path) -> StudySection:
    """Write the tables of a study that has run on all these runs, over all their questions.

    In `out`: `tables.md`, a CSV and a LaTeX file for each table and chart, an SVG file for each
    chart, the numbers seed by seed, and the pooled numbers as records. The order of the runs
    changes nothing.
    """
    configs = sorted(configs, key=lambda config: config.seed)
    names = run_names([config.run_dir for config in configs])
    found = [observations(study, config) for config in configs]
    n_draws = configs[0].evaluation.bootstrap_samples
    measured = []
    for stage in dict.fromkeys(stage for numbers in found for stage in numbers):
        runs = [
            _seed_run(name, config, numbers.get(stage, []))
            for name, config, numbers in zip(names, configs, found, strict=True)
        ]
        pooled = pooled_numbers(runs, n_draws, configs[0].seed)
        write_records(out / "stages" / stage / "part-00000.parquet", Measured, pooled)
        measured.append((runs, pooled))
    over = ", ".join(f"{n} (seed {c.seed})" for n, c in zip(names, configs, strict=True))
    section = StudySection(
        study.name,
        f"{study.asked} Over the test questions of {len(configs)} runs of one recipe: {over}.",
        tuple(study.tables(configs[0], out)),
        tuple(study.charts(configs[0], out)),
        tuple(study.findings(configs[0], out)),
    )
    titles = {view.id: view.title for view in section.tables}
    views = [view for runs, pooled in measured for view in seed_views(runs, pooled, titles)]
    write_study(out, dataclasses.replace(section, tables=(*section.tables, *views)))
    return section


def _seed_run(name: str, config: RunConfig, numbers: Sequence[Observed]) -> SeedRun:
    stage = config.run_dir / "stages" / "problems"
    problems = (p for split in SPLITS for p in read_records(recorded_files(stage, split), Problem))
    questions = {p.id: " ".join(p.question.split()) for p in problems}
    return SeedRun(name, config.seed, questions, numbers)


def _check_out(out: Path) -> None:
    """Raise RunError for a folder of a run, whose records would be written over."""
    for folder in (out, *out.resolve().parents):
        if (folder / "config.yaml").exists() and (folder / "stages").exists():
            raise RunError(
                f"{out} is, or is inside, the folder of the run {folder}; give another folder for "
                "the tables over all runs: --out FOLDER"
            )
