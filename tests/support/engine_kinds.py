"""Every kind of engine over one tiny model on disk, for the tests that hold them all to one
protocol.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glore.engines.protocol import Request, Result, SamplingParams
from glore.seeds import stable_seed
from support.tiny_models import VOCAB, tiny_lm, tiny_tokenizer, wide_lm

WARM = SamplingParams(temperature=1.0, max_new_tokens=12)


def save_tiny_model(folder: Path, wide: bool = False) -> Path:
    """The tiny model and its tokenizer as a folder like those of a run; `wide`: for vLLM."""
    (wide_lm() if wide else tiny_lm()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def requests_of(n: int, k: int, params: SamplingParams = WARM) -> list[Request]:
    """n requests of k seeds; prompts of several segments."""
    return [
        Request(
            f"r{i}",
            (f"w{3 + i % 50} ", *(f"w{3 + (7 * i + j) % (VOCAB - 3)} " for j in range(i % 5))),
            seeds(i, k),
            params,
        )
        for i in range(n)
    ]


def seeds(i: int, k: int) -> tuple[int, ...]:
    """The full 63 bits, as the pipeline's are."""
    return tuple(stable_seed("test", i, j) for j in range(k))


def by_id(results: list[Result]) -> dict[str, tuple[tuple[str, int, str, int], ...]]:
    """All that a completion says, by request."""
    return {
        r.request.id: tuple((c.text, c.n_tokens, c.stop, c.seed) for c in r.completions)
        for r in results
    }


class Server:
    """The completions server of `completions_server.py`, in a process of its own."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"

    def faults(self, *kinds: object) -> None:
        """From now on these go wrong, in turn; the log begins anew."""
        request = urllib.request.Request(
            f"{self.root}/faults", json.dumps(kinds).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=10).read()

    def log(self) -> tuple[list[dict[str, object]], int]:
        """Bodies received since, and the most that were answered at once."""
        data = json.load(urllib.request.urlopen(f"{self.root}/log", timeout=10))
        return data["log"], data["most_open"]


@contextmanager
def serving(folder: Path, name: str, key: str = "") -> Iterator[Server]:
    """A server of that model, ended afterwards."""
    script = Path(__file__).parent / "completions_server.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), name, key],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()
