"""recipes/small.yaml with the pretrained model it is written for: `make smollm2` fetches it."""

from __future__ import annotations

from pathlib import Path

import pytest

from glore import load_config, run
from glore.pipeline.marks import read_done
from glore.stages import build_stages

ROOT = Path(__file__).parents[2]
MODEL = ROOT / ".cache" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.slow
@pytest.mark.skipif(not MODEL.exists(), reason="SmolLM2-135M is not here; make smollm2 fetches it")
def test_a_pretrained_model_goes_through_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config("recipes/small.yaml", [f"runs_dir={tmp_path}"])
    run(config)
    marks = [read_done(config.run_dir / "stages" / s.name) for s in build_stages(config)]
    assert all(mark is not None for mark in marks)
    samples = next(m for m in marks if m is not None and m.stage == "samples")
    assert samples.counts["right"] > 0
