"""The real command line over the small stages: `python small_glore.py run …`. No models, no torch.

SMALL_PAUSE_AT=n sleeps a minute in the n-th piece of work (after printing "paused"), SMALL_BUG_AT=n
raises there.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path

import glore
from glore.config import RunConfig
from glore.pipeline import Stage
from glore.records import Refinement
from support.small_stages import small_stages

ticks = iter(range(10_000))


def tick() -> None:
    moment = str(next(ticks))
    if moment == os.environ.get("SMALL_PAUSE_AT"):
        print("paused", flush=True)
        time.sleep(60)
    if moment == os.environ.get("SMALL_BUG_AT"):
        raise KeyError("no such thing\nas this")


def build_stages(config: RunConfig) -> tuple[Stage, ...]:
    return small_stages(tick)


def print_tables(run_dir: Path, console: object) -> None:
    print("the tables")


def build_report(run_dir: Path, studies: Sequence[object] = ()) -> Path:
    return run_dir / "report" / "index.html"


class Refiner:
    """Answers every question with one local refinement."""

    @classmethod
    def from_run(cls, path: Path) -> Refiner:
        assert (path / "config.yaml").exists()
        return cls()

    def __enter__(self) -> Refiner:
        return self

    def __exit__(self, *_: object) -> None: ...

    def refine(self, questions: list[str]) -> list[Refinement]:
        draft = ("1 + 1 = [bold]3[/] \x1b[2J", "#### 3")
        target = ("1 + 1 = 2", "#### 2")
        return [
            Refinement(
                "",
                q,
                draft,
                (0.9, 0.2),
                (0.9, 0.1),
                True,
                1,
                ("draft", "local"),
                (draft, target),
                (0.2, 0.8),
                1,
                "2",
                9,
                0.1,
            )
            for q in questions
        ]

    def cascade(self, questions: list[str], most: int) -> list[Refinement]:
        sample = ("1 + 1 = 2", "#### 2")
        return [
            dataclasses.replace(
                refined,
                sorm_scores=(),
                marked_step=None,
                candidate_kinds=("draft", *["sample"] * most),
                candidates=(refined.draft, *[sample] * most),
                candidate_scores=(0.2, *[0.3] * most),
                chosen=min(most, 1),
            )
            for refined in self.refine(questions)
        ]


def stand_in(name: str, **contents: object) -> None:
    """Replace a package by a module of these contents; its files can still be imported."""
    module = types.ModuleType(name)
    module.__path__ = [str(Path(glore.__file__).parent / name.partition(".")[2])]
    module.__dict__.update(contents)
    sys.modules[name] = module


stand_in("glore.stages", build_stages=build_stages)
stand_in("glore.report", print_tables=print_tables, build_report=build_report)
stand_in("glore.refiner", Refiner=Refiner)

if __name__ == "__main__":
    from glore.cli import main

    main()
