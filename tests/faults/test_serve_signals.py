"""`glore serve` and what ends it, or keeps it from starting."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from glore.cli.serve_command import check_extra
from glore.errors import ConfigError

SCRIPT = Path(__file__).parents[1] / "support" / "small_server.py"


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs fastapi and uvicorn; install .* 'glore\[serve\]'"
    ):
        check_extra()


def server(folder: Path, port: int = 0) -> subprocess.Popen[str]:
    pytest.importorskip("fastapi", reason="glore serve needs the extra serve")
    pytest.importorskip("uvicorn", reason="glore serve needs the extra serve")
    paths = {"PYTHONPATH": ":".join(p for p in (str(SCRIPT.parents[1]), *sys.path) if p)}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=paths,
    )


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_lets_accepted_requests_finish(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    with server(tmp_path) as process, ThreadPoolExecutor(4) as pool:
        try:
            url = re.search(r"http://\S+/v1", process.stdout.readline())[0]
            with httpx2.Client(transport=httpx2.HTTPTransport(retries=5), timeout=30) as client:
                body = {"model": "student", "prompt": ["w4", "w5"]}
                asked = pool.submit(client.post, f"{url}/completions", json=body)
                assert process.stdout.readline() == "drawing\n"
                process.send_signal(sent)
                answer = asked.result().json()
            assert [c["text"] for c in answer["choices"]] == ["#### 1"] * 2
            # What was loaded is left out, or the end of a large run takes half a minute.
            (last,) = re.findall(r"in (\d+) of (\d+) objects", process.stdout.read())
            assert int(last[0]) < int(last[1]) / 2
            assert process.wait(30) == code
        finally:
            process.kill()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with server(tmp_path, port) as process:
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 1  # the script shows the error whole, the command one line
    assert errors.splitlines()[-1].startswith("glore.errors.ConfigError: can't serve at")
    assert f"port {port}" in errors
