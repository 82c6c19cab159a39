"""Study rl-refinement: what refinements earn, what PPO is given, what the tables count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import RunConfig
from glore.errors import ConfigError
from glore.records import RefinementPair, Solution, read_records
from glore.stages.policy_gradient import RoundStats, check_policy_engine
from glore.studies import find_study
from glore.studies.measured import find, read_measured
from glore.studies.rl_refinement.rewards import REWARDS, Outcome
from glore.studies.study import configured
from support.pretend_models import World, pretended_run

OWN = ["rounds=3", "prompts=5", "samples=2"]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunConfig, World]]:
    with pretended_run(
        tmp_path_factory.mktemp("runs"), configured(find_study("rl-refinement"), {}, OWN)
    ) as made:
        yield made


def read(config: RunConfig, stage: str, kind: type, part: str = "part") -> list:  # type: ignore[type-arg]
    folder = config.run_dir / "studies/rl-refinement/stages" / stage
    return read_records(sorted(folder.glob(f"{part}-0*.parquet")), kind)


def test_rewards_by_hand() -> None:
    fixed, broken = Outcome(True, False, 0.4, 0.9), Outcome(False, True, 0.7, 0.2)
    kept, copied = Outcome(True, True, 0.9, 0.6), Outcome(False, False, 0.3, 0.3)
    cases = (fixed, broken, kept, copied)
    assert [REWARDS["difference"](o) for o in cases] == [1, -1, 0, 0]
    assert [REWARDS["gain"](o) for o in cases] == [1, 0, 0, 0]
    assert [REWARDS["orm"](o) for o in cases] == pytest.approx([1, 0.5, 0.3, 0])


@given(st.booleans(), st.booleans(), st.floats(0, 1), st.floats(0, 1))
def test_a_copy_earns_nothing_and_no_reward_is_below_the_plain_one(
    right: bool, draft_right: bool, orm: float, draft_orm: float
) -> None:
    o = Outcome(right, draft_right, orm, draft_orm)
    assert all(f(o) >= REWARDS["difference"](o) for f in REWARDS.values())
    copy = Outcome(draft_right, draft_right, draft_orm, draft_orm)
    assert all(f(copy) == 0 for f in REWARDS.values())


def test_ei_pairs_wrong_samples_with_right_ones_of_their_question(
    studied: tuple[RunConfig, World],
) -> None:
    config, world = studied
    pairs = read(config, "rl_ei_pairs", RefinementPair)
    assert pairs
    assert all("false" in " ".join(p.draft_steps) for p in pairs)
    assert all(p.target_steps[-1] == "#### 10" and p.marked_step == 0 for p in pairs)
    texts = [(p.problem_id, p.draft_steps) for p in pairs]
    assert len(texts) == len(set(texts)), "each distinct wrong sample once"
    assert len(world.trained["rl_ei"]) == len(pairs)
    assert world.bases["rl_ei"] == world.bases["refiner"]


def test_the_prompted_model_sees_one_worked_refinement(studied: tuple[RunConfig, World]) -> None:
    config, world = studied
    asked = [
        r.segments
        for engine in world.engines["base"]
        for r in engine.requests
        if sum("Draft:" in s for s in r.segments) == 2
    ]
    assert len(asked) == 8
    pairs = read(config, "rl_ei_pairs", RefinementPair)
    heads = {segments[: segments.index("\n") + 1] for segments in asked}
    assert len(heads) == 1, "the same example for all"
    (head,) = heads
    shown = [
        p
        for p in pairs
        if head[-1 - len(p.target_steps) : -1] == tuple(f"{s}\n" for s in p.target_steps)
    ]
    assert shown, "a right refinement of the run"
    assert all(segments[-1] == "Answer:\n" for segments in asked)


def test_ppo_learns_from_what_was_drawn_and_what_it_earned(
    studied: tuple[RunConfig, World],
) -> None:
    _, world = studied
    starts = [reference for reference, r, _ in world.updates if r == 0]
    assert starts == ["student"] * 4 + ["rl_ei"]
    by_variant = [world.updates[i : i + 3] for i in range(0, 15, 3)]
    plain, orm, gain, both, _ = by_variant
    for updates, reward in ((plain, "difference"), (gain, "gain")):
        for _, _, episodes in updates:
            assert len(episodes) == 5 * 2
            for e in episodes:
                assert e.kind == "refinement"
                assert e.rewards[:-1] == (0.0,) * (len(e.response_ids) - 1)
                outcome = Outcome(e.correct == "right", e.draft_correct == "right")
                assert e.rewards[-1] == REWARDS[reward](outcome)
    # A refinement by another text has another score of the ORM: 0.9 right, 0.2 wrong.
    paid = {(e.correct, e.draft_correct): e.rewards[-1] for _, _, episodes in orm for e in episodes}
    expected = {
        ("right", "right"): 0,
        ("right", "wrong"): 1,
        ("wrong", "right"): -0.7,
        ("wrong", "wrong"): 0,
    }
    assert paid == pytest.approx({k: v for k, v in expected.items() if k in paid})
    first, second = ({e.id.rpartition("/")[0] for e in episodes} for _, _, episodes in plain[:2])
    assert first.isdisjoint(second), "other drafts in the next round"
    for _, _, episodes in both:
        drafts = [e for e in episodes if e.kind == "draft"]
        refinements = [e for e in episodes if e.kind == "refinement"]
        assert len(drafts) == len(refinements)
        assert [e.rewards[-1] for e in drafts] == [e.rewards[-1] for e in refinements]


def test_the_tables_count_what_the_records_say(studied: tuple[RunConfig, World]) -> None:
    config, _ = studied
    folder = config.run_dir / "studies/rl-refinement"
    found = read_measured(folder, "rl_results")
    drafts = read_records(
        sorted((config.run_dir / "stages/test_drafts").glob("part-*.parquet")), Solution
    )
    made = {s.draft_id: s for s in read(config, "rl_test_refinements", Solution, "rl_ppo")}
    assert set(made) == {d.id for d in drafts}
    right = sum(s.correct == "right" for s in made.values())
    assert find(found, "rl-refinement", "PPO", "right").value == right / len(drafts)
    copies = sum(made[d.id].steps == d.steps for d in drafts)
    assert find(found, "rl-refinement", "PPO", "copies").value == copies / len(drafts)
    wrong = [d for d in drafts if d.correct == "wrong"]
    fixed = find(found, "rl-refinement", "PPO", "wrong drafts fixed")
    assert fixed.n == len(wrong)
    assert fixed.value == sum(made[d.id].correct == "right" for d in wrong) / len(wrong)
    difference = find(found, "rl-differences", ("PPO", "drafts"), "difference")
    n_right = sum(d.correct == "right" for d in drafts)
    assert difference.value == pytest.approx((right - n_right) / len(drafts))
    own = find(found, "rl-refinement", "PPO, draft and refinement: its own drafts", "right")
    assert own.n == len(drafts)
    curve = [m for m in found if m.table == "rl-curves" and m.row == ("PPO",)]
    assert [(m.x, m.value) for m in curve if m.column == "kl"] == [(1, 0), (2, 0.1), (3, 0.2)]


def test_the_statistics_of_a_round_are_those_of_its_episodes(
    studied: tuple[RunConfig, World],
) -> None:
    config, world = studied
    rounds = read(config, "rl_ppo", RoundStats, "rounds")
    for stats, (_, r, episodes) in zip(rounds, world.updates, strict=False):
        wrong = [e for e in episodes if e.draft_correct == "wrong"]
        assert stats.round == r + 1
        assert stats.n == len(episodes)
        assert stats.kl == pytest.approx(0.1 * r)
        assert stats.reward == pytest.approx(sum(e.rewards[-1] for e in episodes) / len(episodes))
        share = sum(e.correct == "right" for e in wrong) / len(wrong) if wrong else 0
        assert stats.fixed == pytest.approx(share)


def test_without_the_variants_their_stages_are_not_there() -> None:
    study = configured(find_study("rl-refinement"), {}, ["variants=false"])
    config = RunConfig.model_validate({"name": "t"})
    names = [s.name for s in study.stages(config)]
    assert "rl_ppo_orm" in names
    assert "rl_ppo_both" not in names


def test_a_server_is_refused_before_anything_is_drawn() -> None:
    config = RunConfig.model_validate(
        {"name": "t", "engine": {"kind": "http", "url": "http://127.0.0.1:1/v1"}}
    )
    with pytest.raises(ConfigError, match=r"engine\.kind http: PPO changes the weights"):
        check_policy_engine(config)
