"""Answers in boxes over the whole list of stages: they count, and what is learnt from ends in an
answer line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import glore.engines.open
import glore.stages.common
from glore.config import EngineSettings, RunConfig
from glore.engines.protocol import Engine
from glore.pipeline import run_stages
from glore.records import Problem, RefinementPair, Solution
from glore.stages import build_stages
from glore.tasks import Grade
from glore.tasks.grading.grade import grade_number_answer
from support.fakes import FunctionEngine
from support.pretend_models import Oracle, World, all_problems, config_of, pretend, read_stage


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return pretend(monkeypatch)


class BoxedOracle(Oracle):
    """Grades as the tasks on given data do."""

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        return grade_number_answer(problem.answer, steps, boxed=True)


def test_what_is_learnt_from_boxes_ends_in_an_answer_line(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines_of = world.engine

    def engine(model: str | Path, settings: EngineSettings, *, logs_warning: bool = True) -> Engine:
        inner = lines_of(model, settings)
        assert isinstance(inner, FunctionEngine)
        usual = inner._answer
        return FunctionEngine(
            lambda request, seed: usual(request, seed).replace("#### 10", r"So it is \boxed{10}.")
        )

    monkeypatch.setattr(
        glore.stages.common, "open_task", lambda settings, seed, *_: BoxedOracle(all_problems())
    )
    monkeypatch.setattr(glore.engines.open, "open_engine", engine)
    config = config_of(tmp_path)
    run_stages(build_stages(config), config, until="refiner")
    samples = [
        s
        for s in read_stage(config, "samples", Solution)
        if isinstance(s, Solution) and s.correct == "right"
    ]
    right = [
        s for s in read_stage(config, "ei1_train", Solution, "right") if isinstance(s, Solution)
    ]
    pairs = [
        p for p in read_stage(config, "pairs", RefinementPair) if isinstance(p, RefinementPair)
    ]
    assert samples
    assert right
    assert pairs
    assert {s.steps[-1] for s in samples} == {r"So it is \boxed{10}."}, (
        "what was sampled stays as it is"
    )
    assert {s.steps[-2:] for s in right} == {(r"So it is \boxed{10}.", "#### 10")}
    assert {p.target_steps[-1] for p in pairs} == {"#### 10"}
    assert {e.target[-1] for e in world.trained["ei1"]} == {"#### 10\n"}  # type: ignore[attr-defined]


def test_where_the_answer_may_stand_is_part_of_what_every_grading_stage_is_made_from(
    tmp_path: Path,
) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(
            f'{{"question": "{split}?", "answer": "#### 5"}}\n'
        )
    data = config_of(tmp_path).model_dump()
    plans = {}
    for boxed in (True, False):
        config = RunConfig.model_validate(
            {**data, "task": {"kind": "gsm8k", "path": str(tmp_path), "boxed": boxed}}
        )
        plans[boxed] = {
            p.name: p.fingerprint for p in run_stages(build_stages(config), config, dry_run=True)
        }
    assert {name for name in plans[True] if plans[True][name] == plans[False][name]} == {"base"}
