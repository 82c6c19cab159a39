"""When memory runs out: the batch shrinks, results stay, no request is lost, and a completion that
does not fit alone is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from glore.engines.local.attention import KVCache
from glore.engines.local.engine import TorchEngine
from glore.engines.local.rows import RowTable
from glore.engines.local.runner import ModelRunner
from glore.engines.local.scorer import StepScorer
from glore.engines.protocol import Request, Result, SamplingParams
from glore.errors import EngineError
from support.tiny_models import tiny_lm, tiny_step_model, tiny_tokenizer

PARAMS = SamplingParams(max_new_tokens=8)
BACKENDS = pytest.mark.parametrize("backend", ["native", "paged", "fallback"])


def engine_of(
    backend: str = "native", max_rows: int = 4, cache_tokens: int | None = None
) -> TorchEngine:
    backends = {"native": ("native", "paged"), "paged": ("paged",), "fallback": ("fallback",)}[
        backend
    ]
    return TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows, cache_tokens, backends)


def requests(n: int, k: int = 2) -> list[Request]:
    return [
        Request(f"r{i}", ("w3 w4 w5", f" w{6 + i}"), tuple(10 * i + j for j in range(k)), PARAMS)
        for i in range(n)
    ]


def texts(results: list[Result]) -> dict[str, tuple[str, ...]]:
    assert len({r.request.id for r in results}) == len(results)
    assert all(len(r.completions) == len(r.request.seeds) for r in results)
    return {r.request.id: tuple(c.text for c in r.completions) for r in results}


def failing(method: Callable[..., Any], fails: Callable[..., bool]) -> Callable[..., Any]:
    """The method, out of the device's memory where `fails` says so."""

    def wrapped(*args: Any, **options: Any) -> Any:
        if fails(*args, **options):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return method(*args, **options)

    return wrapped


def first(n: int) -> Callable[..., bool]:
    """The first `n` calls."""
    calls = iter(range(n))
    return lambda *_, **__: next(calls, None) is not None


def small_device(monkeypatch: pytest.MonkeyPatch, n_pages: int) -> list[int]:
    """Memory for `n_pages` pages and no more. Returns a list that grows with what is asked for."""
    asked: list[int] = []

    def too_large(store: KVCache, *_: object) -> bool:
        asked.append(store.n_pages)
        return store.n_pages > n_pages

    monkeypatch.setattr(KVCache, "layer", failing(KVCache.layer, too_large))
    return asked


@pytest.mark.parametrize("backend", ["native", "paged"])
@pytest.mark.parametrize(("max_rows", "n_pages"), [(16, 100), (16, 3), (1, 10)])
def test_a_store_too_large_for_the_device_shrinks(
    backend: str, max_rows: int, n_pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = texts(list(engine_of(backend, 16).run(requests(9))))
    engine = engine_of(backend, max_rows)
    asked = small_device(monkeypatch, n_pages)
    assert texts(list(engine.run(requests(9)))) == expected
    assert engine.n_pages == asked[0] > n_pages >= asked[-1]


def test_a_device_without_room_for_one_completion_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_of("paged", 16)
    asked = small_device(monkeypatch, 2)
    with pytest.raises(EngineError, match="not enough memory for a single completion"):
        list(engine.run(requests(3)))
    assert min(asked) == 3  # two pages of the prompt, one for what is drawn


def test_a_long_request_after_memory_ran_out_gets_its_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = " ".join(f"w{3 + i % 50}" for i in range(90))
    items = [
        *requests(6),
        Request("long", (words,), (1, 2, 3), SamplingParams(max_new_tokens=30)),
        *requests(9)[6:],
    ]
    expected = texts(list(engine_of("paged").run(items)))
    engine, forward, sizes = engine_of("paged"), ModelRunner.forward, []

    def noting(self: ModelRunner, batch: Any, store: KVCache, n_threads: int = 1) -> torch.Tensor:
        sizes.append(store.n_pages)
        return forward(self, batch, store, n_threads)

    monkeypatch.setattr(ModelRunner, "forward", failing(noting, first(6)))
    assert texts(list(engine.run(items))) == expected
    assert min(sizes) == 3
    assert sizes[-1] == 8

    asked = small_device(monkeypatch, 7)
    with pytest.raises(EngineError, match="not enough memory for a single completion"):
        list(engine.run(items))
    assert 8 in asked


def test_the_prompt_pass_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [Request(str(i), (" ".join([f"w{3 + i}"] * 40),), (i,), PARAMS) for i in range(6)]
    expected = texts(list(engine_of("paged", 1).run(items)))
    engine = engine_of("paged", 1)
    monkeypatch.setattr(
        ModelRunner,
        "forward",
        failing(ModelRunner.forward, lambda _, batch, *__: batch.tokens.size > 20),
    )
    assert texts(list(engine.run(items))) == expected


@BACKENDS
@pytest.mark.parametrize("n", [0, 2, 12])
def test_a_source_out_of_memory_is_not_a_full_batch(backend: str, n: int) -> None:
    def source() -> Iterator[Request]:
        yield from requests(n)
        raise MemoryError("the source")

    with pytest.raises(MemoryError, match="the source"):
        list(engine_of(backend).run(source()))


@BACKENDS
@pytest.mark.parametrize("n", [0, 2, 12])
def test_encoding_out_of_memory_is_not_a_full_batch(
    backend: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(backend)
    encode = engine.encode
    monkeypatch.setattr(engine, "encode", failing(encode, lambda request: request.id == f"r{n}"))
    with pytest.raises(torch.OutOfMemoryError):
        list(engine.run(requests(20)))


@pytest.mark.parametrize("backend", ["native", "paged"])
def test_what_is_done_stays_done(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items = requests(8, k=3)
    items[1:1] = [Request("empty", ("w3",), (), PARAMS)]
    expected = texts(list(engine_of(backend).run(items)))
    assert expected["empty"] == ()
    with monkeypatch.context() as patch:
        patch.setattr(ModelRunner, "forward", failing(ModelRunner.forward, first(1)))
        assert texts(list(engine_of(backend).run(items))) == expected
    # After the step's completions are kept, and some requests are done.
    monkeypatch.setattr(RowTable, "drop", failing(RowTable.drop, first(2)))
    assert texts(list(engine_of(backend).run(items))) == expected


def test_other_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shapes differ")

    engine = engine_of()
    monkeypatch.setattr(engine.runner, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(engine.run(requests(1)))


@pytest.mark.parametrize("n_pages", range(5, 12))
def test_a_prompt_that_waits_for_rows_is_preempted_for_the_last_row(n_pages: int) -> None:
    items = [
        Request("a", (" w3",), (1,), SamplingParams(max_new_tokens=60)),
        Request("b", (" w4",) * 4, (1, 2, 3, 4, 5), PARAMS),
    ]
    plenty, little = engine_of("paged", 3), engine_of("paged", 3, 16 * n_pages)
    plenty._eos = little._eos = np.array([], np.int64)
    assert little.n_pages == n_pages
    assert texts(list(little.run(items))) == texts(list(plenty.run(items)))


def test_waves_of_the_fallback_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    items = requests(7, k=3)
    items[1:1] = [Request("empty", ("w3",), (), PARAMS)]
    expected = texts(list(engine_of("fallback").run(items)))
    engine = engine_of("fallback", 8)
    forward = engine.model.forward
    monkeypatch.setattr(
        engine.model,
        "forward",
        failing(forward, lambda *_, input_ids, **__: input_ids.shape[0] > 2),
    )
    assert texts(list(engine.run(items))) == expected
    monkeypatch.setattr(engine.model, "forward", failing(forward, lambda *_, **__: True))
    with pytest.raises(EngineError, match="not enough memory for a single completion"):
        list(engine.run(items))


@BACKENDS
def test_scoring_shrinks(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        (f"w{3 + i} w4 w5", tuple(f"w{i + j} w7" for j in range(3, 5 + i % 4))) for i in range(12)
    ] + [("w3", ())]
    backends = {"native": ("native", "paged"), "paged": ("paged",), "fallback": ("fallback",)}[
        backend
    ]
    scorer = StepScorer.of(tiny_step_model(), tiny_tokenizer(), 256, backends)
    expected = scorer.score(items)
    owner, name = (
        (scorer.model, "forward") if backend == "fallback" else (scorer._runner, "forward")
    )
    forward = getattr(owner, name)

    def too_many(*batches: Any, input_ids: torch.Tensor | None = None, **_: object) -> bool:
        return (batches[0].tokens.size if input_ids is None else input_ids.numel()) > 40

    monkeypatch.setattr(owner, name, failing(forward, too_many))
    for got, wanted in zip(scorer.score(items), expected, strict=True):
        assert got == pytest.approx(wanted, abs=1e-5)
    assert scorer.scoring_tokens < 256
    monkeypatch.setattr(owner, name, failing(forward, lambda *_, **__: True))
    with pytest.raises(EngineError, match="not enough memory to score a single solution"):
        scorer.score(items)
