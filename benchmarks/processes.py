"""The same continuations by libraries that need environments of their own: OpenVINO GenAI and vLLM,
each in a process driven over a pipe.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.workloads import Ask


class Piped:
    """A worker script of this folder, in the environment of `python`, with the model's folder as
    its first argument. Raises RuntimeError with what it says where it does not start or draw.
    """

    def __init__(
        self,
        python: str,
        worker: str,
        model: LlamaForCausalLM,
        words: PreTrainedTokenizerFast,
        *arguments: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._eos = model.generation_config.eos_token_id
        self._folder = tempfile.TemporaryDirectory(prefix="glore-peer-")
        source = Path(self._folder.name) / "model"
        model.save_pretrained(source)
        if words.eos_token is None:
            words = copy.deepcopy(words)
            words.eos_token = "<eos>"
        words.save_pretrained(source)
        self._log = (Path(self._folder.name) / "log").open("wb")
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name(worker)), str(source), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **(env or {})},
        )
        self._told("ready")

    def draw(self, asks: list[Ask]) -> float:
        """All continuations of all prompts; returns how many."""
        assert self._process.stdin is not None
        line = json.dumps({"eos": self._eos, "asks": [(a.ids, a.k, a.n_new) for a in asks]})
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        n, n_tokens = map(int, self._told("done").split())
        assert n == sum(a.k for a in asks)
        assert self._eos is not None or n_tokens == sum(a.k * a.n_new for a in asks)
        return float(n)

    def close(self) -> None:
        """End the process: by itself, so that it can end others that it started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def _told(self, word: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("error"):
                raise RuntimeError(line.strip())
            if line.startswith(word):
                return line.removeprefix(word).strip()
        log = Path(self._log.name).read_text(encoding="utf-8", errors="replace").strip()
        raise RuntimeError(
            f"the process ended with status {self._process.wait()}: {log.splitlines()[-1:]}"
        )


class OpenVino(Piped):
    """OpenVINO GenAI's continuous batching with prefix caching. `products`: `f32` or `bf16`, which
    keys and values have too.
    """

    def __init__(
        self,
        python: str,
        model: LlamaForCausalLM,
        words: PreTrainedTokenizerFast,
        products: str = "f32",
        n_threads: int = 1,
    ) -> None:
        super().__init__(python, "openvino_worker.py", model, words, products, str(n_threads))


class Vllm(Piped):
    """vLLM's CPU build with prefix caching, on all cores. `dtype`: `float32` or `bfloat16`."""

    def __init__(
        self,
        python: str,
        model: LlamaForCausalLM,
        words: PreTrainedTokenizerFast,
        dtype: str = "bfloat16",
    ) -> None:
        env = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        super().__init__(python, "vllm_worker.py", model, words, dtype, env=env)
