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
from glore.config import RunConfig
from glore.errors import ConfigError
from glore.serve.limits import Limits

SCRIPT = Path(__file__).parents[1] / "support" / "small_server.py"


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs fastapi and uvicorn; install .* 'glore\[serve\]'"
    ):
        check_extra()


def skip_without_the_extra() -> None:
    pytest.importorskip("fastapi", reason="glore serve needs the extra serve")
    pytest.importorskip("uvicorn", reason="glore serve needs the extra serve")


def server(folder: Path) -> subprocess.Popen[str]:
    skip_without_the_extra()
    paths = {"PYTHONPATH": ":".join(p for p in (str(SCRIPT.parents[1]), *sys.path) if p)}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), "0"],
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
    """It is told before a model is loaded: there is none."""
    skip_without_the_extra()
    from glore.serve.run import serve_run

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = RunConfig(name="small", runs_dir=str(tmp_path))
        with pytest.raises(ConfigError, match=f"can't serve at .*, port {port}"):
            serve_run(config, host="127.0.0.1", port=port, limits=Limits(), key=None, say=print)
