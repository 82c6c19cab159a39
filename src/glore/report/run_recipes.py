"""What finished runs were made with, told apart: are two runs seeds of one recipe?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.errors import RunError, shown
from glore.pipeline.chosen import with_engine
from glore.pipeline.fingerprints import read_settings
from glore.pipeline.integrity import check_belongs_together
from glore.pipeline.marks import read_done
from glore.pipeline.recorded import made_with, marks_behind
from glore.stages import build_stages

__all__ = [
    "Recipe",
    "changed_settings",
    "check_given_once",
    "recipe_of",
    "run_names",
    "some_of",
    "tables_made_with",
]

Recipe = dict[str, object]
"""What a run's results depend on, but its seed: dotted setting → value; hashes of local data."""
SHOWN_SETTINGS = 4
"""As many settings are shown in which a run differs from another."""


def check_given_once(run_dirs: Sequence[Path]) -> None:
    """Raise RunError where a run is given twice."""
    places = [folder.resolve() for folder in run_dirs]
    twice = next((d for d, p in zip(run_dirs, places, strict=True) if places.count(p) > 1), None)
    if twice is not None:
        raise RunError(f"{twice} is given twice; give each run once")


def tables_made_with(run_dir: Path) -> RunConfig:
    """The settings that the tables of a run were made with. Raises RunError where it isn't
    finished.
    """
    if read_done(run_dir / "stages" / "evaluate") is None:
        raise RunError(
            f"run {run_dir} is not finished (its stage evaluate is not done), so it can't be "
            f"compared; finish it with: glore run {shlex.quote(str(run_dir / 'config.yaml'))}"
        )
    made = with_engine(made_with(run_dir, ["evaluate"])).config
    check_belongs_together(run_dir, [stage.name for stage in build_stages(made)])
    return made


def recipe_of(run_dir: Path, made: RunConfig) -> Recipe:
    """What the results of the run in a folder depend on; `made`: its settings."""
    flat: Recipe = {}
    for stage in build_stages(made):
        flat |= read_settings(made, stage)
    for mark in marks_behind(run_dir, ["evaluate"]):
        flat |= {k: v for k, v in mark.settings.items() if k.startswith("content of ")}
    return flat


def changed_settings(first: Recipe, other: Recipe) -> tuple[str, ...]:
    """Settings in which two recipes differ, as `path: first → other`."""
    return tuple(
        f"{path}: {shown(first.get(path), 40)} → {shown(other.get(path), 40)}"
        for path in sorted({*first, *other})
        if first.get(path) != other.get(path)
    )


def some_of(changed: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(changed) - SHOWN_SETTINGS
    return "; ".join(changed[:SHOWN_SETTINGS]) + (f"; and {more} more" if more > 0 else "")


def run_names(run_dirs: Sequence[Path]) -> list[str]:
    """The folders' names, with as many folders above them as it takes to differ."""
    parts = [folder.resolve().parts for folder in run_dirs]
    n = 1
    while len({p[-n:] for p in parts}) < len(parts):
        n += 1
    return ["/".join(p[-n:]) for p in parts]
