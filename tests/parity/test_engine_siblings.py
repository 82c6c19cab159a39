"""Siblings that have drawn the same tokens are computed once, and every text stays what it is
alone.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glore.engines.local.rows
from glore.engines.local.batch import Batch
from glore.engines.local.engine import TorchEngine
from glore.engines.local.rows import RowTable
from glore.engines.local.runner import ModelRunner
from glore.engines.local.scheduler import Scheduler
from glore.engines.protocol import Completion, Request, SamplingParams
from glore.engines.requests import run_requests
from glore.seeds import stable_seed
from support.tiny_models import tiny_lm, tiny_tokenizer

SURE = SamplingParams(temperature=0.06, max_new_tokens=40)
"""Siblings fork after some tokens, not at once."""
BACKENDS = [("llama", ("native", "paged")), ("gemma2", ("paged",))]


def engine_of(
    architecture: str = "llama", backends: tuple[str, ...] = ("native", "paged"), **options: int
) -> TorchEngine:
    return TorchEngine.of(tiny_lm(architecture), tiny_tokenizer(), backends=backends, **options)


def requests(n: int, k: int, params: SamplingParams = SURE) -> list[Request]:
    return [
        Request(
            str(i),
            ("w5 w9", f"w{3 + i} w11"),
            tuple(stable_seed("siblings", i, j) for j in range(k)),
            params,
        )
        for i in range(n)
    ]


def drawn(engine: TorchEngine, items: list[Request]) -> dict[str, tuple[Completion, ...]]:
    return {r.request.id: r.completions for r in engine.run(items)}


def alone(engine: TorchEngine, items: list[Request]) -> dict[str, tuple[Completion, ...]]:
    """The same, every completion a request of its own, one after another."""
    return {
        item.id: tuple(
            drawn(engine, [dataclasses.replace(item, seeds=(seed,))])[item.id][0]
            for seed in item.seeds
        )
        for item in items
    }


@pytest.mark.parametrize(("architecture", "backends"), BACKENDS)
@pytest.mark.parametrize(
    "params",
    [
        SURE,
        dataclasses.replace(SURE, stop="w7"),
        dataclasses.replace(SURE, top_p=0.9, logprobs=True),
    ],
)
def test_texts_are_those_of_single_requests(
    architecture: str, backends: tuple[str, ...], params: SamplingParams
) -> None:
    items = requests(4, 12, params)
    expected = alone(engine_of(architecture, backends, max_rows=1), items)
    together = drawn(engine_of(architecture, backends, max_rows=64), items)
    for id_, completions in expected.items():
        for one, other in zip(completions, together[id_], strict=True):
            assert dataclasses.replace(one, logprobs=None) == dataclasses.replace(
                other, logprobs=None
            )
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    pairs = [
        pair
        for completions in expected.values()
        for pair in itertools.combinations([c.text.split() for c in completions], 2)
    ]
    assert any(a[:2] == b[:2] and a != b for a, b in pairs)  # some fork late


@pytest.mark.parametrize(("architecture", "backends"), BACKENDS)
def test_each_text_so_far_is_computed_once(
    architecture: str, backends: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One query per distinct beginning of a completion: a last token is drawn and not read."""
    texts: set[tuple[str, tuple[int, ...]]] = set()
    n_queries, n_tokens = [], []
    drop, forward = RowTable.drop, ModelRunner.forward

    def note(self: RowTable, slots) -> None:
        for slot in slots.tolist():
            tokens = self.tokens_of(slot)
            texts.update(
                (self.jobs[slot].request.id, tuple(tokens[:i])) for i in range(1, len(tokens))
            )
            n_tokens.append(len(tokens) - 1)
        drop(self, slots)

    def count(self: ModelRunner, batch: Batch, *others: object):
        if not batch.dependent:
            n_queries.append(batch.tokens.size)
        return forward(self, batch, *others)

    engine = engine_of(
        architecture, backends, max_rows=200
    )  # which tries the model itself, before anything is counted
    monkeypatch.setattr(RowTable, "drop", note)
    monkeypatch.setattr(ModelRunner, "forward", count)
    assert len(drawn(engine, requests(5, 16))) == 5
    assert sum(n_queries) == len(texts) < 0.9 * sum(n_tokens)


def test_equal_prompts_of_different_requests_are_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, sizes, forward = engine_of(max_rows=64), [], ModelRunner.forward
    monkeypatch.setattr(
        ModelRunner,
        "forward",
        lambda self, batch, *rest: sizes.append(batch.tokens.size) or forward(self, batch, *rest),
    )
    greedy = SamplingParams(temperature=0.0, max_new_tokens=10)
    items = [dataclasses.replace(requests(1, 1, greedy)[0], id=str(i)) for i in range(6)]
    items += [
        dataclasses.replace(
            item, id=f"{item.id}s", params=dataclasses.replace(greedy, max_new_tokens=9)
        )
        for item in items
    ]
    found = drawn(engine, items)
    assert len({c[0].text for i, c in found.items() if "s" not in i}) == 1
    assert set(sizes[1:]) == {1, 2}  # two lengths; one prompt


@pytest.mark.parametrize("slots_per_row", [1, 4])
def test_few_rows_and_little_memory_change_nothing(
    slots_per_row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More completions than rows: those that fork and find no row are drawn again."""
    items = requests(6, 20)
    expected = drawn(engine_of(max_rows=400), items)
    monkeypatch.setattr(glore.engines.local.rows, "_SLOTS_PER_ROW", slots_per_row)
    without_row = []
    fork = RowTable.fork
    monkeypatch.setattr(
        RowTable, "fork", lambda self, copy: without_row.append(fork(self, copy)) or without_row[-1]
    )
    for max_rows, cache_tokens in ((1, 4096), (3, 4096), (12, 4096), (24, 200), (24, 80)):
        engine = engine_of(max_rows=max_rows, cache_tokens=cache_tokens)
        assert drawn(engine, items) == expected
    assert slots_per_row == 1 or any(slots.size for slots in without_row)


@given(
    st.integers(1, 40),
    st.integers(5, 60),
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 0.1, 0.3, 1.0])), max_size=8),
)
@settings(max_examples=25)
def test_nothing_is_held_when_all_is_done(
    max_rows: int, n_pages: int, kinds: list[tuple[int, float]]
) -> None:
    items = [
        dataclasses.replace(
            requests(9, k, SamplingParams(temperature=t, max_new_tokens=5 + 9 * k))[n % 5],
            id=str(n),
        )
        for n, (k, t) in enumerate(kinds)
    ]
    engine = engine_of(backends=("paged",), max_rows=max_rows, cache_tokens=16 * max(n_pages, 8))
    scheduler = engine.scheduler()
    assert isinstance(scheduler, Scheduler)
    for _ in run_requests(scheduler, items):
        assert scheduler.rows.n_rows <= max_rows
        assert 0 <= scheduler.tree.n_available <= scheduler.tree.n_pages
    assert scheduler.tree.n_available == scheduler.tree.n_pages
    assert not scheduler.rows.n_active
