"""The HTTP engine against a real server process that misbehaves, and against mistakes in the
settings.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import EngineSettings, HttpEngineSettings
from glore.engines.http import answer as http_answer
from glore.engines.http import api as http_api
from glore.engines.http.answer import TransientError
from glore.engines.http.engine import HttpEngine
from glore.engines.local.engine import TorchEngine
from glore.engines.protocol import Result, SamplingParams
from glore.errors import EngineError
from glore.models import load_tokenizer
from glore.tokenization import encode_segments
from support.engine_kinds import Server, by_id, requests_of, save_tiny_model, serving

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
    monkeypatch.setattr(http_api, "FIRST_WAIT_SECONDS", 0.02)
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
    assert (
        by_id(list(HttpEngine(folder, http(server, concurrency=6, timeout_seconds=1.0)).run(items)))
        == expected
    )
    log, most_open = server.log()
    assert len(log) > 28
    assert 1 < most_open <= 6


def test_what_is_sent(server: Server, folder: Path) -> None:
    (item,) = requests_of(1, 2)
    list(HttpEngine(folder, http(server)).run([item]))
    sent, _ = server.log()
    tokens = encode_segments(load_tokenizer(folder), item.segments)
    same = {
        "model": "student",
        "prompt": tokens,
        "max_tokens": 12,
        "temperature": 1.0,
        "top_p": 1.0,
    }
    assert sorted(s["seed"] for s in sent) == sorted(item.seeds)
    assert all(
        s == {**same, "seed": s["seed"], "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
        for s in sent
    )
    server.faults()
    list(
        HttpEngine(folder, http(server)).run(
            requests_of(1, 1, SamplingParams(max_new_tokens=5, stop="7", logprobs=True))
        )
    )
    (only,), _ = server.log()
    assert (only["stop"], only["logprobs"]) == ("7", 1)
    server.faults()
    list(
        HttpEngine(folder, http(server, prompt="text", siblings="together", extensions=False)).run(
            [item]
        )
    )
    assert server.log()[0] == [
        {**same, "prompt": "".join(item.segments), "seed": item.seeds[0], "n": 2}
    ]


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
def test_faults_that_stay_are_one_line_with_the_mend(
    server: Server, folder: Path, fault: object, words: list[str]
) -> None:
    server.faults(fault)
    with pytest.raises(EngineError) as caught:
        list(HttpEngine(folder, http(server)).run(requests_of(1, 1)))
    message = one_line(caught, server.url)
    assert [w for w in [*words, "'r0'"] if w not in message] == []
    assert len(server.log()[0]) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [(500, "status 500 'fault 500"), ("malformed", "not JSON: '<html>"), ("slow", "within 0.5 s")],
)
def test_it_gives_up_after_the_last_try_and_says_what_was_last(
    server: Server, folder: Path, fault: object, words: str
) -> None:
    server.faults(fault)
    with pytest.raises(EngineError) as caught:
        list(
            HttpEngine(folder, http(server, retries=0, timeout_seconds=0.5)).run(requests_of(1, 1))
        )
    message = one_line(caught, server.url)
    assert words in message
    assert "given up after 1 tries" in message


@pytest.mark.parametrize(
    ("fault", "params", "words"),
    [
        (
            "silent",
            SamplingParams(max_new_tokens=9, logprobs=True),
            "the server gives no log-probabilities; sample without logprobs",
        ),
        (
            "silent",
            SamplingParams(max_new_tokens=40, stop="w"),
            "does not tell the end of a text from a stop; sample without stop",
        ),
        ("few", SamplingParams(max_new_tokens=9, logprobs=True), "1 log-probabilities for "),
    ],
)
def test_what_a_server_does_not_tell_is_an_error(
    server: Server, folder: Path, fault: str, params: SamplingParams, words: str
) -> None:
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
        got.extend(
            r.request.id for r in engine.run(iter([*requests_of(6, 1), bad]))
        )  # extend keeps what came before the error
    stream = engine.run(iter([*requests_of(6, 1), bad]))
    assert next(stream).request.id == "r0"


def test_a_wrong_or_missing_key(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLORE_API_KEY")
    with pytest.raises(EngineError) as caught:
        HttpEngine(folder, http(server))
    assert (
        "status 401 'wrong key'; the server wants another API key (none is set: export "
        "GLORE_API_KEY=…)" in one_line(caught, server.url)
    )
    monkeypatch.setenv("OTHER", "secret-1")
    HttpEngine(folder, http(server, api_key_env="OTHER"))


def test_white_space_around_a_key_is_no_part_of_it(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLORE_API_KEY", " secret-1\r\n")
    assert len(list(HttpEngine(folder, http(server)).run(requests_of(1, 1)))) == 1


@pytest.mark.parametrize(
    "key", ["sekret\nsekret", "sekr\u00e9t-sekret", "sekret\x7f", "sekret\udcff"]
)
def test_a_key_that_no_header_can_carry(
    folder: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(EngineError) as caught:
        HttpEngine(
            folder, EngineSettings(kind="http", url=NOWHERE, api_key_env="MY_KEY", wait_seconds=60)
        )
    assert str(caught.value).startswith(
        "an API key is printable ASCII, and the one in MY_KEY is not; export it again"
    )
    assert "sek" not in "".join(traceback.format_exception(caught.value))


def test_an_illegal_header_is_final_and_never_quoted(folder: Path) -> None:
    with canned(MODELS) as answers:
        api = HttpEngine(folder, answers.settings(wait_seconds=60)).api
        api._headers = {"Authorization": "Bearer sekret\n"}

        async def complete() -> None:
            async with api.client() as client:
                await api.complete(client, {"max_tokens": 1}, "r0")

        for call in (api.check, lambda: asyncio.run(complete())):
            with pytest.raises(
                EngineError, match=r"breaks the rules of HTTP and was not sent.*GLORE_API_KEY"
            ) as caught:
                call()
            assert "sekret" not in "".join(traceback.format_exception(caught.value))
        assert answers.sent == []


def test_which_served_model_is_which(server: Server, folder: Path, tmp_path: Path) -> None:
    refiner = save_tiny_model(tmp_path / "refiner")
    with pytest.raises(EngineError) as caught:
        HttpEngine(refiner, http(server))
    message = one_line(caught, server.url)
    assert (
        f"serves 'student' and not 'refiner'; serve it, for example: vllm serve {refiner} "
        "--served-model-name refiner" in message
    )
    assert HttpEngine(refiner, http(server, models={"refiner": "student"})).api.model == "student"
    assert HttpEngine(refiner, http(server, model="student")).api.model == "student"
    with pytest.raises(EngineError, match="and not 'lora-refiner'"):
        HttpEngine(refiner, http(server, model="lora-{name}"))
    with pytest.raises(
        EngineError, match=r"/models/v2/completions, request 'r0': status 404 'Not Found'; see"
    ):
        list(
            HttpEngine(refiner, EngineSettings(kind="http", url=f"{server.root}/models/v2")).run(
                requests_of(1, 1)
            )
        )


def test_no_server(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(EngineError) as caught:
        HttpEngine(folder, EngineSettings(kind="http", url=url, wait_seconds=0.1))
    message = one_line(caught, url)
    assert message.startswith(f"no server at {url} (")
    assert "vllm serve" in message


def test_it_waits_for_a_model_that_is_being_loaded(
    server: Server, folder: Path, tmp_path: Path
) -> None:
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
    for pair in ((one, two), (two, one)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


Reply = tuple[int, bytes, dict[str, str]]
"""Status, body and headers."""


def reply(data: object, status: int = 200, **headers: str) -> Reply:
    return (
        status,
        data if isinstance(data, bytes) else json.dumps(data).encode(),
        {k.replace("_", "-"): v for k, v in headers.items()},
    )


def answer(*texts: str, **changes: object) -> Reply:
    """A good answer, but for the changes to its choices, or to the whole."""
    usage = changes.pop("usage", {"completion_tokens": len(texts)})
    choices = [
        {"index": i, "text": text, "finish_reason": "length", **changes}
        for i, text in enumerate(texts)
    ]
    return reply({"choices": choices, "usage": usage})


class Canned:
    """A server in this process whose answers are given: each list in turn, its last for ever."""

    def __init__(self, url: str, models: list[Reply], completions: list[Reply]) -> None:
        self.url, self.models, self.completions = url, models, completions
        self.sent: list[dict[str, object]] = []

    def settings(self, **settings: object) -> EngineSettings:
        return EngineSettings(kind="http", url=self.url, **settings)


@contextmanager
def canned(models: Reply | list[Reply], *completions: Reply) -> Iterator[Canned]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def give(self, replies: list[Reply]) -> None:
            status, body, headers = replies.pop(0) if len(replies) > 1 else replies[0]
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:  # the name is http.server's
            self.give(answers.models)

        def do_POST(self) -> None:  # the name is http.server's
            answers.sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.give(answers.completions)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
        answers = Canned(url, models if isinstance(models, list) else [models], list(completions))
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield answers
        finally:
            listening.shutdown()
            thread.join()


NOWHERE = "http://127.0.0.1:9/v1"
MODELS = reply({"data": [{"id": "student"}]})
DEEP = b'{"data":' + b"[" * 100_000


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "another API key"), (403, "another API key"), (400, "can't do such a request")],
)
def test_it_does_not_wait_for_what_stays(folder: Path, status: int, words: str) -> None:
    refused = pytest.raises(EngineError, match=rf"/models: status {status} 'no'; .*{words}")
    with canned([reply({"error": {"message": "no"}}, status), MODELS]) as answers, refused:
        HttpEngine(folder, answers.settings(wait_seconds=60))


def test_it_says_what_it_waits_for_once_and_when_that_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    busy, other = (
        reply({"error": {"message": "loading"}}, 503),
        reply({"data": [{"id": "teacher"}]}),
    )
    with (
        canned([busy, busy, busy, other, other, MODELS]) as answers,
        caplog.at_level(logging.WARNING, http_api.__name__),
    ):
        HttpEngine(folder, answers.settings(wait_seconds=60))
    loading, teacher = caplog.messages
    assert loading.startswith("waiting up to ")
    assert " s (engine.wait_seconds): http://127.0.0.1" in loading
    assert "status 503 'loading'; see the server's log" in loading
    assert "serves 'teacher' and not 'student'; serve it, for example: vllm serve" in teacher


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http:///v1", "http://a..b/v1", f"http://{'a' * 64}/v1", "http://.../v1"),
        *(
            "http://[::1/v1",
            "http://ho\ud800st/v1",
            "http://host/\ud800/v1",
            "http://127.0.0.1:9\n/v1",
        ),
    ],
)
def test_an_unusable_address(folder: Path, url: str) -> None:
    settings = HttpEngineSettings.model_construct(url=url, wait_seconds=60.0)
    with pytest.raises(
        EngineError, match=r"is no address \(.*\); write engine.url like http://localhost:8000/v1"
    ) as caught:
        HttpEngine(folder, settings)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


GARBAGE = [
    (1, answer("a\ud800b"), "half a Unicode character: 'a\\ud800b'"),
    (2, answer("ab", "c", index=0), "not the 2 choices asked for, but one index twice"),
    (
        2,
        answer("ab", "c", usage={"completion_tokens": 25}),
        "counts 25 tokens where 24 were allowed",
    ),
    (2, answer("ab", "c", usage={"completion_tokens": 10**60}), "tokens where 24 were allowed"),
    (
        1,
        answer("ab", usage={"completion_tokens": True}),
        "counts True tokens, which is no whole number (usage.completion_tokens)",
    ),
    (
        1,
        answer("ab", usage={"completion_tokens": "1"}),
        "counts '1' tokens, which is no whole number",
    ),
    (
        1,
        answer("ab", usage={"completion_tokens": 1.0}),
        "counts 1.0 tokens, which is no whole number",
    ),
    (
        1,
        answer("ab", usage={"completion_tokens": -1}),
        "counts -1 tokens, which is no whole number",
    ),
    (
        1,
        answer("ab", usage={"completion_tokens": [1]}),
        "counts [1] tokens, which is no whole number",
    ),
    (1, answer("ab", usage=[1]), "the answer's usage is no object with counts: [1]"),
    (1, answer("ab", index=False), "not the 1 choices asked for, but the index False"),
    (1, answer("ab", index="0"), "not the 1 choices asked for, but the index"),
    (2, answer("ab", "c", index=True), "not the 2 choices asked for, but the index True"),
    (1, answer("ab", index=7), "not the 1 choices asked for, but the indices [7]"),
    (1, answer("ab", text=True), "a choice with text True"),
    (1, answer("ab", finish_reason=True), "finish_reason True, not one of"),
    (
        1,
        answer("ab", logprobs={"token_logprobs": [True]}),
        "whose log-probabilities are no list of numbers: [True]",
    ),
    (
        1,
        answer("ab", logprobs={"token_logprobs": ["-0.5"]}),
        "whose log-probabilities are no list of numbers: ['-0.5']",
    ),
    (
        1,
        answer("ab", logprobs={"token_logprobs": {"0": 1}}),
        "whose log-probabilities are no list of numbers: {'0': 1}",
    ),
    (
        1,
        answer("ab", logprobs={"content": [{"logprob": False}]}),
        "whose log-probabilities are no list of numbers: [False]",
    ),
    (
        1,
        answer("ab", logprobs={"content": ["x"]}),
        "whose log-probabilities are no list of numbers: ['x']",
    ),
    (
        1,
        answer("ab", logprobs={"token_logprobs": [10**400]}),
        "a log-probability that is no finite number",
    ),
    (
        1,
        answer("ab", logprobs={"token_logprobs": [float("nan")]}),
        "a log-probability that is no finite number",
    ),
    (
        1,
        answer("ab", logprobs={"token_logprobs": [float("-inf")]}),
        "a log-probability that is no finite number",
    ),
    (
        1,
        answer("ab", logprobs={"content": [{"logprob": float("inf")}]}),
        "a log-probability that is no finite number",
    ),
    (1, reply(DEEP), "JSON nested too deeply"),
    (1, reply(b'{"choices": [' + b'{"text":' * 100_000), "JSON nested too deeply"),
]


@pytest.mark.parametrize(("n", "garbage", "words"), GARBAGE)
def test_garbage_is_asked_for_again_and_then_a_clear_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, n: int, garbage: Reply, words: str
) -> None:
    monkeypatch.setattr(http_api, "FIRST_WAIT_SECONDS", 0.02)
    items = requests_of(1, n, SamplingParams(max_new_tokens=12, logprobs=b"logprobs" in garbage[1]))
    good = answer(*["w5", "w6"][:n], logprobs={"token_logprobs": [-1.0]})
    with canned(MODELS, garbage, good) as answers:
        (result,) = HttpEngine(folder, answers.settings(siblings="together")).run(items)
        assert [c.text for c in result.completions] == ["w5", "w6"][:n]
        assert len(answers.sent) == 2
        answers.completions[:] = [garbage]
        with pytest.raises(EngineError) as caught:
            list(HttpEngine(folder, answers.settings(siblings="together", retries=1)).run(items))
    message = one_line(caught, answers.url)
    assert words in message.replace("\\\\", "\\")
    assert "given up after 2 tries" in message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        st.lists,
        max_leaves=4,
    )
)
def test_no_json_type_passes_for_another(value: object) -> None:
    """A value of the wrong type anywhere in an answer: the answer is refused."""
    payload = {"max_tokens": 12, "logprobs": 1, "stop": "\n"}
    good = {
        "index": 0,
        "text": "a",
        "finish_reason": "stop",
        "stop_reason": None,
        "logprobs": {"token_logprobs": [-1]},
    }
    for place in (
        "index",
        "text",
        "finish_reason",
        "stop_reason",
        "logprobs",
        "usage",
        "completion_tokens",
        "choices",
    ):
        usage = (
            value
            if place == "usage"
            else {"completion_tokens": value if place == "completion_tokens" else 1}
        )
        choices = value if place == "choices" else [{**good, place: value}]
        try:
            found = http_answer.read_answer(
                json.dumps({"choices": choices, "usage": usage}).encode(), 1, payload
            )
        except (TransientError, http_answer.MissingFieldError):
            continue
        ((text, stop, logprobs),) = found.choices
        assert isinstance(text, str)
        assert stop in ("eos", "stop", "length")
        assert [type(x) for x in logprobs or ()] == [float]
        assert found.n_tokens is None or (type(found.n_tokens) is int and 0 < found.n_tokens <= 12)
        assert place != "index" or value is None or (type(value) is int and value == 0)


def test_a_list_of_models_or_a_failure_nested_too_deeply_is_as_any_other_garbage(
    folder: Path,
) -> None:
    for garbage in (b"<html>", DEEP):
        with canned(reply(garbage), reply(garbage, 418)) as answers:
            engine = HttpEngine(folder, answers.settings())
            with pytest.raises(EngineError, match="status 418 '"):
                list(engine.run(requests_of(1, 1)))


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        *(("3", 3, 3), ("-3", 0, 0), ("nan", 0, 0), ("soon", 0, 0), ("", 0, 0)),
        # Named, since the processes that collect the tests may do so in different seconds.
        pytest.param(formatdate(time.time() + 3600, usegmt=True), 3000, 3600, id="in an hour"),
        pytest.param(
            formatdate(time.time() + 3600), 3000, 3600, id="in an hour, in the zone -0000"
        ),
        pytest.param(formatdate(time.time() - 3600, usegmt=True), 0, 0, id="an hour ago"),
        *((f"Wed, 21 Oct {year} 07:28:00 GMT", 0, 0) for year in ("9" * 12, "9" * 400)),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(given: str, least: float, most: float) -> None:
    assert least <= http_api._retry_after({"retry-after": given}) <= most


def test_retry_after_a_far_date_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(http_api, "LONGEST_RETRY_AFTER_SECONDS", 0.3)
    with canned(
        MODELS, reply({}, 429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"), answer("w5")
    ) as answers:
        begun = time.monotonic()
        list(HttpEngine(folder, answers.settings()).run(requests_of(1, 1)))
        assert 0.3 <= time.monotonic() - begun < 60


def context_of(n_tokens: object) -> Reply:
    return reply(
        {
            "data": [
                {"id": "student", "max_model_len": n_tokens},
                {"id": "other", "max_model_len": 2},
            ]
        }
    )


def test_the_end_of_the_context_ends_a_completion(folder: Path) -> None:
    (item,) = requests_of(1, 2)
    n_tokens = len(encode_segments(load_tokenizer(folder), item.segments))

    def drawn(context: object) -> tuple[Result, list[object]]:
        with canned(context_of(context), answer("w5", "w6", usage={})) as answers:
            (result,) = HttpEngine(folder, answers.settings(siblings="together")).run([item])
            return result, [body["max_tokens"] for body in answers.sent]

    result, asked = drawn(n_tokens + 5)
    assert asked == [5]
    assert [(c.n_tokens, c.stop) for c in result.completions] == [(5, "length")] * 2
    for enough in (n_tokens + 12, n_tokens + 13, None, "many", 0):
        assert drawn(enough)[1] == [12]
    for context in (n_tokens, 1):
        with pytest.raises(
            EngineError,
            match=f"'r0': the prompt has {n_tokens} tokens and the model's context is {context}; "
            "shorten",
        ):
            drawn(context)


def test_waits_grow_differ_and_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def slept(seconds: float) -> None:
        waits.append(seconds)

    async def failing(*_: object) -> None:
        raise TransientError("no", wait=4.0 if len(waits) == 2 else 0.0)

    api = http_api.CompletionsApi(
        "http://localhost:1/v1",
        "m",
        EngineSettings(kind="http", url="http://localhost:1/v1"),
        "start it",
    )
    monkeypatch.setattr(http_api.CompletionsApi, "_try", failing)
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


def test_ctrl_c_ends_the_calls_in_progress_at_once(server: Server, folder: Path) -> None:
    server.faults("slow")
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom support.engine_kinds import "
        "requests_of\nfrom glore.config import EngineSettings\nfrom glore.engines.http.engine "
        f"import HttpEngine\nengine = HttpEngine({str(folder)!r}, EngineSettings(kind='http', "
        f"url={server.url!r}, concurrency=4))\nprint('go', "
        "flush=True)\nlist(engine.run(requests_of(50, 4)))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
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
        ({"concurrency": 3}, "concurrency is for engines of kind http, got kind auto"),
        ({"kind": "ray", "inner": {"kind": "ray"}}, "inner can't be of kind ray"),
        ({"kind": "ray", "max_rows": 8, "inner": {"kind": "torch"}}, "set inner.max_rows"),
        ({"kind": "vllm", "workers": 3}, "workers is for engines of kind ray"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        EngineSettings.model_validate(settings)
