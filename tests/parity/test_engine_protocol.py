"""One protocol, every engine: the same requests draw the same completions, in any order, with
follow-ups, through any kind.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glore.config import EngineSettings
from glore.engines.local.engine import TorchEngine
from glore.engines.open import open_engine
from glore.engines.protocol import Engine, Request, Result, SamplingParams
from glore.errors import EngineError
from support import fake_vllm
from support import real_vllm as real
from support.engine_kinds import WARM, Server, by_id, requests_of, save_tiny_model, seeds, serving
from support.processes import descendants
from support.real_vllm import OneByOne

KINDS = (
    "torch",
    "http",
    "http-text",
    "http-together",
    "vllm",
    pytest.param("ray", marks=pytest.mark.slow),
    pytest.param("real-vllm", marks=pytest.mark.vllm),
    pytest.param("real-server", marks=pytest.mark.vllm),
)
Open = Callable[[], Engine]


def wait_until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    """Processes that were told to end do so within seconds."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "student") as running:
        yield running


@pytest.fixture(scope="module")
def torch_engine(folder: Path) -> TorchEngine:
    return TorchEngine(folder, EngineSettings(device="cpu", max_rows=64))


@pytest.fixture
def reference(
    request: pytest.FixtureRequest, engine: Engine, torch_engine: TorchEngine
) -> TorchEngine | OneByOne:
    """What an engine is compared with. A real vLLM has random numbers of its own, so it is compared
    with itself: every request in a run of its own.
    """
    return OneByOne(engine) if "real" in request.node.name else torch_engine


def settings_of(kind: str, request: pytest.FixtureRequest) -> EngineSettings:
    if kind == "torch":
        return EngineSettings(device="cpu", max_rows=8)
    if kind == "vllm":
        fake_vllm.install(request.getfixturevalue("monkeypatch"))
        return EngineSettings(kind="vllm", max_rows=4)
    running: Server = request.getfixturevalue("server")
    running.faults()
    variants = {
        "http": EngineSettings(kind="http", url=running.url, concurrency=8),
        "http-text": EngineSettings(
            kind="http", url=running.url, concurrency=3, prompt="text", extensions=False
        ),
        "http-together": EngineSettings(
            kind="http", url=running.url + "/", concurrency=1, siblings="together"
        ),
    }
    return variants[kind]


@pytest.fixture(scope="module")
def ray_pool(folder: Path) -> Iterator[Engine]:
    """Two workers on this machine; they take a while to start, so all tests share them."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    inner = EngineSettings(device="cpu", max_rows=4)
    settings = EngineSettings(
        kind="ray", workers=2, address="local", cpus_per_worker=0.5, inner=inner
    )
    before = descendants()
    with open_engine(folder, settings) as engine:
        yield engine
        assert len(descendants()) > len(before), "the pool has processes of its own"
    assert not ray.is_initialized()
    wait_until(lambda: descendants().keys() <= before.keys(), descendants)


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("wide") / "student", wide=True)


@pytest.fixture(scope="module")
def real_vllm(wide_folder: Path) -> Iterator[Engine]:
    real.small_cache()
    with open_engine(wide_folder, real.IN_PROCESS) as engine:
        yield engine


@pytest.fixture(scope="module")
def real_server(wide_folder: Path) -> Iterator[Engine]:
    real.small_cache()
    with (
        real.served(wide_folder, "student") as settings,
        open_engine(wide_folder, settings) as engine,
    ):
        yield engine


SHARED = {"ray": "ray_pool", "real-vllm": "real_vllm", "real-server": "real_server"}
"""Kinds that take long to start, so all tests share one engine."""


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, folder: Path) -> Engine:
    if request.param in SHARED:
        return request.getfixturevalue(SHARED[request.param])
    return open_engine(folder, settings_of(request.param, request))


def test_an_engine_draws_what_the_torch_engine_draws_in_any_order(
    engine: Engine, reference: TorchEngine | OneByOne, request: pytest.FixtureRequest
) -> None:
    together = "together" in request.node.name
    items = requests_of(12, 1 if together else 3)
    expected = by_id(list(reference.run(items)))
    assert by_id(list(engine.run(items))) == expected
    assert by_id(list(engine.run(iter(items[::-1])))) == expected
    assert len({c for r in expected.values() for c in r}) > 12 * (0 if together else 2)


def test_completions_come_in_the_order_of_the_seeds_with_tokens_and_stop(
    engine: Engine, request: pytest.FixtureRequest
) -> None:
    top_k = 0 if "http-text" in request.node.name else 30  # a server that knows no top_k
    items = requests_of(
        6, 4, SamplingParams(temperature=1.0, top_p=0.9, top_k=top_k, max_new_tokens=3)
    )
    results = list(engine.run(items))
    assert sorted(r.request.id for r in results) == [f"r{i}" for i in range(6)]
    for result in results:
        assert result.request in items
        assert [c.seed for c in result.completions] == list(result.request.seeds)
        for c in result.completions:
            # Special tokens count and don't show.
            assert 3 >= c.n_tokens >= len(c.text.split()) + (c.stop == "eos")
            assert c.n_tokens == 3 or c.stop == "eos"


def test_greedy_needs_no_seed_and_takes_all_sizes(
    engine: Engine, reference: TorchEngine | OneByOne
) -> None:
    items = [
        dataclasses.replace(r, seeds=seeds(9, n), params=SamplingParams(0.0, max_new_tokens=1 + n))
        for r, n in zip(requests_of(5, 0), (0, 1, 2, 5, 1), strict=True)
    ]
    got = by_id(list(engine.run(items)))
    assert got == by_id(list(reference.run(items)))
    assert got["r0"] == ()


def test_follow_ups_equal_requests_of_their_own(
    engine: Engine, reference: TorchEngine | OneByOne
) -> None:
    def one(i: int, kept: int) -> Request:
        return Request(
            f"{i}:{kept}",
            tuple(f"w{10 + i + j} " for j in range(kept)),
            seeds(10 * i + kept, 1),
            WARM,
        )

    asked: list[str] = []

    def backwards(result: Result) -> list[Request]:
        asked.append(result.request.id)
        i, kept = map(int, result.request.id.split(":"))
        return [one(i, kept - 1)] if kept > 1 else []

    chained = by_id(list(engine.run((one(i, 4) for i in range(5)), backwards)))
    assert chained == by_id(
        list(reference.run([one(i, kept) for i in range(5) for kept in range(1, 5)]))
    )
    assert sorted(asked) == sorted(chained)


def test_a_request_without_seeds_is_answered_and_followed(engine: Engine) -> None:
    empty, full = requests_of(2, 2)
    empty = dataclasses.replace(empty, seeds=())
    results = list(engine.run([empty], lambda result: [full] if result.request.id == "r0" else []))
    assert [(r.request.id, len(r.completions)) for r in results] == [("r0", 0), ("r1", 2)]
    assert list(engine.run([])) == []


@pytest.mark.parametrize("segments", [(), ("",), ("", "")])
def test_an_empty_prompt_is_an_error_that_names_the_request(
    engine: Engine, segments: tuple[str, ...]
) -> None:
    with pytest.raises(EngineError, match=r"'bad'.*prompt is empty"):
        list(engine.run([*requests_of(3, 1), Request("bad", segments, (1,), WARM)]))
    assert len(list(engine.run(requests_of(2, 1)))) == 2


@pytest.mark.parametrize(
    ("params", "rule"),
    [
        (SamplingParams(-1.0), "temperature"),
        (SamplingParams(math.nan), "temperature"),
        (SamplingParams(math.inf), "temperature"),
        (SamplingParams(1e-40), "temperature"),
        (SamplingParams(1.0, 0.0), "top_p"),
        (SamplingParams(top_k=-1), "top_k"),
        (SamplingParams(top_k=10**30), "top_k"),
        (SamplingParams(max_new_tokens=0), "max_new_tokens"),
    ],
)
def test_parameters_without_meaning_are_refused(
    engine: Engine, params: SamplingParams, rule: str
) -> None:
    with pytest.raises(EngineError, match=rf"'r0': {rule} is .*, got "):
        list(engine.run(requests_of(1, 1, params)))


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range_are_refused(engine: Engine, seed: int) -> None:
    with pytest.raises(EngineError, match=r"'bad': seeds are 63-bit"):
        list(engine.run([Request("bad", requests_of(1, 1)[0].segments, (1, seed), WARM)]))


STOPS = ("7", " w2", "w30 ", "nowhere")


def stopped(stop: str, kept: str, n: int = 8) -> list[Request]:
    """Warm requests of one seed that end at `stop`; `kept` begins their names."""
    params = SamplingParams(temperature=1.0, max_new_tokens=15, stop=stop)
    return [
        dataclasses.replace(r, id=f"{kept}{r.id}", seeds=r.seeds[:1])
        for r in requests_of(n, 2, params)
    ]


def test_a_stop_ends_a_completion_where_its_text_comes_to_it(
    engine: Engine, reference: TorchEngine | OneByOne, request: pytest.FixtureRequest
) -> None:
    items = [r for stop in STOPS for r in stopped(stop, f"{stop}:")]
    if "http-text" in request.node.name:
        with pytest.raises(
            EngineError,
            match=r"request '7:r0': this engine does not know stop: .*engine.extensions=true",
        ):
            list(engine.run(items))
        return
    got = {r.request.id: r.completions[0] for r in engine.run(items)}
    assert got == {r.request.id: r.completions[0] for r in reference.run(items)}
    whole = by_id(list(reference.run(stopped("", ""))))
    for stop in STOPS:
        for name, ((text, n_tokens, why, _),) in whole.items():
            short = got[f"{stop}:{name}"]
            before, mark, after = text.partition(stop)
            assert short.text == before
            assert short.stop == ("stop" if mark else why)
            assert short.n_tokens <= n_tokens - len(after.split()) + 1
    assert {c.stop for c in got.values()} == {"stop", "eos", "length"}


def test_log_probabilities_come_one_for_each_token_and_change_nothing(
    engine: Engine, reference: TorchEngine | OneByOne, request: pytest.FixtureRequest
) -> None:
    top_k = 0 if "http-text" in request.node.name else 20  # a server that knows no top_k
    plain = requests_of(6, 1 if "together" in request.node.name else 2)
    asked = [
        dataclasses.replace(
            r, params=dataclasses.replace(r.params, temperature=0.7, top_k=top_k, logprobs=True)
        )
        for r in plain
    ]
    silent = [
        dataclasses.replace(r, params=dataclasses.replace(r.params, logprobs=False)) for r in asked
    ]
    got, expected = (
        {r.request.id: r.completions for r in e.run(asked)} for e in (engine, reference)
    )
    assert (
        by_id(list(engine.run(silent)))
        == by_id(list(reference.run(silent)))
        == by_id(list(reference.run(asked)))
    )
    for name, completions in got.items():
        for one, other in zip(completions, expected[name], strict=True):
            assert (one.text, one.n_tokens, one.stop) == (
                other.text,
                other.n_tokens,
                other.stop,
            )
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    completed = [c for completions in got.values() for c in completions]
    assert all(
        c.logprobs is not None and len(c.logprobs) == c.n_tokens and max(c.logprobs) < 0
        for c in completed
    )
    assert all(c.logprobs is None for r in engine.run(silent) for c in r.completions)


def test_an_endless_source_is_read_as_it_is_needed_and_left_early(engine: Engine) -> None:
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        for i in itertools.count():
            taken += 1
            yield dataclasses.replace(requests_of(50, 1)[i % 50], id=f"e{i}")

    stream = engine.run(endless())
    for _ in range(10):
        next(stream)
    stream.close()  # type: ignore[attr-defined]  # engines are generators
    assert taken <= 10 + 5 * 16
    items = requests_of(4, 1)
    assert len(by_id(list(engine.run(items)))) == 4


@pytest.fixture(params=("torch", "http", "vllm"))
def own_engine(request: pytest.FixtureRequest, folder: Path) -> Engine:
    """An engine that the test may close."""
    return open_engine(folder, settings_of(request.param, request))


def test_every_engine_names_its_backend(engine: Engine, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["engine"]
    list(engine.run(requests_of(1, 1)))  # a pool knows its workers' by now
    start = {"torch": "(native|paged) float32", "vllm": "vllm", "real-vllm": "vllm on a CPU"}
    start |= {"ray": r"ray × 2 \((native|paged) float32\)"}
    assert re.fullmatch(start.get(kind, r"http http://127\.0\.0\.1:\d+/v1"), engine.backend)
    assert engine.warning == ""


def test_a_closed_engine_refuses_to_draw_and_closes_twice(own_engine: Engine) -> None:
    items = requests_of(3, 2)
    with own_engine as engine:
        assert len(list(engine.run(items))) == 3
    with pytest.raises(EngineError, match=r"student.* is closed and can't be used; open it again"):
        list(own_engine.run(items))
    own_engine.close()
    with pytest.raises(EngineError, match="is closed"), own_engine:
        pass


def test_closing_ends_a_run_in_progress(own_engine: Engine) -> None:
    stream = own_engine.run(requests_of(50, 2))
    next(stream)
    threads = threading.active_count()
    own_engine.close()
    assert threading.active_count() <= threads
    assert not [t for t in threading.enumerate() if t.name == "glore-http"]
    with pytest.raises(EngineError, match="is closed"):
        next(stream)


def test_an_engine_is_not_closed_inside_its_run(own_engine: Engine) -> None:
    def close(_: Result) -> list[Request]:
        own_engine.close()
        return []

    with pytest.raises(EngineError, match="is drawing; close it after its run has ended"):
        list(own_engine.run(requests_of(3, 1), close))
    assert len(list(own_engine.run(requests_of(3, 1)))) == 3
    own_engine.close()
