"""Texts that are told while they are drawn: always the beginning of the final text."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.engines.local.engine import TorchEngine
from glore.engines.local.scheduler import Scheduler
from glore.engines.partial import StreamsText, certain
from glore.engines.protocol import Completion, Request, Result, SamplingParams
from support.engine_kinds import by_id, requests_of
from support.fakes import FunctionEngine
from support.tiny_models import tiny_lm, tiny_tokenizer


def before_stops(text: str, stops: list[str]) -> str:
    return text[: min((p for stop in stops if (p := text.find(stop)) >= 0), default=len(text))]


@given(st.text("ab\n", max_size=12), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_what_is_certain_begins_every_continuation(text: str, stops: list[str]) -> None:
    final = before_stops(text, stops)
    shown = [certain(text[:n], stops) for n in range(len(text) + 1)]
    assert all(final.startswith(part) for part in shown)
    assert certain(text) == text
    assert certain(f"{text}x", [stop for stop in stops if stop not in text]) == f"{text}x"


@given(st.binary(max_size=12) | st.text(max_size=6).map(lambda text: text.encode()))
def test_half_a_character_is_never_shown(content: bytes) -> None:
    final = content.decode(errors="replace")
    for n in range(len(content) + 1):
        part = certain(content[:n].decode(errors="replace"))
        assert final.startswith(part)
        assert not part.endswith("\N{REPLACEMENT CHARACTER}")


def told(engine: TorchEngine, requests: list[Request]) -> tuple[list[Result], dict[tuple, list]]:
    """The results, and the texts that those who listen to even requests were told."""
    heard: dict[tuple[str, int], list[str]] = defaultdict(list)
    asked: list[str] = []

    def listener_of(request: Request) -> object:
        asked.append(request.id)
        if int(request.id.strip("r")) % 2:
            return None
        return lambda index, text: heard[request.id, index].append(text)

    ended: dict[tuple[str, int], Completion] = {}

    def on_completion(request: Request, index: int, completion: Completion) -> None:
        assert (request.id, index) not in ended
        ended[request.id, index] = completion

    results = []
    for result in engine.stream(requests, None, listener_of, on_completion=on_completion):
        results.append(result)
        for index, completion in enumerate(result.completions):
            assert ended.pop((result.request.id, index)) == completion, "told before the result"
    assert not ended
    assert sorted(asked) == sorted(r.id for r in requests)
    return results, heard


@pytest.mark.parametrize("backends", [None, ()])
@pytest.mark.parametrize("stop", ["", "w1", "\N{CYRILLIC SMALL LETTER A}"])
def test_streamed_texts_begin_the_completions_of_a_plain_run(
    monkeypatch: pytest.MonkeyPatch, backends: tuple[str, ...] | None, stop: str
) -> None:
    monkeypatch.setattr("glore.engines.local.texts_so_far._SHARE", 1)  # after every token
    more = {} if backends is None else {"backends": backends}
    engine = TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows=4, **more)
    assert isinstance(engine, StreamsText)
    assert not isinstance(FunctionEngine(lambda request, seed: ""), StreamsText)
    if not stop.isascii():  # bytes as tokens: characters of several tokens, and broken ones
        letters = [*b"abcdefgh \n" * 2, 0xD0, 0xB0, 0xE2, 0x82, 0xAC]
        monkeypatch.setattr(
            engine,
            "texts",
            lambda rows: [
                bytes(letters[t % len(letters)] for t in row).decode(errors="replace")
                for row in rows
            ],
        )
    params = SamplingParams(temperature=1.0, max_new_tokens=15, stop=stop)
    requests = [dataclasses.replace(r, params=params) for r in requests_of(7, 3)]
    plain = by_id(list(engine.run(requests)))
    results, heard = told(engine, requests)
    assert by_id(results) == plain
    assert {name for name, _ in heard} <= {"r0", "r2", "r4", "r6"}
    assert len(heard) > 3
    for (name, index), texts in heard.items():
        final = plain[name][index][0]
        assert all(final.startswith(text) for text in texts)
        assert len(set(texts)) == len(texts)
    assert max(len(texts) for texts in heard.values()) > 4
    engine.close()


def test_telling_takes_a_small_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("glore.engines.local.texts_so_far.time.monotonic", lambda: now[0])
    engine = TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows=4)
    decode = engine.texts

    def slow(rows: list[list[int]]) -> list[str]:
        now[0] += bool(rows)
        return decode(rows)

    monkeypatch.setattr(engine, "texts", slow)
    _, heard = told(engine, requests_of(1, 1))
    # The first telling took a second, so the next one may come nine seconds later: never here.
    assert [len(texts) for texts in heard.values()] == [1]
    engine.close()


def test_a_request_that_nobody_wants_gives_its_rows_to_others() -> None:
    """Rows, seeds that wait for rows, and requests in the queue; the others' texts are the same."""
    engine = TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows=4)
    params = SamplingParams(temperature=1.0, max_new_tokens=40)
    requests = [dataclasses.replace(r, params=params) for r in requests_of(5, 6)]
    plain = {r.request.id: r.completions for r in engine.run(requests)}
    steps = 0

    def is_wanted(request: Request) -> bool:
        return request.id == requests[1].id or steps < 5

    step = Scheduler.step

    def counted(scheduler: Scheduler) -> list[Result]:
        nonlocal steps
        steps += 1
        return step(scheduler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "step", counted)
        results = list(engine.stream(requests, None, lambda _: None, is_wanted))
        n_given_up, steps = steps, 0
        list(engine.run(requests))
    got = {r.request.id: r.completions for r in results}
    assert got[requests[1].id] == plain[requests[1].id]
    assert n_given_up < steps, "fewer steps than for all of them"
    for request in (requests[0], *requests[2:]):
        completions = got[request.id]
        assert len(completions) == len(request.seeds), "every request still has its result"
        for one, whole in zip(completions, plain[request.id], strict=True):
            assert whole.text.startswith(one.text)
            assert one.n_tokens < 40 or one == whole
    assert {r.request.id: r.completions for r in engine.run(requests)} == plain, (
        "nothing of it stays in the engine"
    )
