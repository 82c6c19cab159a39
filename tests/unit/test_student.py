"""Expert iteration: sampling, the kept solutions, the stopping rule, the chosen student."""

from __future__ import annotations

import pytest

from glore.engines.protocol import Completion, Request, SamplingParams
from glore.progress import SilentProgress
from glore.prompts import PromptLayout, StepFormat
from glore.student import (
    ONE_SHOT,
    best_round,
    capped,
    first_answer,
    goes_on,
    new_right,
    sample_solutions,
)
from support.fakes import FunctionEngine, LastLineTask, problem, solution


def test_samples_come_graded_in_order_with_their_own_seeds() -> None:
    engine = FunctionEngine(
        lambda request, seed: f"thinking {seed}\n#### {10 if request.seeds.index(seed) == 1 else 3}"
    )
    problems = [problem("p0"), problem("p1")]
    solutions = sample_solutions(
        engine,
        LastLineTask(),
        problems,
        n=2,
        params=SamplingParams(temperature=0.7),
        seed=4,
        stage="samples",
        source="student",
        progress=SilentProgress(),
    )
    assert [s.id for s in solutions] == [
        "samples/p0/0",
        "samples/p0/1",
        "samples/p1/0",
        "samples/p1/1",
    ]
    assert [s.correct for s in solutions] == ["wrong", "right", "wrong", "right"]
    assert len({s.seed for s in solutions}) == 4
    assert {s.temperature for s in solutions} == {0.7}
    assert engine.requests[-1].segments == ("Question: What is p0?\nAnswer:\n",)


def test_the_prompted_base_sees_one_example_and_its_first_answer_counts() -> None:
    def answer(request: Request, seed: int) -> str:
        assert request.segments[0].startswith("Question: Mia")
        assert request.segments[-1] == "Question: What is p0?\nAnswer:\n"
        return "5 + 5 = 10\n#### 10\n\nQuestion: another one\nAnswer:\n#### 99"

    (found,) = sample_solutions(
        FunctionEngine(answer),
        LastLineTask(),
        [problem()],
        n=1,
        params=SamplingParams(),
        seed=0,
        stage="ei1",
        source="base",
        progress=SilentProgress(),
        layout_of=lambda _: PromptLayout(shots=(ONE_SHOT,)),
        prompted=True,
    )
    assert found.steps == ("5 + 5 = 10", "#### 10")
    assert found.correct == "right"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<think>#### 9</think>\n#### 3\n\nQuestion: b\n<think>so</think>\n#### 4", "#### 3"),
        ("a\n<think>so</think>\n#### 3\n<think>never closed", "a\n<think>so</think>\n#### 3"),
        ("a\nQuestion: b\n<think>so</think>\n#### 4", "a"),
        ("a\n<think>never closed\n#### 9", "a\n<think>never closed\n#### 9"),
    ],
)
def test_the_first_answer_is_the_first_outside_of_thoughts(text: str, kept: str) -> None:
    completion = Completion(text, 9, "eos", 0)
    found = first_answer(completion, StepFormat(think_apart=True))
    assert found.text.endswith(kept)
    assert "\n#### 4" not in found.text
    assert first_answer(found, StepFormat(think_apart=True)) == found


def test_only_new_distinct_right_samples_are_kept() -> None:
    samples = [
        solution("a\n#### 10", "right", "s0"),
        solution("  a \n\n#### 10", "right", "s1"),
        solution("b\n#### 10", "right", "s2"),
        solution("c\n#### 3", "wrong", "s3"),
        solution("d\n#### ?", "unknown", "s4"),
        solution("a\n#### 10", "right", "s5", problem_id="p1"),
    ]
    assert [s.id for s in new_right(samples, [("p0", ("b", "#### 10"))])] == ["s0", "s5"]


def test_the_cap_keeps_worked_solutions_and_stays_the_same_when_more_comes() -> None:
    worked = [("p0", ("worked",))]
    right = [solution(f"text {n}", "right", f"s{n}") for n in range(20)]
    assert len(capped(worked, right, 0, seed=0)) == 21
    three = capped(worked, right, 3, seed=0)
    assert three[0] == worked[0]
    assert len(three) == 3
    assert capped(worked, right, 5, seed=0)[0] == worked[0]
    assert set(three) < set(capped(worked, right, 5, seed=0))
    assert set(capped(worked, right[::-1], 3, seed=0)) == set(three)


def test_rounds_go_on_while_they_gain() -> None:
    assert goes_on([0.4], 0.005)
    assert goes_on([0.4, 0.45], 0.005)
    assert goes_on([0.525, 0.53], 0.005), "a gain of exactly the least counts"
    assert not goes_on([0.4, 0.404], 0.005)
    assert not goes_on([0.4, 0.404, 0.5], 0.005), "once stopped, stopped"
    assert goes_on([], 0.005)


def test_the_best_round_is_the_first_of_equals() -> None:
    assert best_round([0.4, 0.5, 0.5]) == 1
    assert best_round([0.4]) == 0
