"""Servers that give keys away, lead elsewhere, or never end: what they do to the HTTP engine."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import logging
import socket
import threading
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_http_engine import MODELS, Reply, answer, canned, reply

from glore.config import EngineSettings
from glore.engines.http import api as completions_api
from glore.engines.http.apikey import HIDDEN, ApiKey
from glore.engines.http.engine import HttpEngine
from glore.errors import EngineError, printable, shown
from glore.models import load_tokenizer
from support.engine_kinds import requests_of, save_tiny_model

KEY = "sk-Zq9/x+7'Lm\\0pQw3eRt5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "student")


tokenizer_of = functools.cache(load_tokenizer)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLORE_API_KEY", KEY)
    monkeypatch.setattr(completions_api, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("glore.models.load_tokenizer", tokenizer_of)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ECHOES: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "url": lambda key: urllib.parse.quote(key, safe=""),
    "url, small letters": lambda key: urllib.parse.quote(key, safe="").lower(),
    "base64": lambda key: encoded(key),
    "base64 of the header": lambda key: encoded(f"Bearer {key}"),
    "base64 of user and key": lambda key: encoded(f":{key}"),
    "hex": lambda key: key.encode().hex(),
    "json": lambda key: json.dumps(key)[1:-1],
    "cut short": lambda key: key[:-4],
    "its end": lambda key: key[5:],
    "cut by the bound of a message": lambda key: "x" * 190 + key,
    "twice": lambda key: f"{key} {key}{key}",
}


def leaks(text: str) -> list[str]:
    """Eight characters of the key, or of what encodings make of it, in a row."""
    forms = [
        KEY,
        repr(KEY)[1:-1],
        json.dumps(KEY)[1:-1],
        urllib.parse.quote(KEY, safe=""),
        KEY.encode().hex(),
    ]
    forms += [encoded("\0" * n + KEY)[4:-4] for n in range(3)]
    return [
        form[i : i + 8] for form in forms for i in range(len(form) - 7) if form[i : i + 8] in text
    ]


def everything(error: BaseException) -> str:
    """The message, its chain as a traceback shows it, and the reprs."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("status", [200, 307, 503])
def test_a_server_that_echoes_the_key(
    folder: Path, caplog: pytest.LogCaptureFixture, echo: Callable[[str], str], status: int
) -> None:
    told = echo(KEY)
    unicode = "".join(f"\\u{ord(c):04x}" for c in told)
    bodies = [
        reply(
            {"error": {"message": f"wrong key {told}"}},
            status,
            Location=f"/{urllib.parse.quote(told)}?key=1",
        ),
        reply(f"{told} {told}".encode(), status),
        reply(f'{{"error": {{"message": "wrong {unicode}"}}}}'.encode(), status),
        reply({"data": [{"id": told}]}, status),
        reply(f'{{"data": [{{"id": "{unicode}"}}]}}'.encode(), status),
        reply({"choices": [{"text": told, "finish_reason": told}]}, status),
        reply(f'{{"choices": [{{"text": "a", "finish_reason": "{unicode}"}}]}}'.encode(), status),
    ]
    texts = []
    with canned(MODELS, MODELS) as answers, caplog.at_level(logging.DEBUG, "glore"):
        for body in bodies:
            answers.models[:] = [body]
            try:
                HttpEngine(folder, answers.settings(wait_seconds=0.01))
            except EngineError as error:
                texts.append(everything(error))
            answers.models[:], answers.completions[:] = [MODELS], [body]
            engine = HttpEngine(folder, answers.settings(retries=1))
            with pytest.raises(EngineError) as caught:
                list(engine.run(requests_of(1, 1)))
            texts.append(
                everything(caught.value)
                + repr(engine.api)
                + repr(engine.api.key)
                + str(engine.api.key)
            )
    assert len(texts) >= len(bodies)
    assert [found for text in [*texts, caplog.text] for found in leaks(text)] == []


def test_a_completion_that_holds_the_key_does_not_carry_it_into_records(folder: Path) -> None:
    with canned(MODELS, answer(f"w5 {KEY} w6")) as answers:
        (result,) = HttpEngine(folder, answers.settings()).run(requests_of(1, 1))
    assert result.completions[0].text == f"w5 {HIDDEN} w6"
    escaped = json.dumps(KEY)[1:-1].replace("/", "\\/").replace("Z", "\\u005a")
    body = (
        f'{{"choices": [{{"index": 0, "text": "{escaped}", "finish_reason": "stop"}}], '
        '"usage": {"completion_tokens": 3}}'
    )
    with canned(MODELS, reply(body.encode())) as answers:
        (result,) = HttpEngine(folder, answers.settings()).run(requests_of(1, 1))
    assert result.completions[0].text == HIDDEN


@pytest.mark.parametrize("name", ["", "x", "none", "EMPTY"])
def test_words_that_servers_take_for_a_key_change_no_completion(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("GLORE_API_KEY", name)
    with canned(MODELS, answer("none EMPTY x w5")) as answers:
        (result,) = HttpEngine(folder, answers.settings()).run(requests_of(1, 1))
    assert result.completions[0].text == "none EMPTY x w5"


def test_a_model_may_be_called_what_the_key_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLORE_API_KEY", "student")
    with canned(MODELS) as answers:
        HttpEngine(folder, answers.settings())


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60),
    st.text(max_size=20),
    st.text(max_size=20),
)
def test_no_encoding_of_a_key_stays_in_a_message(key: str, before: str, after: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLORE_API_KEY", key)
        secret = ApiKey("GLORE_API_KEY")
    for echo in (
        str,
        urllib.parse.quote,
        lambda k: json.dumps(k)[1:-1],
        lambda k: k.encode().hex(),
    ):
        told = secret.clean(before + echo(key) + after)
        assert key not in told
        assert echo(key) not in told
    for n in range(3):
        assert encoded("\0" * n + key)[4 : -4 or None] not in secret.clean(
            encoded("\0" * n + key + "\0" * n)
        )
    assert secret.hidden(f"{before}{key}{after}").count(HIDDEN) >= 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "shown_as"),
    [
        ("https://evil.example/v1/models?token=abc", "'https://evil.example/v1/models'"),
        ("/other", "/other'"),
        ("https://user:hunter2@evil.example/", "'https://…@evil.example/'"),
        ("//evil.example\x1b[31m/x", "evil.example"),
    ],
)
def test_a_redirect_is_named_and_not_followed(
    folder: Path, status: int, location: str, shown_as: str
) -> None:
    led: Reply = (status, b"", {"Location": location})
    with canned(led) as answers:
        with pytest.raises(EngineError) as models:
            HttpEngine(folder, answers.settings(wait_seconds=60))
        answers.models[:] = [MODELS]
        answers.completions[:] = [led]
        with pytest.raises(EngineError) as completions:
            list(HttpEngine(folder, answers.settings()).run(requests_of(1, 1)))
        assert len(answers.sent) == 1
    for caught in (models, completions):
        message = str(caught.value)
        assert f"status {status} leads to " in message
        assert shown_as in message
        assert "no redirect is followed" in message
        assert "set engine.url to the address that answers itself" in message
        assert "hunter2" not in message
        assert "token" not in message
        assert printable(message) == message


@pytest.mark.parametrize("status", [502, 520, 521, 522, 523, 524, 529])
def test_what_proxies_say_of_a_server_that_is_away_is_tried_again(
    folder: Path, status: int
) -> None:
    with canned(
        MODELS, reply(b"<html>", status), reply(b"<html>", status), answer("w5")
    ) as answers:
        (result,) = HttpEngine(folder, answers.settings()).run(requests_of(1, 1))
        assert len(answers.sent) == 3
    assert result.completions[0].text == "w5"


@contextlib.contextmanager
def trickling(head: bytes, pause: float = 0.1) -> Iterator[str]:
    """A server that answers a byte at a time, for ever."""
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for byte in head:
                if not ended.wait(pause if b"\r\n\r\n" not in head else 0):
                    connection.sendall(bytes([byte]))
            while not ended.wait(pause):
                connection.sendall(b" ")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            ended.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: "],
    ids=["body", "header"],
)
def test_a_list_of_models_at_a_byte_at_a_time_ends_at_the_limit(folder: Path, head: bytes) -> None:
    with trickling(head) as url:
        limited = EngineSettings(kind="http", url=url, timeout_seconds=0.6)
        begun = time.monotonic()
        with pytest.raises(
            EngineError,
            match=r"/models: no whole answer within 0\.6 s \(engine\.timeout_seconds, at most 10\)",
        ):
            HttpEngine(folder, limited)
        assert time.monotonic() - begun < 3


def test_an_endless_list_of_models_is_read_up_to_a_bound(folder: Path) -> None:
    with canned(reply(b" " * (8 << 20))) as answers:
        HttpEngine(folder, answers.settings())


def test_a_packed_answer_is_not_unpacked(folder: Path) -> None:
    import gzip

    packed = gzip.compress(b" " * (64 << 20))
    with (
        canned(MODELS, reply(packed, Content_Encoding="gzip")) as answers,
        pytest.raises(EngineError, match="the answer is not JSON"),
    ):
        list(HttpEngine(folder, answers.settings(retries=0)).run(requests_of(1, 1)))


def test_a_count_of_tokens_that_is_not_given_is_counted_here(folder: Path) -> None:
    with canned(
        MODELS, answer("w5 w6 w7", usage={"completion_tokens": None}, finish_reason="stop")
    ) as answers:
        (result,) = HttpEngine(folder, answers.settings()).run(requests_of(1, 1))
    assert result.completions[0].n_tokens == 4, "three words and the end, encoded again"


@pytest.mark.parametrize("given", [True, False, 2.0, "2"])
def test_a_count_of_tokens_that_is_no_whole_number_is_refused(folder: Path, given: object) -> None:
    with (
        canned(
            MODELS, answer("w5 w6 w7", usage={"completion_tokens": given}, finish_reason="stop")
        ) as answers,
        pytest.raises(EngineError, match="which is no whole number"),
    ):
        list(HttpEngine(folder, answers.settings(retries=0)).run(requests_of(1, 1)))


@pytest.mark.parametrize("show", [shown, printable])
def test_user_and_password_in_an_address_are_shown_nowhere(show: Callable[..., str]) -> None:
    for address in (
        "http://user:hunter2@host/v1",
        "https://hunter2@host",
        "http://u:hun/ter2@x@host",
        "a http://user:hunter2@host b",
    ):
        for text in (address, "x" * 75 + address, "x" * 1990 + address):
            assert not {"hunter2", "ter2", "user"} & set(
                show(text).replace(":", " ").replace("@", " ").replace("/", " ").split()
            ), show(text)
    assert "host/v1" in show("http://user:hunter2@host/v1")
