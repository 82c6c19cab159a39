"""The HTTP engine against a real server process that misbehaves, and against mistakes in the settings."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_kinds import Server, by_id, requests_of, save_tiny_model, serving
from glore.config import EngineSettings
from glore.errors import EngineError
from glore.models import encode_segments, load_tokenizer
from glore.sampling import completions_api
from glore.sampling.http_engine import HttpEngine
from glore.sampling.protocol import SamplingParams
from glore.sampling.torch_engine import TorchEngine

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Server]:
    with serving(folder, "student", key="secret-1") as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(completions_api, "FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setenv("GLORE_API_KEY", "secret-1")
    running.faults()
    return running


def http(server: Server, **settings: object) -> EngineSettings:
    return EngineSettings(kind="http", url=server.url, **settings)


def one_line(caught: pytest.ExceptionInfo[EngineError], url: str) -> str:
    message = str(caught.value)
    assert url in message
    assert "\n" not in message
    assert len(message) < 900
    assert "secret-1" not in message
    return message


def test_faults_that_pass_leave_no_trace(server: Server, folder: Path) -> None:
    items = requests_of(14, 2)
    expected = by_id(list(TorchEngine(folder, EngineSettings(device="cpu")).run(items)))
    server.faults(429, "drop", 503, "none", "malformed", "slow", 500, "short", "abort")
    assert by_id(list(HttpEngine(folder, http(server, concurrency=6, timeout_seconds=1.0)).run(items))) == expected
    log, most_open = server.log()
    assert len(log) > 28
    assert 1 < most_open <= 6


def test_what_is_sent(server: Server, folder: Path) -> None:
    (item,) = requests_of(1, 2)
    list(HttpEngine(folder, http(server)).run([item]))
    sent, _ = server.log()
    tokens = encode_segments(load_tokenizer(folder), item.segments)
    same = {"model": "student", "prompt": tokens, "max_tokens": 12, "temperature": 1.0, "top_p": 1.0}
    assert sorted(s["seed"] for s in sent) == sorted(item.seeds)
    assert all(s == {**same, "seed": s["seed"], "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0} for s in sent)
    server.faults()
    list(HttpEngine(folder, http(server)).run(requests_of(1, 1, SamplingParams(max_new_tokens=5, stop="7", logprobs=True))))
    (only,), _ = server.log()
    assert (only["stop"], only["logprobs"]) == ("7", 1)
    server.faults()
    list(HttpEngine(folder, http(server, prompt="text", siblings="together", extensions=False)).run([item]))
    assert server.log()[0] == [{**same, "prompt": "".join(item.segments), "seed": item.seeds[0], "n": 2}]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (400, ["status 400 'fault 400", "engine.prompt=text", "max_new_tokens"]),
        (403, ["status 403", "GLORE_API_KEY"]),
        (404, ["status 404", "engine.url", "'student'", "engine.model"]),
        (418, ["status 418", "server's log"]),
        ("huge", ["larger than 1,051,648 bytes"]),
    ],
)
def test_faults_that_stay_are_one_line_with_the_mend(server: Server, folder: Path, fault: object, words: list[str]) -> None:
    server.faults(fault)
    with pytest.raises(EngineError) as caught:
        list(HttpEngine(folder, http(server)).run(requests_of(1, 1)))
    message = one_line(caught, server.url)
    assert [w for w in [*words, "'r0'"] if w not in message] == []
    assert len(server.log()[0]) == 1


@pytest.mark.parametrize(("fault", "words"), [(500, "status 500 'fault 500"), ("malformed", "not JSON: '<html>"), ("slow", "within 0.5 s")])
def test_it_gives_up_after_the_last_try_and_says_what_was_last(server: Server, folder: Path, fault: object, words: str) -> None:
    server.faults(fault)
    with pytest.raises(EngineError) as caught:
        list(HttpEngine(folder, http(server, retries=0, timeout_seconds=0.5)).run(requests_of(1, 1)))
    message = one_line(caught, server.url)
    assert words in message
    assert "given up after 1 tries" in message


@pytest.mark.parametrize(
    ("fault", "params", "words"),
    [
        ("silent", SamplingParams(max_new_tokens=9, logprobs=True), "the server gives no log-probabilities; sample without logprobs"),
        ("silent", SamplingParams(max_new_tokens=40, stop="w"), "does not tell the end of a text from a stop; sample without stop"),
        ("few", SamplingParams(max_new_tokens=9, logprobs=True), "1 log-probabilities for "),
    ],
)
def test_what_a_server_does_not_tell_is_an_error(server: Server, folder: Path, fault: str, params: SamplingParams, words: str) -> None:
    server.faults(fault)
    with pytest.raises(EngineError) as caught:
        list(HttpEngine(folder, http(server)).run(requests_of(1, 1, params)))
    message = one_line(caught, server.url)
    assert words in message
    assert "'r0'" in message
    assert len(server.log()[0]) == 1


def test_results_before_a_failure_are_handed_out(server: Server, folder: Path) -> None:
    engine = HttpEngine(folder, http(server, concurrency=1))
    bad = dataclasses.replace(requests_of(9, 1)[8], segments=())
    got = []
    with pytest.raises(EngineError, match="'r8'"):
        got.extend(r.request.id for r in engine.run(iter([*requests_of(6, 1), bad])))  # extend keeps what came before the error
    stream = engine.run(iter([*requests_of(6, 1), bad]))
    assert next(stream).request.id == "r0"


def test_a_wrong_or_missing_key(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLORE_API_KEY")
    with pytest.raises(EngineError) as caught:
        HttpEngine(folder, http(server))
    assert "status 401 'wrong key'; the server wants another API key (none is set: export GLORE_API_KEY=…)" in one_line(caught, server.url)
    monkeypatch.setenv("OTHER", "secret-1")
    HttpEngine(folder, http(server, api_key_env="OTHER"))


def test_which_served_model_is_which(server: Server, folder: Path, tmp_path: Path) -> None:
    refiner = save_tiny_model(tmp_path / "refiner")
    with pytest.raises(EngineError) as caught:
        HttpEngine(refiner, http(server))
    message = one_line(caught, server.url)
    assert f"serves 'student' and not 'refiner'; serve it, for example: vllm serve {refiner} --served-model-name refiner" in message
    assert HttpEngine(refiner, http(server, models={"refiner": "student"})).api.model == "student"
    assert HttpEngine(refiner, http(server, model="student")).api.model == "student"
    with pytest.raises(EngineError, match="and not 'lora-refiner'"):
        HttpEngine(refiner, http(server, model="lora-{name}"))
    with pytest.raises(EngineError, match=r"/models/v2/completions, request 'r0': status 404 'Not Found'; see"):
        list(HttpEngine(refiner, EngineSettings(kind="http", url=f"{server.root}/models/v2")).run(requests_of(1, 1)))


def test_no_server(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(EngineError) as caught:
        HttpEngine(folder, EngineSettings(kind="http", url=url, wait_seconds=0.1))
    message = one_line(caught, url)
    assert message.startswith(f"no server at {url} (")
    assert "vllm serve" in message


def test_it_waits_for_a_model_that_is_being_loaded(server: Server, folder: Path, tmp_path: Path) -> None:
    refiner = save_tiny_model(tmp_path / "refiner")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    urls = {"refiner": f"http://127.0.0.1:{port}/v1"}
    # A server that comes up after a while: the running one, behind a port that opens late.
    code = "import socket, sys, threading, time; time.sleep(1)\n" + FORWARD
    late = subprocess.Popen([sys.executable, "-c", code, str(port), server.root.rpartition(":")[2]])
    try:
        engine = HttpEngine(refiner, http(server, urls=urls, model="student", wait_seconds=20))
        assert engine.api.url == urls["refiner"]
    finally:
        late.kill()
        late.wait()


FORWARD = """
def pump(a, b):
    while data := a.recv(65536): b.sendall(data)
    b.shutdown(socket.SHUT_WR)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    one, _ = listener.accept()
    two = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    for pair in ((one, two), (two, one)): threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def test_waits_grow_differ_and_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def slept(seconds: float) -> None:
        waits.append(seconds)

    async def failing(*_: object) -> None:
        raise completions_api._PassingError("no", wait=4.0 if len(waits) == 2 else 0.0)

    import asyncio

    api = completions_api.CompletionsApi("http://localhost:1/v1", "m", EngineSettings(kind="http", url="http://localhost:1/v1"), "start it")
    monkeypatch.setattr(completions_api.CompletionsApi, "_try", failing)
    monkeypatch.setattr(asyncio, "sleep", slept)

    def all_waits(what: str) -> list[float]:
        waits.clear()
        with pytest.raises(EngineError, match="7 tries"):
            asyncio.run(api.complete(None, {"max_tokens": 1}, what))  # type: ignore[arg-type]  # never used
        return list(waits)

    a, b = all_waits("a"), all_waits("b")
    assert a == all_waits("a")
    assert a[:2] != b[:2]
    assert all(0.25 * 2**i <= w <= 0.75 * 2**i for i, w in enumerate(a) if i != 2)
    assert a[2] == 4.0


def test_ctrl_c_ends_the_calls_under_way_at_once(server: Server, folder: Path) -> None:
    server.faults("slow")
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "from engine_kinds import requests_of\n"
        "from glore.config import EngineSettings\n"
        "from glore.sampling.http_engine import HttpEngine\n"
        f"engine = HttpEngine({str(folder)!r}, EngineSettings(kind='http', url={server.url!r}, concurrency=4))\n"
        "print('go', flush=True)\n"
        "list(engine.run(requests_of(50, 4)))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)  # all of the slow calls would take twice as long
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert "Task was destroyed" not in errors


def test_leaving_early_leaves_no_thread(server: Server, folder: Path) -> None:
    stream = HttpEngine(folder, http(server)).run(requests_of(20, 2))
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert not [t for t in threading.enumerate() if t.name == "glore-http"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "http"}, "needs url"),
        ({"kind": "http", "url": "localhost:8000"}, "begins with http://"),
        ({"kind": "http", "url": "http://{host}"}, "only {name} and {path}"),
        ({"concurrency": 3}, "concurrency is for engines of kind http, got kind torch"),
        ({"kind": "ray", "inner": {"kind": "ray"}}, "inner can't be of kind ray"),
        ({"kind": "vllm", "workers": 3}, "workers is for engines of kind ray"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        EngineSettings.model_validate(settings)
