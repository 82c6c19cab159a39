"""A stage as data: what it reads, what it makes, and the function that does it.

The fingerprint of a stage is computed from these declarations, and the function gets a view of the
settings that refuses every other read (`glore.pipeline.view`). So a result can't be reused after a
setting that it depends on has changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.pipeline.context import StageContext

__all__ = ["Stage", "ancestors", "declare", "opened_models"]


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run."""

    name: str
    run: Callable[[StageContext], None]
    inputs: tuple[str, ...] = ()
    """Stages whose records or models it reads; each stands earlier in the list."""
    reads: tuple[str, ...] = ()
    """Settings that its result depends on, as dotted paths; a section stands for all below it. The
    run's seed is always one. What an input reads may be read too: the input's fingerprint is part
    of this stage's.
    """
    without: tuple[str, ...] = ()
    """Settings below `reads` that it does not read after all."""
    uses: tuple[str, ...] = ()
    """Settings that it reads and that change no result: where the work is done, and what is refused
    before it.
    """
    models: tuple[str, ...] = ()
    """Models that it makes: folders below models/. No other stage makes them."""
    delivers: tuple[str, ...] = ()
    """Those of its models that are used after the run, so `keep: final` leaves them."""
    opens: Callable[[RunConfig], tuple[str, ...]] | None = None
    """Models of earlier stages that it opens; none: it may open any of them. What no stage to be
    computed opens is removed with `keep: final`.
    """
    contents: Callable[[RunConfig], Mapping[str, str | None]] | None = None
    """What it reads from outside the run: setting that names it → hash of the content. None: not
    there now, so it can't have changed.
    """
    estimate: Callable[[RunConfig], int] | None = None
    """Tokens that it will generate or train on, roughly, for `--dry-run`."""
    checks: tuple[Callable[[RunConfig], None], ...] = ()
    """Each raises what the stage would refuse of the settings. They are called for every stage that
    is not reused, before the first of them begins.
    """
    version: int = 1
    """Raise it when the stage's code changes what comes out."""
    own: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """Values that its result depends on and that are no settings of the run: those of a study."""
    study: str = ""
    """The study that it belongs to; empty: the run itself."""

    def home(self, run_dir: Path) -> Path:
        """The folder that holds the `stages/` and `models/` it writes to."""
        return run_dir / "studies" / self.study if self.study else run_dir

    def folder(self, run_dir: Path) -> Path:
        """Where its records and marks are."""
        return self.home(run_dir) / "stages" / self.name

    def model_dir(self, run_dir: Path, model: str) -> Path:
        """Where it saves a model that it makes."""
        return self.home(run_dir) / "models" / model


def declare(
    name: str,
    *,
    inputs: tuple[str, ...] = (),
    reads: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    uses: tuple[str, ...] = (),
    models: tuple[str, ...] = (),
    delivers: tuple[str, ...] = (),
    opens: Callable[[RunConfig], tuple[str, ...]] | None = None,
    contents: Callable[[RunConfig], Mapping[str, str | None]] | None = None,
    estimate: Callable[[RunConfig], int] | None = None,
    checks: tuple[Callable[[RunConfig], None], ...] = (),
    version: int = 1,
    own: Mapping[str, object] | None = None,
) -> Callable[[Callable[[StageContext], None]], Stage]:
    """Decorator: the function becomes the `Stage` that runs it. The fields are those of `Stage`."""

    def declared(run: Callable[[StageContext], None]) -> Stage:
        return Stage(
            name=name,
            run=run,
            inputs=inputs,
            reads=reads,
            without=without,
            uses=uses,
            models=models,
            delivers=delivers,
            opens=opens,
            contents=contents,
            estimate=estimate,
            checks=checks,
            version=version,
            own=own or {},
        )

    return declared


def ancestors(stage: Stage, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages that this one comes from, in the order of `stages`."""
    by_name = {s.name: s for s in stages}
    found: set[str] = set()
    queue = list(stage.inputs)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue.extend(by_name[name].inputs)
    return tuple(s for s in stages if s.name in found)


def opened_models(stage: Stage, stages: Sequence[Stage], config: RunConfig) -> frozenset[str]:
    """The models of earlier stages that this one may open."""
    made = {model for source in ancestors(stage, stages) for model in source.models}
    return frozenset(made if stage.opens is None else made & set(stage.opens(config)))
