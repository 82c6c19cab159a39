"""A stage's models: closed when it ends or fails, named in `done.json`, warned of once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from glore.cli.display import stage_backends
from glore.config import RunConfig
from glore.errors import EngineError
from glore.pipeline import Stage, StageContext, plan_stages, run_stages
from glore.pipeline.marks import DoneMark, read_done
from glore.stages import build_stages
from support.fakes import FunctionEngine
from support.pretend_models import World, config_of, pretend
from support.small_stages import small_config


class SlowEngine(FunctionEngine):
    """Its backend is known late, like that of a pool, and slow."""

    backend = "pool"

    def __init__(self) -> None:
        super().__init__(lambda request, seed: "")

    def start(self) -> None:
        self.backend = "pool (fallback)"
        self.warning = "the fallback is used, many times slower"


class Notes:
    """A Progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, what: str, total: int, unit: str) -> None: ...

    def advance(self, n: int = 1, tokens: int = 0) -> None: ...

    def note(self, message: str) -> None:
        self.notes.append(message)


def mark_of(config: RunConfig, stage: str) -> DoneMark:
    mark = read_done(config.run_dir / "stages" / stage)
    assert mark is not None
    return mark


@pytest.mark.parametrize("fails", [None, EngineError, KeyboardInterrupt])
def test_what_a_stage_keeps_is_closed_when_it_ends_and_when_it_fails(
    fails: type[BaseException] | None, tmp_path: Path
) -> None:
    engines = [FunctionEngine(lambda request, seed: "") for _ in range(2)]

    def work(ctx: StageContext) -> None:
        for name, engine in zip(("student", "orm"), engines, strict=True):
            assert ctx.keep(engine, name) is engine
        ctx.release("student")
        ctx.release("student")
        assert [engine.is_closed for engine in engines] == [True, False]
        if fails:
            raise fails("in the middle")

    def run() -> None:
        run_stages([Stage("one", work)], small_config(tmp_path))

    if fails:
        with pytest.raises(fails, match="in the middle"):
            run()
    else:
        run()
        found = mark_of(small_config(tmp_path), "one").backends
        assert found == {"student": "function", "orm": "function"}
    assert all(engine.is_closed for engine in engines)


def test_one_that_fails_to_close_does_not_keep_the_others_open(tmp_path: Path) -> None:
    class Broken(FunctionEngine):
        def _free(self) -> None:
            raise EngineError("its process is gone")

    engine = FunctionEngine(lambda request, seed: "")

    def work(ctx: StageContext) -> None:
        ctx.keep(engine, "student")
        ctx.keep(Broken(lambda request, seed: ""), "orm")

    with pytest.raises(EngineError, match="its process is gone"):
        run_stages([Stage("one", work)], small_config(tmp_path))
    assert engine.is_closed


def test_the_backend_is_noted_and_a_slow_one_is_warned_of_once_a_model(tmp_path: Path) -> None:
    def work(ctx: StageContext) -> None:
        for name in ("student", "refiner"):
            ctx.keep(SlowEngine(), name).start()
            ctx.release(name)

    config, notes = small_config(tmp_path), Notes()
    run_stages([Stage("one", work), Stage("two", work)], config, progress=notes)
    said = "student: the fallback is used, many times slower"
    assert mark_of(config, "one").warnings == (said, said.replace("student", "refiner"))
    assert mark_of(config, "two").warnings == ()
    for stage in ("one", "two"):
        backend = "pool (fallback)"
        assert mark_of(config, stage).backends == {"student": backend, "refiner": backend}
    assert [n.strip() for n in notes.notes if "warning: student" in n] == [f"warning: {said}"]
    assert [n.strip() for n in notes.notes if n.strip() == "student: pool"] == ["student: pool"] * 2
    plans = plan_stages([Stage("one", work), Stage("two", work)], config)
    assert stage_backends(plans, config.run_dir) == [
        "pool (fallback): refiner (one and 1 more), student (one and 1 more)"
    ]


def test_the_stages_of_a_run_close_every_model_they_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world: World = pretend(monkeypatch)
    open_engine: Callable[..., FunctionEngine] = world.engine  # type: ignore[assignment]

    def alone(*args: object, **kwargs: object) -> FunctionEngine:
        others = [e for engines in world.engines.values() for e in engines if not e.is_closed]
        assert others == [], "one engine is closed before the next is opened"
        return open_engine(*args, **kwargs)

    monkeypatch.setattr("glore.engines.open.open_engine", alone)
    config = config_of(tmp_path)
    run_stages(build_stages(config), config)
    assert all(e.is_closed for engines in world.engines.values() for e in engines)
    assert mark_of(config, "test_drafts").backends == {"student": "function"}
    scored = mark_of(config, "test_draft_scores").backends
    assert scored == dict.fromkeys(("orm", "balanced_orm", "sorm"), "table")
