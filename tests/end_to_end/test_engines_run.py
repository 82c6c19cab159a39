"""A whole run through other engines: the same records as with the torch engine in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from glore import load_config, run
from glore.config import RunConfig
from glore.pipeline.integrity import part_files
from glore.pipeline.marks import read_done
from glore.records import PrefixTrials, Solution, StepScores, read_records
from support.engine_kinds import serving
from support.tiny_recipe import tiny_recipe

pytestmark = pytest.mark.slow
STAGES = ("ei1_samples", "samples", "test_drafts", "test_samples", "test_refinements")


def config_of(folder: Path, *overrides: str) -> RunConfig:
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(tiny_recipe("tiny"))
    return load_config(
        folder / "tiny.yaml", [f"runs_dir={folder / 'runs'}", "engine.device=cpu", *overrides]
    )


def records(config: RunConfig) -> dict[str, list[object]]:
    solutions = {
        f"{stage}/{part.name}": read_records([part], Solution)
        for stage in STAGES
        for part in sorted((config.run_dir / "stages" / stage).glob("*.parquet"))
        if not part.name.startswith("truth")
    }
    return {
        **solutions,
        "rollouts": read_records(
            part_files(config.run_dir / "stages" / "rollouts", "part"), PrefixTrials
        ),
        "scores": read_records(
            part_files(config.run_dir / "stages" / "test_draft_scores", "sorm"), StepScores
        ),
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    config = config_of(tmp_path_factory.mktemp("torch"))
    run(config)
    return records(config)


def test_a_run_whose_models_are_served_as_they_appear(
    alone: dict[str, list[object]], tmp_path: Path
) -> None:
    with serving(tmp_path / "runs" / "tiny" / "models", "") as server:
        config = config_of(
            tmp_path, "engine.kind=http", f"engine.url={server.url}", "engine.concurrency=4"
        )
        run(config)
    assert records(config) == alone


def test_a_run_with_a_pool(alone: dict[str, list[object]], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    config = config_of(
        tmp_path,
        "engine.kind=ray",
        "engine.address=local",
        "engine.workers=2",
        "engine.cpus_per_worker=0.5",
        "engine.scoring=pool",
    )
    run(config)
    ray.shutdown()
    scored = read_done(config.run_dir / "stages" / "test_scores")
    assert scored is not None
    assert scored.backends["sorm"].startswith("ray × 2 (")
    assert records(config) == alone
    assert run(config_of(tmp_path)) == config.run_dir  # the same results, so torch takes them over
