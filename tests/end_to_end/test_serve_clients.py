"""Other people's programs against the server: its_hub, and optillm in front of it. Each test skips
where its program is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

pytest.importorskip("fastapi", reason="glore serve needs the extra serve: pip install glore[serve]")
pytest.importorskip("uvicorn", reason="glore serve needs the extra serve: pip install glore[serve]")

from glore.refiner import RefineOptions, Refiner
from glore.serve.app import create_app
from glore.serve.served import MODELS, Served
from support.fakes import FunctionEngine
from support.live_server import live, until
from support.tiny_models import tiny_tokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "its_hub_rewards.py"
OPTILLM = os.environ.get("GLORE_OPTILLM") or shutil.which("optillm")
ANSWERS = ("4 + 4 = 8\n#### 8", "2 + 3 = 5\n#### 5", "5 = 5\n#### 5")
GOOD = {"2 + 3 = 5": 0.9, "#### 5": 0.8, "right": 0.9, "#### 7": 0.95}
OPTILLM_SLUGS = ("mcts", "bon", "moa", "rto", "z3", "pvg", "rstar", "leap", "re2", "cepo", "mars")
"""Approaches that optillm looks for at the beginning of a model's id."""


class Table:
    def score(self, items: list[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        return [tuple(GOOD.get(step, 0.25) for step in steps) for _, steps in items]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    student = FunctionEngine(lambda r, seed: ANSWERS[seed % 3 if r.params.temperature else 0])
    refiner = FunctionEngine(lambda request, seed: "right\n#### 7")
    models = Refiner(student, refiner, Table(), Table(), RefineOptions(max_new_tokens=50))
    with live(create_app(Served(models, tiny_tokenizer()))) as address:
        yield f"{address}/v1"


def test_its_hub_scores_and_chooses_with_glore(url: str) -> None:
    pytest.importorskip("its_hub", reason="its_hub is not installed: pip install 'its_hub[lm]'")
    spec = importlib.util.spec_from_file_location("its_hub_rewards", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    steps = example.GloreSteps(url)
    assert steps.score("How many?", ["2 + 3 = 5", "so what"]) == [0.9, 0.25]
    student = example.OpenAICompatibleLanguageModel(url, "any", "student", temperature=1.0)
    best = example.BestOfN(example.GloreSolutions(url))
    found = best.infer(student, "How many?", budget=12, return_response_only=False)
    texts = [response["content"] for response in found.responses]
    assert set(texts) == set(ANSWERS)
    assert found.scores == [0.8 if text.endswith("#### 5") else 0.25 for text in texts]
    assert found.the_one["content"].endswith("#### 5")


def test_no_model_is_taken_for_an_approach_of_optillm() -> None:
    assert not [m for m in MODELS if m.partition("-")[0].partition("&")[0] in OPTILLM_SLUGS]


def test_behind_optillm(url: str, tmp_path: Path) -> None:
    if OPTILLM is None:
        pytest.skip("optillm is not installed; put it on the PATH or set GLORE_OPTILLM")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [OPTILLM, "--base-url", url, "--approach", "none", "--port", str(port)]
    environment = {**os.environ, "OPENAI_API_KEY": "any", "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "log").open("wb") as log:
        proxy = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)
    try:
        root = f"http://127.0.0.1:{port}"
        until(lambda: proxy.poll() is not None or is_open(port), 120)
        body = {"model": "glore", "messages": [{"role": "user", "content": "How many?"}]}
        answer = httpx2.post(f"{root}/v1/chat/completions", json=body, timeout=120)
        assert answer.status_code == 200, (answer.text, (tmp_path / "log").read_text()[-2000:])
        assert answer.json()["choices"][0]["message"]["content"].strip().endswith("#### 7")
    finally:
        proxy.kill()
        proxy.wait(30)


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
