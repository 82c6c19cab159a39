"""Study `budget`: what every way spends, and what it is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import RunConfig
from glore.decisions import Decisions
from glore.evaluation import read_evaluation
from glore.pipeline import run_stages
from glore.records import Solution, read_records
from glore.stages import build_stages
from glore.studies import find_study, run_study
from glore.studies.budget.iterated import N_ROUNDS
from glore.studies.budget.spent import Spent, sample_numbers, until_accepted
from glore.studies.measured import Measured, find, read_measured
from support.pretend_models import config_of, pretend


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretend(monkeypatch)
        config = config_of(tmp_path_factory.mktemp("runs"))
        run_stages(build_stages(config), config)
        run_study(find_study("budget"), config)
        yield config


def spent(config: RunConfig) -> dict[tuple[str, int], list[Spent]]:
    folder = config.run_dir / "studies" / "budget" / "stages" / "budget_results"
    groups: dict[tuple[str, int], list[Spent]] = {}
    for s in read_records(sorted(folder.glob("spent-*.parquet")), Spent):
        groups.setdefault((s.way, s.step), []).append(s)
    return groups


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def attempt(i: int, correct: str, tokens: int) -> Solution:
    return Solution(f"a{i}", "p", ("x",), "1", correct, "student", None, tokens, "eos", 0, 1.0)


Drawn = st.lists(
    st.tuples(st.sampled_from(("right", "wrong")), st.integers(1, 9), st.floats(0, 1)),
    min_size=1,
    max_size=6,
)


@given(Drawn)
def test_attempts_end_at_the_first_that_the_orm_accepts(
    drawn: list[tuple[str, int, float]],
) -> None:
    attempts = [attempt(i, correct, n) for i, (correct, n, _) in enumerate(drawn)]
    scores = [(p,) for _, _, p in drawn]
    accepted = [i for i, (p,) in enumerate(scores) if p > 0.5]
    for limit in range(1, len(drawn) + 1):
        tokens, right = until_accepted(attempts, scores, Decisions(), limit)
        first = next((i for i in accepted if i < limit), None)
        seen = limit if first is None else first + 1
        assert tokens == sum(a.n_tokens for a in attempts[:seen])
        best = max(range(seen), key=lambda i: (scores[i], -i))
        assert right == float(attempts[best].correct == "right")


def test_few_samples_are_all_measured_and_many_at_intervals() -> None:
    assert sample_numbers(8) == list(range(1, 9))
    found = sample_numbers(96)
    assert found[:16] == list(range(1, 17))
    assert found[16:] == [*range(24, 96, 8), 96]


def test_the_ways_that_the_run_knows_agree_with_it(studied: RunConfig) -> None:
    ways = spent(studied)
    evaluation = read_evaluation(studied.run_dir / "report" / "evaluation.json")
    accuracy = {r.way: r.accuracy.value for r in evaluation.figure4}
    assert mean([s.right for s in ways["greedy", 1]]) == accuracy["greedy"]
    assert mean([s.right for s in ways["GLoRe once, every draft", 1]]) == accuracy["reranked"]
    curve = {(p.way, p.k): p.accuracy.value for p in evaluation.curves}
    for n in (1, 2, 4):
        found = mean([s.right for s in ways["best of N by ORM", n]])
        assert found == pytest.approx(curve["orm", n])
    assert mean([s.right for s in ways["majority", 4]]) == pytest.approx(curve["majority", 4])
    assert mean([s.right for s in ways["majority", 1]]) == pytest.approx(curve["pass", 1])


def test_more_steps_spend_more_and_the_orm_saves_tokens(studied: RunConfig) -> None:
    ways = spent(studied)
    tokens = {key: mean([s.tokens for s in group]) for key, group in ways.items()}
    for (way, step), value in tokens.items():
        assert value >= tokens.get((way, step - 1), 0), way
    assert tokens["samples until the ORM accepts", 4] <= tokens["majority", 4]
    assert tokens["RISE until the ORM accepts", 5] <= tokens["RISE", 5]
    drafts = tokens["greedy", 1]
    for way in ("GLoRe", "GLoRe, right drafts in training"):
        assert tokens[way, 0] == drafts
        assert (way, N_ROUNDS) in tokens


def test_a_cascade_goes_from_the_draft_to_its_refinement_to_samples(studied: RunConfig) -> None:
    ways = {key: {s.problem_id: s for s in group} for key, group in spent(studied).items()}
    cascade = "GLoRe's cascade until the ORM accepts"
    without = "draft, then samples until the ORM accepts"
    folder = studied.run_dir / "stages"
    drafts = read_records(sorted((folder / "test_drafts").glob("part-*.parquet")), Solution)
    refined = {
        s.draft_id: s
        for s in read_records(
            sorted((folder / "test_refinements").glob("global-*.parquet")), Solution
        )
    }
    rejected = [d for d in drafts if d.steps[-1] == "#### 3"]
    assert 0 < len(rejected) < len(drafts)
    for d in drafts:
        one, two = (ways[cascade, n][d.problem_id] for n in (1, 2))
        assert one == dataclasses.replace(ways["greedy", 1][d.problem_id], way=cascade)
        more = refined[d.id].n_tokens if d in rejected else 0
        assert two.tokens == d.n_tokens + more
        last = ways[cascade, 6][d.problem_id]
        assert last.tokens <= two.tokens + ways[without, 5][d.problem_id].tokens - d.n_tokens
    assert {n for way, n in ways if way == cascade} == set(range(1, 7)), "four samples a question"
    assert {n for way, n in ways if way == without} == set(range(1, 6))
    refining = "GLoRe's cascade, samples refined too"
    assert {n for way, n in ways if way == refining} == set(range(1, 11))
    for d in drafts:
        for n in (1, 2, 3):
            assert ways[refining, n][d.problem_id] == dataclasses.replace(
                ways[cascade, n][d.problem_id], way=refining
            )


def test_only_rejected_samples_of_questions_still_open_are_refined(studied: RunConfig) -> None:
    def read(stage: Path, part: str) -> list[Solution]:
        return read_records(sorted(stage.glob(f"{part}-*.parquet")), Solution)

    stages = studied.run_dir / "stages"
    drafts = read(stages / "test_drafts", "part")
    refined = {s.draft_id: s for s in read(stages / "test_refinements", "global")}
    samples = {s.id: s for s in read(stages / "test_samples", "part")}
    # The pretended ORM calls a solution wrong that ends in #### 3.
    still_open = {
        d.problem_id
        for d in drafts
        if d.steps[-1] == "#### 3" and refined[d.id].steps[-1] == "#### 3"
    }
    made = read(studied.run_dir / "studies/budget/stages/sample_refinements", "part")
    expected = {
        s.id for s in samples.values() if s.problem_id in still_open and s.steps[-1] == "#### 3"
    }
    assert {s.draft_id for s in made} == expected


def test_only_what_the_orm_calls_wrong_is_refined_again(studied: RunConfig) -> None:
    folder: Path = studied.run_dir / "studies" / "budget" / "stages" / "glore_rounds"
    drafts = read_records(
        sorted((studied.run_dir / "stages" / "test_drafts").glob("part-*.parquet")), Solution
    )
    # The pretended ORM calls a solution wrong that ends in #### 3.
    rejected = {d.id for d in drafts if d.steps[-1] == "#### 3"}
    assert rejected
    first = read_records(sorted(folder.glob("refiner_1_global-0*.parquet")), Solution)
    assert {s.draft_id for s in first} == rejected
    second = read_records(sorted(folder.glob("refiner_2_global-0*.parquet")), Solution)
    assert all(s.problem_id in {f.problem_id for f in first} for s in second)


def test_the_second_way_of_a_difference_has_at_least_as_many_tokens(studied: RunConfig) -> None:
    found: list[Measured] = read_measured(studied.run_dir / "studies" / "budget", "budget_results")
    rows = dict.fromkeys(m.row for m in found if m.table == "budget-differences")
    assert rows
    most: dict[str, int] = {}
    for way, n in spent(studied):
        most[way] = max(n, most.get(way, 0))
    for row in rows:
        first, step, second = (
            find(found, "budget-differences", row, column).value or 0.0
            for column in ("tokens of the first", "step of the second", "tokens of the second")
        )
        assert first <= second or step == most[row[1]]
        assert find(found, "budget", (row[1], f"{step:.0f}"), "tokens").value == second
    (said,) = find_study("budget").findings(studied, studied.run_dir / "studies" / "budget")
    way = said.partition("sampling in parallel is ")[2].partition(":")[0]
    named = {part.partition(":")[0] for part in said.split("(") if part.startswith(way)}
    assert all(name.rpartition(", ")[0] == way for name in named), "no other way's numbers"
