"""The cost model against the method's formula and a simulation, and its table against the
documentation.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from glore.where.scan import WAVES, expected_rollouts

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "cost_model", ROOT / "benchmarks" / "cost_model.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def simulated(p: list[float], k: int, waves: tuple[int, ...], n: int, rng: random.Random) -> float:
    drawn = 0
    for _ in range(n):
        for rate in reversed(p):
            left, success = k, False
            for wave in (*waves, k):
                size = min(wave, left)
                drawn, left = drawn + size, left - size
                success = any(rng.random() < rate for _ in range(size))
                if success or not left:
                    break
            if success:
                break
    return drawn / n


@pytest.mark.parametrize(
    ("p", "k"), [([0.3, 0.3, 0.02, 0.02], 8), ([0.5], 4), ([0.01, 0.9, 0.2], 2)]
)
def test_rollouts_of_the_scan(model: ModuleType, p: list[float], k: int) -> None:
    assert sum(model.scanned(p, k, (1,) * k)) == pytest.approx(expected_rollouts(p, k))
    assert sum(model.scanned(p, k, WAVES)) == pytest.approx(
        simulated(p, k, WAVES, 20_000, random.Random(0)), rel=0.03
    )
    assert sum(model.scanned(p, k, WAVES)) >= expected_rollouts(p, k)


def test_parts_in_small(model: ModuleType) -> None:
    task = model.Task(
        questions=2, prompt_tokens=10, steps=3, step_tokens=5, p_before_error=1.0, p_after_error=0.0
    )
    full = model.full_counts(task, drafts=4, k=8)
    assert (full.completions, full.drawn) == (2 * 4 * 8 * 2, 2 * 4 * 8 * (10 + 5))
    assert full.read_alone == 2 * 4 * 8 * (15 + 20)
    assert full.read_shared == 2 * 10 + 2 * 4 * 10
    lazy = model.lazy_scan(task, drafts=4, k=8, accuracy=0.5)
    # Errors at step 1, 2, 3: 8 + 8, 8 + 1 and 1 rollouts.
    assert lazy.completions == pytest.approx(2 * 4 * 0.5 * (16 + 9 + 1) / 3)
    assert model.samples(task, 96).drawn == 2 * 96 * 15


def test_hours_grow_with_the_model_and_fall_with_sharing_and_a_faster_gpu(
    model: ModuleType,
) -> None:
    task = model.Task()
    work = model.full_counts(task, 8, 8)
    small, large = model.MODELS
    h100, a100 = model.GPUS["h100"], model.GPUS["a100"]
    hours = model.gpu_hours(work, task, small, h100, shared=True)
    assert hours < model.gpu_hours(work, task, small, h100, shared=False)
    assert hours < model.gpu_hours(work, task, large, h100, shared=True)
    assert hours < model.gpu_hours(work, task, small, a100, shared=True)


@pytest.mark.parametrize("gpu", ["h100", "a100"])
def test_the_documentation_shows_the_table_as_it_is(model: ModuleType, gpu: str) -> None:
    assert model.table(model.GPUS[gpu], model.Task(), 96, 8, 8) in (
        ROOT / "docs" / "cluster.md"
    ).read_text(encoding="utf-8")
