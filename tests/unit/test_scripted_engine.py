"""The scripted engine keeps the Engine contract."""

from __future__ import annotations

import pytest

from glore.engines.protocol import Engine, Request, Result, SamplingParams
from glore.engines.scripted import ScriptedEngine
from glore.errors import EngineError
from glore.seeds import stable_seed


def request(name: str, n: int = 1, limit: int = 50) -> Request:
    return Request(
        name,
        (f"Question: {name}\n", "step\n"),
        tuple(stable_seed(name, k) for k in range(n)),
        SamplingParams(max_new_tokens=limit),
    )


def test_a_function_sees_request_and_seed() -> None:
    engine: Engine = ScriptedEngine(lambda r, seed: f"{r.id} says {seed}")
    (result,) = engine.run([request("a", n=3)])
    assert [c.text for c in result.completions] == [f"a says {s}" for s in result.request.seeds]
    assert [c.seed for c in result.completions] == list(result.request.seeds)
    assert len({c.text for c in result.completions}) == 3
    assert all(c.stop == "eos" and c.n_tokens == 4 for c in result.completions)


def test_a_table_answers_by_id_or_prompt_and_repeats() -> None:
    engine = ScriptedEngine({"a": ["one", "two"], "Question: b\nstep\n": ["by prompt"]})
    texts = {
        r.request.id: [c.text for c in r.completions]
        for r in engine.run([request("a", n=3), request("b")])
    }
    assert texts == {"a": ["one", "two", "one"], "b": ["by prompt"]}
    with pytest.raises(EngineError, match="no answer for request 'c'"):
        list(engine.run([request("c")]))


def test_a_long_text_is_cut_and_says_so() -> None:
    (result,) = ScriptedEngine({"a": ["1 2 3\n4 5 6\n7"]}).run([request("a", limit=5)])
    assert result.completions[0].text == "1 2 3\n4 5"
    assert (result.completions[0].n_tokens, result.completions[0].stop) == (5, "length")


def test_follow_ups_are_answered_in_any_order() -> None:
    def halve(result: Result) -> list[Request]:
        n = int(result.request.id)
        return [request(str(n // 2))] if n > 1 else []

    def run(shuffle: int | None) -> list[str]:
        engine = ScriptedEngine(lambda r, seed: f"{r.id}:{seed}", shuffle=shuffle)
        return [
            r.completions[0].text
            for r in engine.run((request(str(n)) for n in range(16, 24)), halve)
        ]

    plain, shuffled = run(None), run(3)
    assert len(plain) == 8 * 5
    assert sorted(plain) == sorted(shuffled)
    assert plain != shuffled


def test_the_source_is_read_lazily() -> None:
    taken = []

    def endless():
        n = 0
        while True:
            n += 1
            taken.append(n)
            yield request(str(n))

    stream = ScriptedEngine(lambda r, seed: "x", window=4).run(endless())
    for _ in range(6):
        next(stream)
    assert len(taken) <= 10


def test_a_stop_cuts_the_text_and_log_probabilities_are_refused() -> None:
    engine = ScriptedEngine({"a": ["1 2 3\n4 5 6\n7", "8 9"]})
    params = SamplingParams(max_new_tokens=5, stop="\n")
    (result,) = engine.run([Request("a", ("a",), (1, 2), params)])
    assert [(c.text, c.n_tokens, c.stop) for c in result.completions] == [
        ("1 2 3", 3, "stop"),
        ("8 9", 3, "eos"),
    ]
    (result,) = engine.run(
        [Request("a", ("a",), (1,), SamplingParams(max_new_tokens=2, stop="\n"))]
    )
    assert (result.completions[0].text, result.completions[0].stop) == ("1 2", "length")
    with pytest.raises(
        EngineError,
        match="request 'a': this engine does not know logprobs: a script has no probabilities",
    ):
        list(engine.run([Request("a", ("a",), (1,), SamplingParams(logprobs=True))]))
