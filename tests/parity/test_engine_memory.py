"""A closed engine or scorer gives its memory back without a garbage collection by the caller."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification

from glore.config import EngineSettings
from glore.engines.local import attention, runner
from glore.engines.local.engine import TorchEngine
from glore.engines.open import open_scorer
from glore.errors import EngineError
from support.engine_kinds import requests_of, save_tiny_model
from support.tiny_models import VOCAB, tiny_lm, tiny_tokenizer

SLACK_BYTES = 10e6
"""Beside 5 % of the model: what libraries keep after their first use."""
TESTS = Path(__file__).parents[1]
SCRIPT = """
import json, sys
from pathlib import Path
from glore.config import EngineSettings
from glore.engines.open import open_engine, open_scorer
from support.engine_kinds import requests_of
from glore.own_process import resident_bytes

def use(folder, what, dtype):
    settings = EngineSettings(device="cpu", dtype=dtype, max_rows=16)
    with (open_engine if what == "engine" else open_scorer)(folder, settings) as opened:
        if what == "engine":
            list(opened.run(requests_of(8, 2)))
            stream = opened.run(requests_of(8, 2))
            next(stream)  # and a run in progress
        else:
            opened.score([("w5 w6 ", ("w7 ", "w8 "))] * 20)
        return resident_bytes()

folder = Path(sys.argv[1])
for what in ("engine", "scorer"):
    for dtype in ("float32", "bfloat16"):
        use(folder / ("small" if what == "engine" else "scorer"), what, dtype)
        found = {"before": resident_bytes()}
        found |= {"open": use(folder / what, what, dtype), "after": resident_bytes()}
        for _ in range(2):
            use(folder / what, what, dtype)
        print(json.dumps({**found, "in the end": resident_bytes()}))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of 101 MB, and a tiny one."""
    root = tmp_path_factory.mktemp("models")
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=256,
        num_labels=2,
    )
    for kind, cls in (("engine", LlamaForCausalLM), ("scorer", LlamaForTokenClassification)):
        cls(config).save_pretrained(root / kind)
        tiny_tokenizer().save_pretrained(root / kind)
    save_tiny_model(root / "small")
    return {path.name: path for path in root.iterdir()}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_is_back_after_close(folders: dict[str, Path]) -> None:
    """Engines and scorers of both widths, one after the other in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folders["engine"].parent)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent / 'src'}"},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for (what, dtype), found in zip(
        itertools.product(("engine", "scorer"), ("float32", "bfloat16")), lines, strict=True
    ):
        size = (folders[what] / "model.safetensors").stat().st_size
        assert size > 100e6
        size_in_memory = size if dtype == "float32" else size / 2
        shown = (what, dtype, found)
        assert found["open"] - found["before"] > size_in_memory, f"in memory while open: {shown}"
        for moment in ("after", "in the end"):
            assert found[moment] - found["before"] < 0.05 * size + SLACK_BYTES, shown


def test_a_closed_scorer_refuses_to_score(folders: dict[str, Path]) -> None:
    with open_scorer(folders["scorer"], EngineSettings(device="cpu")) as scorer:
        assert scorer.score([("w5 w6 ", ())]) == [()]
        assert re.fullmatch("(native|paged) float32", scorer.backend)
    with pytest.raises(EngineError, match="is closed and can't be used"):
        scorer.score([("w5 w6 ", ())])
    scorer.close()


def test_memory_for_keys_and_values_serves_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs one after the other take it once, runs side by side one each; texts don't change."""
    made: list[int] = []

    class Counted(attention.KVCache):
        def __init__(self, n_pages: int, multiple: int = 1) -> None:
            made.append(n_pages)
            super().__init__(n_pages, multiple)

    def texts(engine: TorchEngine, n: int) -> list[str]:
        return [c.text for r in engine.run(requests_of(n, 2)) for c in r.completions]

    with TorchEngine.of(tiny_lm("llama"), tiny_tokenizer(), max_rows=8) as fresh:
        expected = texts(fresh, 4)
    with TorchEngine.of(tiny_lm("llama"), tiny_tokenizer(), max_rows=8) as engine:
        monkeypatch.setattr(runner, "KVCache", Counted)
        texts(engine, 9)
        assert texts(engine, 4) == expected
        assert len(made) == 1
        left_early = engine.run(requests_of(4, 2))
        next(left_early)
        assert texts(engine, 4) == expected
        assert len(made) == 2
        del left_early
        assert texts(engine, 4) == expected
        assert len(made) == 2
