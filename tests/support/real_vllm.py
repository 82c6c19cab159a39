"""A real vLLM, in this process and as a server. `make test-vllm` runs the tests that use it, in an
environment of its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from glore.config import EngineSettings
from glore.engines.protocol import Engine, FollowUp, Request, Result

IN_PROCESS = EngineSettings(kind="vllm", max_rows=4, gpu_memory=0.1)
START_SECONDS = 300.0


def small_cache() -> None:
    """Let vLLM's build for CPUs take 1 GiB for keys and values, not a share of all memory."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"


@contextmanager
def served(folder: Path, name: str, *more: str) -> Iterator[EngineSettings]:
    """vLLM's server with prefix caching, ended afterwards. Gives the settings to reach it. `more`:
    of its command.

    It is what `vllm serve` starts. That command itself looks for a package of the name vllm, which
    the CPU build is not.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-num-seqs", "8", "--gpu-memory-utilization", "0.1"),
        # Without it the CPU build fails at seeded sampling (docs/engines.md).
        *("--enable-prefix-caching", "--no-enable-chunked-prefill"),
        *more,
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield EngineSettings(
                kind="http",
                url=f"http://127.0.0.1:{port}/v1",
                concurrency=8,
                wait_seconds=START_SECONDS,
            )
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class OneByOne:
    """Draws every request in a run of its own: what a batch must not change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        for request in requests:
            yield from self._engine.run([request], follow_up)
