"""The servers that pages start with `glore serve`, each at a port of its own, and what pages ask
them.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

from support.snippets import ROOT

DEFAULT_PORT = 8000
SHOWN = re.compile(r"http://127\.0\.0\.1:(\d+)")
FIELDS = {
    "/v1/chat/completions": {"id", "object", "created", "model", "choices", "usage"},
    "/v1/refine": {"question", "draft", "candidates", "candidate_kinds", "chosen", "usage"},
    "/v1/score": {"orm", "sorm", "score", "needs_work", "first_bad_step"},
}
"""What the pages say is in an answer."""


class DocumentedServers:
    """Servers in processes of their own. The same command is started once."""

    def __init__(self) -> None:
        self._processes: dict[tuple[str, ...], subprocess.Popen[str]] = {}
        self._urls: dict[int, str] = {}
        """Port on the page → where the server is."""

    def start(self, words: Sequence[str], folder: Path) -> None:
        """Start `glore serve …` in a folder, and look whether it asks for its key."""
        words = tuple(words)
        port = int(words[words.index("--port") + 1]) if "--port" in words else DEFAULT_PORT
        if words not in self._processes:
            self._urls[port] = self._started(words, folder)
        asked = f"{self._urls[port]}/v1/models"
        key = folder / words[words.index("--key-file") + 1] if "--key-file" in words else None
        assert httpx2.get(asked).status_code == (200 if key is None else 401)
        if key is not None and key.exists():
            sent = {"Authorization": f"Bearer {key.read_text().strip()}"}
            assert httpx2.get(asked, headers=sent).status_code == 200

    def _started(self, words: tuple[str, ...], folder: Path) -> str:
        process = self._processes[words] = subprocess.Popen(
            [sys.executable, "-m", "glore", *words[1:], "--port", "0"],  # the last one counts
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if (found := re.search(r"at http://\S+:(\d+)/v1", line)) is not None:
                return f"http://127.0.0.1:{found[1]}"
        raise AssertionError(f"{' '.join(words)}: {said}")

    def here(self, text: str) -> str:
        """A text with the addresses of the page → with those of the servers that it has started."""
        return SHOWN.sub(lambda found: self._urls[int(found[1])], text)

    def curl(self, words: Sequence[str]) -> None:
        """Carry out a `curl` of a page, and compare the answer with what the page says."""
        words = [self.here(word) for word in words]
        (url,) = [word for word in words if word.startswith("http://")]
        body = json.loads(words[words.index("-d") + 1])
        answer = _by_curl(words) if shutil.which("curl") else httpx2.post(url, json=body).json()
        route = re.sub(r"^http://[^/]+", "", url)
        assert answer.keys() >= FIELDS[route], answer
        if route == "/v1/score":
            assert len(answer["orm"]) == len(answer["sorm"]) == len(body["steps"])
        if route == "/v1/chat/completions":
            assert answer["model"] == body["model"]
            assert isinstance(answer["choices"][0]["message"]["content"], str)
            assert answer["usage"]["completion_tokens"] > 0

    def close(self) -> None:
        """End them all. Each drains, and ends with exit code 0."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                assert process.wait(120) == 0
            finally:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()


def make_key(words: Sequence[str], output: Path) -> None:
    """`openssl rand -hex N > output`, also where openssl is not installed."""
    if shutil.which(words[0]):
        output.write_bytes(subprocess.run(words, capture_output=True, check=True).stdout)
    else:
        output.write_text(secrets.token_hex(int(words[-1])))


def _by_curl(words: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(
        [words[0], "-sS", "--max-time", "120", "-w", "\n%{http_code}", *words[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text, _, status = done.stdout.rpartition("\n")
    assert status == "200", text
    answer: dict[str, Any] = json.loads(text)
    return answer
