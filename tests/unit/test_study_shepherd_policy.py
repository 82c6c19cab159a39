"""The second half of study shepherd: what steps earn, what PPO is given, what the tables count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import RunConfig
from glore.evaluation.rerank_curves import majority
from glore.records import Solution, read_records
from glore.solutions import by_problem
from glore.studies import find_study
from glore.studies.measured import find, read_measured
from glore.studies.step_policy.play import minimum_rewards
from glore.studies.step_policy.settings import POLICIES
from glore.studies.study import configured
from support.pretend_models import World, pretended_run

OWN = ["rounds=2", "prompts=4", "samples=3"]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunConfig, World]]:
    with pretended_run(
        tmp_path_factory.mktemp("runs"), configured(find_study("shepherd"), {}, OWN)
    ) as made:
        yield made


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_what_a_step_changes_of_the_minimum_adds_up_to_it(scores: list[float]) -> None:
    rewards = minimum_rewards(scores)
    assert sum(rewards) == pytest.approx(min(scores))
    assert rewards[0] == scores[0]
    assert all(r <= 0 for r in rewards[1:]), "one more step never earns"


def test_every_policy_is_paid_at_its_places(studied: tuple[RunConfig, World]) -> None:
    """The pretended models score 0.2 for a false step and for its answer, 0.9 (ORM) or 0.8."""
    _, world = studied
    assert [(start, r) for start, r, _ in world.updates] == [("student", r) for r in (0, 1)] * 4
    of = {p.about: world.updates[2 * i][2] for i, p in enumerate(POLICIES)}
    for about, episodes in of.items():
        assert len(episodes) == 4 * 3
        for e in episodes:
            text = "".join(chr(i) for i in e.response_ids if i)
            lines = text.split("\n")
            scores = [0.2 if "false" in s or s == "#### 3" else 0.8 for s in lines]
            paid = {i: r for i, r in enumerate(e.rewards) if r}
            ends, at = [], -1
            for line in lines:
                at += len(line) + 1  # its newline, or the end of the text
                ends.append(at)
            expected = {
                "PPO, step scores": dict(zip(ends, scores, strict=True)),
                "PPO, minimum": dict(zip(ends, minimum_rewards(scores), strict=True)),
                "PPO, ORM at the end": {ends[-1]: 0.2 if lines[-1] == "#### 3" else 0.9},
                "PPO, right answer at the end": {ends[-1]: float(lines[-1] == "#### 10")},
            }[about]
            assert paid == pytest.approx({i: r for i, r in expected.items() if r})


def test_the_tables_count_what_the_policies_solved(studied: tuple[RunConfig, World]) -> None:
    config, _ = studied
    folder = config.run_dir / "studies/shepherd"
    found = read_measured(folder, "shepherd_policy_results")

    def tests(kind: str, model: str) -> list[Solution]:
        place = folder / "stages/shepherd_policy_tests"
        return read_records(sorted(place.glob(f"{kind}_{model}-0*.parquet")), Solution)

    for p in POLICIES:
        greedy, drawn = tests("greedy", p.model), tests("samples", p.model)
        assert len(greedy) == 8
        assert len(drawn) == 8 * 4
        cell = find(found, "shepherd-policy", p.about, "greedy")
        assert cell.value == sum(s.correct == "right" for s in greedy) / 8
        voted = [majority(group) for group in by_problem(drawn).values()]
        right = sum(v is not None and v.correct == "right" for v in voted)
        assert find(found, "shepherd-policy", p.about, "majority of 4").value == right / 8


def test_without_the_second_half_its_stages_are_not_there() -> None:
    config = RunConfig.model_validate({"name": "t"})
    whole = {s.name for s in find_study("shepherd").stages(config)}
    half = {s.name for s in configured(find_study("shepherd"), {}, ["policy=false"]).stages(config)}
    assert {p.model for p in POLICIES} <= whole - half
    assert "shepherd_results" in half
