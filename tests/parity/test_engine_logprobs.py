"""Log-probabilities against a forward pass of transformers, and stops against texts without them,
for every backend.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import glore.engines.local.runner
from glore.engines.local.engine import TorchEngine
from glore.engines.local.stops import StopFinder
from glore.engines.protocol import Completion, Request, SamplingParams
from glore.prompts import STEP_END
from glore.seeds import stable_seed
from support.tiny_models import VOCAB, tiny_lm, tiny_tokenizer

WARM = SamplingParams(temperature=1.0, max_new_tokens=25)
BACKENDS = [
    ("llama", "native"),
    ("qwen3", "native"),
    ("gemma2", "paged"),
    ("gpt2", "paged"),
    ("llama", "torch"),
    ("bloom", "fallback"),
]


def engine_of(
    architecture: str, backend: str, monkeypatch: pytest.MonkeyPatch, max_rows: int = 7
) -> TorchEngine:
    """`torch`: the paged backend without compiled code."""
    if backend == "torch":
        monkeypatch.setattr(glore.engines.local.runner, "library", lambda: None)
    elif backend == "native" and glore.engines.local.runner.library() is None:
        pytest.skip("no C compiler here, or switched off")
    backends = ("native",) if backend == "native" else ("paged",)
    engine = TorchEngine.of(
        tiny_lm(architecture), tokenizer_with_lines(), max_rows=max_rows, backends=backends
    )
    assert engine.runner.backend == ("paged" if backend == "torch" else backend)
    return engine


def tokenizer_with_lines() -> PreTrainedTokenizerFast:
    """The tiny tokenizer; every seventh word ends a line."""
    tokenizer = tiny_tokenizer()
    words = tokenizer.get_vocab()
    changed = {
        (f"x{i}{STEP_END}" if w.startswith("w") and i % 7 == 0 else w): i for w, i in words.items()
    }
    inner = type(tokenizer.backend_tokenizer.model)(changed, unk_token="w3")
    tokenizer.backend_tokenizer.model = inner
    return tokenizer


def requests(n: int, k: int, params: SamplingParams) -> list[Request]:
    rng = random.Random(4)
    return [
        Request(
            f"r{i}",
            tuple(
                " ".join(f"w{rng.randrange(22, 28)}" for _ in range(rng.randint(1, 9))) + " "
                for _ in range(1 + i % 3)
            ),
            tuple(stable_seed(i, j) for j in range(k)),
            params,
        )
        for i in range(n)
    ]


def drawn(engine: TorchEngine, items: list[Request]) -> dict[tuple[str, int], Completion]:
    return {(r.request.id, c.seed): c for r in engine.run(items) for c in r.completions}


@pytest.mark.parametrize(("architecture", "backend"), BACKENDS)
@pytest.mark.parametrize(
    "params", [WARM, SamplingParams(0.5, 0.8, 10, 12), SamplingParams(0.0, max_new_tokens=8)]
)
def test_log_probabilities_are_the_models_own(
    architecture: str, backend: str, params: SamplingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = requests(5, 3, dataclasses.replace(params, logprobs=True))
    engine = engine_of(architecture, backend, monkeypatch)
    words = engine.texts
    engine.texts = lambda rows: [" ".join(map(str, row)) for row in rows]  # type: ignore[method-assign]  # ids, special ones too
    got = drawn(engine, items)
    engine.texts = words  # type: ignore[method-assign]
    model = tiny_lm(architecture)
    n_checked = 0
    for item in items:
        prompt = engine.tokenizer("".join(item.segments))["input_ids"]
        for seed in item.seeds:
            completion = got[item.id, seed]
            tokens = [int(t) for t in completion.text.split()]
            with torch.inference_mode():
                logits = (
                    model(input_ids=torch.tensor([[*prompt, *tokens]]))
                    .logits[0, len(prompt) - 1 : -1]
                    .double()
                )
            expected = torch.log_softmax(logits, -1)[range(len(tokens)), tokens]
            assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
            assert completion.tokens == tuple(tokens)
            n_checked += len(tokens)
    assert n_checked > 60


@pytest.mark.parametrize(("architecture", "backend"), BACKENDS)
def test_alone_or_in_company_texts_stops_and_log_probabilities_are_the_same(
    architecture: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some ask for log-probabilities, some for a stop, some for both or neither."""
    items = requests(12, 3, WARM)
    items = [
        dataclasses.replace(
            r,
            params=dataclasses.replace(WARM, logprobs=i % 2 == 0, stop=("", STEP_END, "w4")[i % 3]),
        )
        for i, r in enumerate(items)
    ]
    together = drawn(engine_of(architecture, backend, monkeypatch, 64), items)
    alone = {
        k: c
        for item in items
        for k, c in drawn(engine_of(architecture, backend, monkeypatch, 1), [item]).items()
    }
    assert {k: (c.text, c.n_tokens, c.stop) for k, c in together.items()} == {
        k: (c.text, c.n_tokens, c.stop) for k, c in alone.items()
    }
    for key, completion in together.items():
        other = alone[key].logprobs
        if other is None:
            assert completion.logprobs is completion.tokens is None
        else:
            assert completion.logprobs == pytest.approx(other, abs=1e-5)
            assert len(other) == completion.n_tokens
    assert {c.stop for c in together.values()} == {"stop", "eos", "length"}


@pytest.fixture(scope="module")
def engines() -> list[TorchEngine]:
    tokenizer = tokenizer_with_lines()
    return [
        TorchEngine.of(tiny_lm("llama"), tokenizer, max_rows=5),
        TorchEngine.of(tiny_lm("gemma"), tokenizer, max_rows=5, backends=("paged",)),
        TorchEngine.of(tiny_lm("bloom"), tokenizer, max_rows=5),
    ]


@given(
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(22, 27),
    stop=st.sampled_from([STEP_END, f"{STEP_END} w", "w1", "8", " ", "4 w", "w5 w5", "x"]),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    n_new=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_a_stopped_completion_is_the_beginning_of_the_same_one_without_a_stop(
    engines: list[TorchEngine], seed: int, first: int, stop: str, temperature: float, n_new: int
) -> None:
    params = SamplingParams(temperature, max_new_tokens=n_new)

    def ask(
        engine: TorchEngine, seeds: tuple[int, ...], changed: SamplingParams
    ) -> tuple[Completion, ...]:
        (result,) = engine.run([Request("it", (f"w{first} w23",), seeds, changed)])
        return result.completions

    for engine in engines:
        whole = ask(engine, (seed, seed ^ 1), params)
        for one, other in zip(
            whole,
            ask(engine, (seed, seed ^ 1), dataclasses.replace(params, stop=stop)),
            strict=True,
        ):
            before, mark, _ = one.text.partition(stop)
            if not mark:
                assert other == one
                continue
            assert (other.text, other.stop) == (before, "stop")
            assert other.n_tokens <= one.n_tokens
            if other.n_tokens > 1:  # no token more than the stop needs
                fewer = dataclasses.replace(params, max_new_tokens=other.n_tokens - 1)
                assert stop not in ask(engine, (other.seed,), fewer)[0].text


def test_a_stop_is_found_however_it_falls_into_tokens() -> None:
    pieces = [b"a", b"b\n", b"\n", "é".encode()[:1], "é".encode()[1:], b"c", b"\nd"]
    calls = []

    def decode(rows: list[list[int]]) -> list[str]:
        calls.append(rows)
        return [b"".join(pieces[t] for t in row).decode(errors="replace") for row in rows]

    finder = StopFinder(decode)

    def text(tokens: list[int], stop: str) -> str | None:
        for n in range(1, len(tokens) + 1):
            (found,) = finder.cut([(tokens[:n], stop)])
            if found is not None:
                return f"{n}:{found}"
        return None

    assert text([0, 5, 1, 0], "\n") == "3:acb"
    assert text([0, 6, 0], "\n") == "2:a"
    assert text([1, 2, 0], "\n\n") == "2:b"
    assert text([0, 3, 4, 0], "é") == "3:a"
    assert text([0, 3, 4, 5, 1], "éc") == "4:a"
    assert text([0, 5, 0], "\n") is None
    calls.clear()
    assert finder.cut([([0, 5], "\n"), ([5, 0], "\n")]) == [None, None]
    assert calls == []  # what no token can end is not decoded


def test_every_word_of_the_tokenizer_with_lines_is_its_own() -> None:
    assert len(tokenizer_with_lines().get_vocab()) == VOCAB
