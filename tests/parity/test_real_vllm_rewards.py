"""Reward models on vLLM's pooling runner (`make test-vllm`): at the places that we name, its
probabilities are our scores, in process and from its server.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import glore
from glore.config import EngineSettings
from glore.reward_models.open import open_reward_model
from parity.test_reward_models import ITEMS
from support.real_vllm import served, small_cache
from support.reward_checkpoints import save_checkpoint

pytestmark = pytest.mark.vllm
HIDDEN = 128
"""Heads of the least size that vLLM's attention takes (32)."""
ROUNDING = {"float32": 1e-4, "bfloat16": 0.15}


def folder_of(kind: str, tmp_path: Path) -> Path:
    """A model in the files of others, or what we write of it."""
    if kind == "qwen":
        return save_checkpoint("qwen", tmp_path / "qwen", HIDDEN)
    source = save_checkpoint(kind, tmp_path / kind, HIDDEN)
    layout = kind if kind in ("math_shepherd", "rlhflow") else None
    return glore.export_reward_model(source, tmp_path / "written", layout)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("trl", "float32"), ("rlhflow", "float32"), ("qwen", "float32"), ("trl", "bfloat16")],
)
def test_pooled_probabilities_are_our_scores(kind: str, dtype: str, tmp_path: Path) -> None:
    from vllm import LLM
    from vllm.config import PoolerConfig

    small_cache()
    folder = folder_of(kind, tmp_path)
    solutions = glore.encode_solutions(folder, ITEMS)
    with open_reward_model(folder, engine=EngineSettings(dtype="float32")) as scorer:
        expected = scorer.score(ITEMS)
    llm: Any = LLM(
        model=str(folder),
        runner="pooling",
        dtype=dtype,
        max_num_seqs=4,
        gpu_memory_utilization=0.1,
        enforce_eager=True,
        # Qwen's own class gives the tokens `<extra_0>` alone; the others give all anyway.
        pooler_config=PoolerConfig(tok_pooling_type="ALL"),
    )
    try:
        prompts = [{"prompt_token_ids": s.token_ids} for s in solutions]
        outputs = llm.encode(prompts, pooling_task="token_classify")
    finally:
        llm.llm_engine.engine_core.shutdown()
    for solution, output, values in zip(solutions, outputs, expected, strict=True):
        probabilities = output.outputs.data
        assert probabilities.shape == (len(solution.token_ids), 2)
        got = [float(p) for p in probabilities[solution.positions, 1]]
        assert got == pytest.approx(values, abs=ROUNDING[dtype])


def test_the_pooling_endpoint_of_its_server_gives_our_scores(tmp_path: Path) -> None:
    small_cache()
    folder = folder_of("skywork", tmp_path)
    solutions = glore.encode_solutions(folder, ITEMS)
    with open_reward_model(folder) as scorer:
        expected = scorer.score(ITEMS)
    with served(folder, "prm", "--runner", "pooling", "--enforce-eager") as settings:
        url = settings.url.removesuffix("/v1")  # type: ignore[attr-defined]
        answer = _posted(
            f"{url}/pooling",
            {
                "model": "prm",
                "task": "token_classify",
                "input": [s.token_ids for s in solutions],
            },
            seconds=settings.wait_seconds,  # type: ignore[attr-defined]
        )
    for solution, found, values in zip(solutions, answer["data"], expected, strict=True):
        got = [found["data"][at][1] for at in solution.positions]
        assert got == pytest.approx(values, abs=1e-4)


def _posted(url: str, body: dict[str, Any], seconds: float) -> Any:
    """The JSON answer of a server, which may still be loading."""
    deadline = time.monotonic() + seconds
    while True:
        request = urllib.request.Request(
            url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
