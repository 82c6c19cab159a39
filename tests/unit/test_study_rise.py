"""Study `rise`: what is learned from, what the turns see, and that the tables count the turns."""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import RunConfig
from glore.errors import ConfigError
from glore.prompts import PLAIN, ChatTemplate, PromptLayout
from glore.records import Solution, read_records
from glore.studies import find_study, run_study
from glore.studies.measured import read_measured
from glore.studies.rise.examples import (
    TAU,
    TurnExample,
    as_targets,
    best_of,
    kept_right,
    next_turns,
    other_attempts,
    subsample,
)
from glore.studies.rise.stages import N_TURNS, VARIANTS
from glore.studies.rise.turns import attempts_before
from glore.studies.study import configured
from glore.training.examples import LMExample
from support.pretend_models import World, pretend, pretended_run


def solution(id: str, correct: str = "right", problem: str = "p", text: str = "") -> Solution:
    steps = (text or f"text {id}", "#### 1")
    return Solution(id, problem, steps, "1", correct, "student", None, 5, "eos", 0, 1.0)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunConfig, World]]:
    with pretended_run(tmp_path_factory.mktemp("runs"), find_study("rise")) as made:
        yield made


def read(config: RunConfig, stage: str, part: str) -> list[Solution]:
    folder = config.run_dir / "studies" / "rise" / "stages" / stage
    return read_records(sorted(folder.glob(f"{part}-0*.parquet")), Solution)


@given(st.lists(st.sampled_from(("right", "wrong", "unknown")), max_size=6), st.integers(0, 99))
def test_the_best_of_n_is_right_if_any_is(verdicts: list[str], seed: int) -> None:
    options = [solution(str(i), verdict) for i, verdict in enumerate(verdicts)]
    best = best_of(options, seed, "key")
    gradable = [v for v in verdicts if v != "unknown"]
    assert (best is None) == (not gradable)
    if best is not None:
        assert best.correct == ("right" if "right" in gradable else "wrong")
        assert best_of(options[::-1], seed, "key") == best, "the order plays no part"


def test_an_example_occurs_as_often_as_its_weight_says() -> None:
    right = TurnExample("p", 2, ("a",), "wrong", ("b", "#### 1"), 1.0)
    wrong = dataclasses.replace(right, reward=0.0)
    first = TurnExample("p", 1, (), "", ("c",), 1.0)
    found = Counter(as_targets([right, wrong, first], {"p": "Why?"}, PLAIN, weighted=True))
    again, alone = PLAIN.refine("Why?", ("a",), None), PLAIN.solve("Why?")
    ratio = round(math.exp(1 / TAU))
    assert ratio == 12
    assert found == {(again, ("b", "#### 1")): ratio + 1, (alone, ("c",)): ratio}
    even = Counter(as_targets([right, first], {"p": "Why?"}, PLAIN, weighted=False))
    assert set(even.values()) == {1}


def test_a_draft_without_an_attempt_to_learn_from_is_left_out() -> None:
    drafts = [solution("a", "wrong"), solution("b"), solution("c", "wrong")]
    attempts = {"a": [solution("x"), solution("y", "wrong")], "c": [solution("z", "unknown")]}
    (only,) = next_turns(drafts, attempts, 0)
    assert (only.draft_steps, only.draft_correct) == (drafts[0].steps, "wrong")
    assert (only.target_steps, only.reward) == (solution("x").steps, 1.0)


def test_a_prompt_of_several_attempts() -> None:
    one = PLAIN.refine("Why?", ("b", "#### 1"), None)
    assert one == ("Question: Why?\nDraft:\n", "b\n", "#### 1\n", "Answer:\n")
    two = PLAIN.refine("Why?", ("b", "#### 1"), 0, [("a", "[BAD] c")])
    assert two == (
        *("Question: Why?\nDraft:\n", "a\n", "c\n", "Draft:\n"),
        *("[BAD]", " b\n", "#### 1\n", "Answer:\n"),
    )
    chat = PromptLayout(chat=ChatTemplate("<u>", "</u><a>", ("<u>",)))
    assert chat.refine("Why?", ("b",), None, [("a",), ()]) == (
        *("<u>Why?\nDraft:\n", "a\n", "Draft:\n", "Draft:\n", "b\n"),
        "Write the corrected solution.</u><a>",
    )


Attempts = st.lists(st.lists(st.text("ab1 ", min_size=1), max_size=3), min_size=1, max_size=4)


@given(Attempts, st.booleans())
def test_a_conversation_begins_as_the_one_before(attempts: list[list[str]], is_chat: bool) -> None:
    layout = PromptLayout(chat=ChatTemplate("<u>", "</u>", ())) if is_chat else PLAIN
    prompts = [layout.refine("Why?", attempts[n], None, attempts[:n]) for n in range(len(attempts))]
    for shorter, longer in itertools.pairwise(prompts):
        assert longer[: len(shorter) - 1] == shorter[:-1]


def test_a_window_holds_the_last_attempts() -> None:
    turns = [[solution(f"{q}{t}", problem=q) for q in "pq"] for t in range(1, 5)]
    seen = {i: [s.id for s in group] for i, group in attempts_before(turns, 3).items()}
    assert seen == {"p4": ["p2", "p3"], "q4": ["q2", "q3"]}
    assert attempts_before(turns, 1) == {"p4": (), "q4": ()}
    assert [len(g) for g in attempts_before(turns[:2], 4).values()] == [1, 1]


@given(st.integers(1, 4), st.integers(0, 9))
def test_states_hold_as_many_attempts_as_the_window(window: int, seed: int) -> None:
    drafts = [solution(f"d{i}", "wrong") for i in range(40)]
    others = {d.id: [solution(f"{d.id}o{k}") for k in range(4)] for d in drafts}
    earlier = other_attempts(drafts, others, window, seed)
    sizes = Counter(1 + len(found) for found in earlier.values())
    assert set(sizes) <= set(range(1, window + 1))
    assert len(sizes) == window
    attempts = {d.id: [solution(f"{d.id}t")] for d in drafts}
    for e, d in zip(next_turns(drafts, attempts, seed, earlier), drafts, strict=True):
        assert e.earlier == tuple(s.steps for s in others[d.id][: len(e.earlier)])
        assert (e.turn, e.holds_right) == (2 + len(e.earlier), bool(e.earlier))
        ((prompt, _),) = as_targets([e], {"p": "Why?"}, PLAIN, weighted=False)
        assert prompt == PLAIN.refine("Why?", d.steps, None, e.earlier)


def test_right_drafts_are_left_alone() -> None:
    (pair,) = kept_right([solution("a"), solution("b", "wrong")])
    assert pair.draft_steps == pair.target_steps == solution("a").steps


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 9))
def test_a_subsample_keeps_the_order_and_grows(size: int, n: int, seed: int) -> None:
    keys = [str(i) for i in range(size)]
    found = subsample(range(size), keys, n, seed)
    assert len(found) == min(size, n)
    assert found == sorted(found)
    assert set(found) <= set(subsample(range(size), keys, n + 1, seed))


def test_every_model_learns_from_at_most_as_many_examples_as_the_refiner(
    studied: tuple[RunConfig, World],
) -> None:
    _, world = studied
    most = len(world.trained["refiner"])
    for name in ("rise_1", "rise_2", "rise_only_wrong", "rise_only_right_targets", "glore_right"):
        examples = [e for e in world.trained[name] if isinstance(e, LMExample)]
        distinct = {(e.prompt, e.target) for e in examples}
        assert 0 < len(distinct) <= most, name
        assert world.bases[name] == ("base" if name == "glore_right" else "student")
    drafts = [e.prompt for e in world.trained["glore_right"] if isinstance(e, LMExample)]
    assert any("[BAD]" in segment for prompt in drafts for segment in prompt)
    assert not any(
        "[BAD]" in segment
        for e in world.trained["rise_2"]
        if isinstance(e, LMExample)
        for segment in e.prompt
    )


def test_every_turn_sees_the_attempt_before_it(studied: tuple[RunConfig, World]) -> None:
    config, world = studied
    asked = {r.segments for e in world.engines["rise_2"] for r in e.requests}
    before = read(config, "rise_2_turns", "greedy_t1")
    for turn in range(2, N_TURNS + 1):
        after = read(config, "rise_2_turns", f"greedy_t{turn}")
        assert [s.draft_id for s in after] == [s.id for s in before]
        for s in before:
            assert any(
                all(f"{step}\n" in segments for step in s.steps) and "Draft:" in segments[0]
                for segments in asked
            )
        before = after


def test_the_tables_count_the_turns(studied: tuple[RunConfig, World]) -> None:
    config, _ = studied
    folder = config.run_dir / "studies" / "rise"
    measured = read_measured(folder, "rise_results")
    cells = {(m.table, m.row, m.column): m for m in measured}
    for variant in VARIANTS[2:]:
        turns = [
            read(config, f"{variant.name}_turns", f"greedy_t{t}") for t in range(1, N_TURNS + 1)
        ]
        right = [[s.correct == "right" for s in turn] for turn in turns]
        n, way = len(right[0]), variant.about
        for t in range(N_TURNS):
            cell = cells["rise-turns", (way,), f"turn {t + 1}"]
            assert (cell.value, cell.n) == (sum(right[t]) / n, n)
        oracle = cells["rise-turns", (way,), "stopped by an oracle"]
        assert oracle.value == sum(map(any, zip(*right, strict=True))) / n
        for t in range(1, N_TURNS):
            row = (way, f"{t} → {t + 1}")
            fixed = cells["rise-changes", row, "fixed"].value
            broken = cells["rise-changes", row, "broken"].value
            assert fixed is not None
            assert broken is not None
            assert fixed - broken == pytest.approx((sum(right[t]) - sum(right[t - 1])) / n)
        tokens = sum(s.n_tokens for turn in turns for s in turn) / n
        cell = cells["rise-turns", (way,), f"tokens, {N_TURNS} turns"]
        assert cell.value == pytest.approx(tokens)
    for m in measured:
        if m.table == "rise-differences" and not any(", " in way for way in m.row):
            first, second = (cells["rise-turns", (way,), m.column].value for way in m.row)
            assert first is not None
            assert second is not None
            assert m.value == pytest.approx(first - second)
            assert m.n == 8
    said = " ".join(find_study("rise").findings(config, folder))
    assert "points" in said


def test_turns_of_a_window_see_the_attempts_in_it(
    studied: tuple[RunConfig, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = studied
    shutil.copytree(config.run_dir, tmp_path / "t")
    config = config.model_copy(update={"runs_dir": str(tmp_path)})
    same = configured(find_study("rise"), {}, ["window=1"])
    assert {p.state for p in run_study(same, config, dry_run=True)} == {"reused"}
    world = pretend(monkeypatch)
    run_study(configured(find_study("rise"), {}, ["window=3"]), config, redo=True)
    assert not world.trained.get("glore_right"), "GLoRe's refiner sees one draft, as before"
    asked = {r.segments for e in world.engines["rise_2"] for r in e.requests}
    turns = [read(config, "rise_2_turns", f"greedy_t{t}") for t in range(1, N_TURNS + 1)]
    for t in range(1, N_TURNS):
        for attempts in zip(*turns[max(0, t - 3) : t], strict=True):
            *earlier, last = [s.steps for s in attempts]
            assert any(
                (*head, *rest) == segments
                for segments in asked
                for head, rest in [(segments[:1], _after(earlier, last))]
            )
    sizes = Counter(
        sum(s == "Draft:\n" for s in e.prompt) + ("Draft:" in e.prompt[0])
        for e in world.trained["rise_2"]
        if isinstance(e, LMExample)
    )
    assert set(sizes) == {0, 1, 2, 3}
    with pytest.raises(ConfigError, match="window"):
        configured(find_study("rise"), {}, ["window=0"])


def _after(earlier: list[tuple[str, ...]], last: tuple[str, ...]) -> tuple[str, ...]:
    return PLAIN.refine("?", last, None, earlier)[1:]
