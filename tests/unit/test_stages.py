"""The list of stages and what they hand to each other, with fake trainers and engines."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

import glore.stages.common
from glore.config import RunConfig, load_config
from glore.errors import DataError, RunError
from glore.evaluation import read_evaluation
from glore.pipeline import StagePlan, plan_stages, run_stages
from glore.pipeline.fingerprints import model_contents
from glore.pipeline.view import settings_view
from glore.prompts import ControlText, solve_segments
from glore.records import PrefixTrials, Problem, RefinementPair, Solution, StepLabels, StepScores
from glore.stages import build_stages, read_inputs
from glore.tasks import open_task
from glore.tasks.protocol import ScratchTask
from glore.training.examples import LMExample, StepExample
from support.chat_tokenizers import chat_tokenizer
from support.pretend_models import (
    SKILL,
    Oracle,
    World,
    all_problems,
    config_of,
    pretend,
    read_stage,
)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return pretend(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, RunConfig]]:
    """One finished run for all tests that only read."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = pretend(monkeypatch)
        config = config_of(tmp_path_factory.mktemp("runs"))
        run_stages(build_stages(config), config)
        yield world, config


def test_expert_iteration_learns_from_the_base_and_stops_without_gain(
    finished: tuple[World, RunConfig],
) -> None:
    world, config = finished
    assert world.bases["sft"] == world.bases["ei1"] == "base", (
        "the base is fine-tuned again, not the last student"
    )
    assert len(world.trained["sft"]) == 4, "only a third of the training questions is worked"
    right = [
        s for s in read_stage(config, "ei1_train", Solution, "right") if isinstance(s, Solution)
    ]
    assert right
    assert {s.correct for s in right} == {"right"}
    assert len({(s.problem_id, s.steps) for s in right}) == len(right)
    assert len(world.trained["ei1"]) == 4 + len(right), "D_1 = R_1 and the worked solutions"
    solved = {
        stage: [s.correct for s in read_stage(config, stage, Solution, "dev")]
        for stage in ("sft", "ei1_train", "ei2_train", "ei3_train")
    }  # type: ignore[attr-defined]
    gains = [
        solved[b].count("right") - solved[a].count("right")
        for a, b in (("sft", "ei1_train"), ("ei1_train", "ei2_train"))
    ]
    stopped = next(n for n, gain in enumerate([*gains, 0], 1) if gain <= 0)
    for r in range(stopped + 1, 4):
        assert f"ei{r}" not in world.trained
        assert read_stage(config, f"ei{r}_samples", Solution) == []
    best = max(solved, key=lambda s: solved[s].count("right"))
    assert (config.run_dir / "models/student/model.txt").read_text() == best.removesuffix("_train")


def test_reward_models_learn_from_labels(finished: tuple[World, RunConfig]) -> None:
    world, config = finished
    samples = [s for s in read_stage(config, "samples", Solution) if isinstance(s, Solution)]
    assert len(samples) == 12 * 6
    assert len(world.trained["orm"]) == sum(bool(s.steps) for s in samples)
    assert all(len(set(e.labels)) == 1 for e in world.trained["orm"])  # type: ignore[attr-defined]
    n_right = sum(all(e.labels) for e in world.trained["balanced_orm"])  # type: ignore[attr-defined]
    assert 2 * n_right == len(world.trained["balanced_orm"])
    assert world.bases["orm"] == world.bases["sorm"] == "student"

    labels = [r for r in read_stage(config, "labels", StepLabels) if isinstance(r, StepLabels)]
    truth = [
        r for r in read_stage(config, "labels", StepLabels, "truth") if isinstance(r, StepLabels)
    ]
    assert [r.solution_id for r in labels] == [r.solution_id for r in truth]
    assert len(labels) == 12 * 4
    flags = Counter(
        (i, x)
        for r in labels
        if r.labels and r.kept
        for i, (x, k) in enumerate(zip(r.labels, r.kept, strict=True))
        if k
    )
    assert all(flags[i, True] == flags[i, False] for i, _ in flags), "balanced per step"
    trials = [
        t for t in read_stage(config, "rollouts", PrefixTrials) if isinstance(t, PrefixTrials)
    ]
    wrong = {s.id for s in samples if s.correct == "wrong"}
    assert {t.solution_id for t in trials} <= wrong


def test_each_student_is_reranked_by_an_orm_trained_on_its_own_samples(
    finished: tuple[World, RunConfig],
) -> None:
    world, config = finished
    own = [s for s in read_stage(config, "sft_samples", Solution) if isinstance(s, Solution)]
    students = [s for s in read_stage(config, "samples", Solution) if isinstance(s, Solution)]
    assert [s.problem_id for s in own] == [s.problem_id for s in students], (
        "the same questions, as often"
    )
    assert {s.source for s in own} == {"sft"}
    texts = [tuple(step.strip() for step in e.steps) for e in world.trained["sft_orm"]]  # type: ignore[attr-defined]
    assert texts == [s.steps for s in own]
    assert texts != [s.steps for s in students]
    assert world.bases["sft_orm"] == "sft", "as the run's ORM starts from its student"
    inputs = read_inputs(config.run_dir)
    scored = {
        model: {s.solution_id for s in inputs.scores if s.model == model}
        for model in ("orm", "sft_orm")
    }
    sft_samples = {s.id for s in inputs.sft_samples}
    assert scored["sft_orm"] == sft_samples
    assert not scored["orm"] & sft_samples
    rows = {
        r.student: r for r in read_evaluation(config.run_dir / "report" / "evaluation.json").table5
    }
    assert rows["SFT"].reranked is not None
    assert rows["EI"].reranked is not None


def test_a_student_that_is_the_sft_model_does_nothing_twice(world: World, tmp_path: Path) -> None:
    config = config_of(tmp_path, ei={"samples": 6, "max_rounds": 0})
    run_stages(build_stages(config), config)
    assert world.opened["sft"] == 1, "greedy on dev"
    assert "sft_orm" not in world.trained
    for stage in ("sft_samples", "sft_test_drafts", "sft_test_samples"):
        assert read_stage(config, stage, Solution) == []
    sft, student = read_evaluation(config.run_dir / "report" / "evaluation.json").table5
    assert (sft.student, student.student) == ("SFT", "EI")
    assert dataclasses.replace(sft, student="EI") == student
    assert student.reranked is not None
    assert {p.state for p in run_stages(build_stages(config), config)} == {"reused"}


def test_an_sft_model_without_a_right_sample_gets_no_orm_and_the_run_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SKILL, "sft", 0.0)
    monkeypatch.setattr(
        "glore.stages.expert_iteration.new_right", lambda samples, known: []
    )  # so that its round learns from worked solutions
    config = config_of(tmp_path, ei={"samples": 6, "max_rounds": 1})
    run_stages(build_stages(config), config)
    assert "sft_orm" not in world.trained
    sft, student = read_evaluation(config.run_dir / "report" / "evaluation.json").table5
    assert (sft.majority is None, sft.reranked, student.reranked is None) == (False, None, False)


def test_refiner_learns_from_both_kinds(finished: tuple[World, RunConfig]) -> None:
    world, config = finished
    pairs = [
        p for p in read_stage(config, "pairs", RefinementPair) if isinstance(p, RefinementPair)
    ]
    kinds = Counter(p.kind for p in pairs)
    assert kinds["local"] == kinds["global"] > 0
    assert all(p.target_steps[-1] == "#### 10" for p in pairs)
    for p in pairs:
        if p.kind == "local" and p.marked_step is not None:
            assert p.target_steps[: p.marked_step] == p.draft_steps[: p.marked_step]
    assert len(world.trained["refiner"]) == len(pairs)
    assert all(sum("[BAD]" in s for s in e.prompt) == 1 for e in world.trained["refiner"])  # type: ignore[attr-defined]


def test_test_records_are_complete_and_make_tables(finished: tuple[World, RunConfig]) -> None:
    _, config = finished
    inputs = read_inputs(config.run_dir)
    assert [
        len(x) for x in (inputs.problems, inputs.drafts, inputs.samples, inputs.sft_samples)
    ] == [8, 8, 32, 32]
    sources = Counter(s.source for s in inputs.refinements)
    bad = sum("false" in "".join(d.steps) for d in inputs.drafts)
    assert sources == {
        k: v for k, v in {"global": 8, "local_orm": bad, "local_sorm": bad}.items() if v
    }
    assert all(s.draft_id in {d.id for d in inputs.drafts} for s in inputs.refinements)
    scored = Counter(s.model for s in inputs.scores)
    everything = 8 + 32 + len(inputs.refinements)
    assert scored == {
        "orm": everything,
        "balanced_orm": everything,
        "sorm": everything,
        "sft_orm": 32,
    }
    assert {r.rule for r in inputs.draft_truth} == {"truth"}
    assert len(inputs.draft_truth) == 8 + len(inputs.refinements)
    evaluation = read_evaluation(config.run_dir / "report" / "evaluation.json")
    assert evaluation.counts.n_drafts == 8
    assert evaluation.table1
    assert evaluation.table5
    ids = [
        s.id
        for s in (
            *inputs.drafts,
            *inputs.samples,
            *inputs.sft_drafts,
            *inputs.sft_samples,
            *inputs.refinements,
            *inputs.train_drafts,
        )
    ]
    assert len(set(ids)) == len(ids)


def test_a_second_run_computes_nothing_and_loads_no_model(
    finished: tuple[World, RunConfig],
) -> None:
    world, config = finished
    before = world.opened.copy()
    plans = run_stages(build_stages(config), config)
    assert {p.state for p in plans} == {"reused"}
    assert world.opened == before


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"evaluation": {"threshold": 0.4}}, {"test_refinements", "test_scores", "evaluate"}),
        ({"engine": {"max_rows": 3}}, set()),
        (
            {"labels": {"balance": False}},
            {
                "labels",
                "sorm",
                "pairs",
                "refiner",
                "test_draft_scores",
                "test_refinements",
                "test_scores",
                "evaluate",
            },
        ),
        (
            {"refiner": {"global_pairs": "all"}},
            {"pairs", "refiner", "test_refinements", "test_scores", "evaluate"},
        ),
        ({"evaluation": {"aggregate": "min"}}, {"evaluate"}),
        (
            {"evaluation": {"top_k": 5}},
            {"test_samples", "sft_test_samples", "test_scores", "evaluate"},
        ),
    ],
)
def test_a_setting_recomputes_what_reads_it(
    finished: tuple[World, RunConfig], change: dict[str, dict[str, object]], again: set[str]
) -> None:
    _, config = finished
    data = config.model_dump()
    for section, values in change.items():
        data[section].update(values)
    other = RunConfig.model_validate(data)
    plans = run_stages(build_stages(other), other, dry_run=True)
    assert {p.name for p in plans if p.state != "reused"} == again


def test_samples_are_drawn_with_the_settings_of_their_section(world: World, tmp_path: Path) -> None:
    data = config_of(tmp_path).model_dump()
    data["student"]["ei"] |= {"top_p": 0.5, "top_k": 2, "max_rounds": 1}
    data["reward"] |= {"top_p": 0.6, "top_k": 3}
    data["labels"] |= {"top_p": 0.7, "top_k": 4}
    data["evaluation"] |= {"top_p": 0.8, "top_k": 5, "temperature": 0.9}
    config = RunConfig.model_validate(data)
    run_stages(build_stages(config), config)
    drawn = {
        (r.params.temperature, r.params.top_p, r.params.top_k)
        for engines in world.engines.values()
        for engine in engines
        for r in engine.requests
    }
    greedy = (0.0, 1.0, 0)
    assert drawn == {greedy, (1.0, 0.5, 2), (1.0, 0.6, 3), (1.0, 0.7, 4), (0.9, 0.8, 5)}


@pytest.mark.parametrize("shots", [None, 0, 2])
def test_a_chat_whose_steps_are_paragraphs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shots: int | None
) -> None:
    """Every prompt is the template's, every step ends in an empty line, thoughts are nowhere."""
    monkeypatch.setattr("glore.models.load_tokenizer", lambda path: chat_tokenizer("qwen3"))
    world.dress = lambda text: "<think>no #### 9</think>" + text.replace("\n", "\n\n")
    data = config_of(tmp_path, bootstrap="prompt", shots=shots).model_dump()
    data["task"] = {"kind": "gsm8k"}
    data["prompt"] = {"style": "chat", "steps": "paragraph", "think": "apart"}
    data["student"]["ei"]["max_rounds"] = 1
    config = RunConfig.model_validate(data)
    run_stages(build_stages(config), config)

    requests = [r for found in world.engines.values() for e in found for r in e.requests]
    head = "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n<|im_start|>user\n"
    tail = "<|im_end|>\n<|im_start|>assistant\n"
    for request in requests:
        assert isinstance(request.segments[0], ControlText)
        assert request.segments[0].startswith(head)
        assert tail in "".join(request.segments)
        assert "think" not in "".join(request.segments)
    base = [r for e in world.engines["base"] for r in e.requests]
    for request in base:
        turns = request.segments[0].count("<|im_start|>user\n")
        assert turns == 1 + (1 if shots is None else shots)
        assert ("Mia picked" in request.segments[0]) == (shots is None)
        assert request.segments[0].count(f"\nWhat is {request.id}?<") == 1, "never its own example"
    if shots == 2:
        assert "2 + 8 = 10\n\n#### 10<|im_end|>" in base[0].segments[0]
    for example in (*world.trained["ei1"], *world.trained["refiner"]):
        assert isinstance(example, LMExample)
        assert all(s.endswith("\n\n") for s in example.target)
        assert "".join(example.prompt).endswith(tail)
    for example in world.trained["sorm"]:
        assert isinstance(example, StepExample)
        assert example.prompt[0].startswith(head)
        assert all(s.endswith("\n\n") for s in example.steps)
    drafts = [s for s in read_stage(config, "test_drafts", Solution) if isinstance(s, Solution)]
    assert {s.thought for s in drafts} == {"no #### 9"}
    assert all("think" not in step for s in drafts for step in s.steps)
    assert {s.answer for s in drafts} <= {"10", "3"}
    mark = json.loads((config.run_dir / "stages" / "test_drafts" / "done.json").read_text())
    assert mark["counts"]["thoughts"] == len(drafts)


def test_what_is_cut_off_is_counted(world: World, tmp_path: Path) -> None:
    world.dress = lambda text: text + " " * 150  # blanks: the answer stays the last line
    data = config_of(tmp_path).model_dump()
    data["prompt"] = {"max_solution_chars": 100}
    config = RunConfig.model_validate(data)
    run_stages(build_stages(config), config)
    samples = [s for s in read_stage(config, "samples", Solution) if isinstance(s, Solution)]
    assert all(s.n_cut > 0 and sum(map(len, s.steps)) <= 100 for s in samples)
    for stage, all_of_them in (("samples", "solutions"), ("rollouts", "rollouts")):
        mark = json.loads((config.run_dir / "stages" / stage / "done.json").read_text())
        assert mark["counts"]["cut"] == mark["counts"][all_of_them]


def test_prompted_bootstrap_has_no_sft_student(world: World, tmp_path: Path) -> None:
    config = config_of(tmp_path, bootstrap="prompt")
    names = [s.name for s in build_stages(config)]
    assert "sft_test_drafts" not in names
    run_stages(build_stages(config), config)
    assert "sft" not in world.trained
    assert not (config.run_dir / "models" / "sft").exists()
    assert world.opened["base"] == 2, "greedy on dev, and the samples of round 1"
    assert len(world.trained["ei1"]) == len(read_stage(config, "ei1_train", Solution, "right")), (
        "D_0 is empty"
    )
    assert (config.run_dir / "models/student/model.txt").read_text().startswith("ei")


def test_reward_models_may_learn_from_questions_that_the_student_has_not_seen(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = [dataclasses.replace(p, solution=("#### 10",)) for p in all_problems()]
    monkeypatch.setattr(glore.stages.common, "open_task", lambda settings, seed, *_: Oracle(worked))
    config = config_of(tmp_path, sft_questions=7)
    config = config.model_copy(
        update={
            "reward": config.reward.model_copy(update={"questions": 5}),
            "student": config.student.model_copy(
                update={"ei": config.student.ei.model_copy(update={"questions": 7})}
            ),
        }
    )
    run_stages(build_stages(config), config)
    prompt_of = {p.id: solve_segments(p.question) for p in worked}
    drawn = {s.problem_id for s in read_stage(config, "samples", Solution)}  # type: ignore[attr-defined]
    assert len(drawn) == 5
    judged = {e.prompt for e in world.trained["sorm"]}  # type: ignore[attr-defined]
    assert judged <= {prompt_of[i] for i in drawn}
    for model in ("sft", "ei1"):
        seen = {e.prompt for e in world.trained[model]}  # type: ignore[attr-defined]
        assert len(seen) == 7
        assert not seen & {prompt_of[i] for i in drawn}, model


def test_bad_combinations_are_said(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match=r"needs a round of expert iteration"):
        config_of(tmp_path, bootstrap="prompt", ei={"max_rounds": 0})
    with pytest.raises(ValidationError, match=r"sft_questions 3 is for student\.bootstrap sft"):
        config_of(tmp_path, bootstrap="prompt", sft_questions=3)
    unworked = [dataclasses.replace(p, solution=None) for p in all_problems()]
    monkeypatch.setattr(glore.stages.common, "open_task", lambda *_: Oracle(unworked))
    config = config_of(tmp_path / "2")
    with pytest.raises(DataError, match=r"set student\.bootstrap to prompt"):
        run_stages(build_stages(config), config)
    monkeypatch.setitem(SKILL, "base", 0.0)
    config = config_of(tmp_path / "3", bootstrap="prompt")
    with pytest.raises(RunError, match=r"found no right solution among 72"):
        run_stages(build_stages(config), config)


def test_a_student_that_is_never_right_is_said(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SKILL:
        monkeypatch.setitem(SKILL, name, 0.0)
    config = config_of(tmp_path)
    with pytest.raises(RunError, match=r"the orm has 0 good and \d+ bad steps"):
        run_stages(build_stages(config), config)


def test_edited_data_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        glore.stages.common, "open_task", open_task
    )  # the true one, while `finished` pretends
    monkeypatch.setattr("glore.models.load_tokenizer", lambda path: None)
    file = tmp_path / "mine.jsonl"
    file.write_text(
        "".join(
            f'{{"question": "What is {n} + 1?", "answer": {n + 1}}}\n' for n in [*range(40), 39]
        )
    )
    task = {"kind": "jsonl", "path": str(file), "n_dev": 5}
    config = RunConfig.model_validate(
        {"name": "t", "runs_dir": str(tmp_path), "task": task, "base": {"model": "some/base"}}
    )
    stages = build_stages(config)

    def answers() -> dict[str, str]:
        problems = [
            p
            for split in ("train", "dev", "test")
            for p in read_stage(config, "problems", Problem, split)
        ]
        return {p.question: p.answer for p in problems if isinstance(p, Problem)}

    run_stages(stages, config, until="base")
    assert answers()["What is 3 + 1?"] == "4"
    plans = plan_stages(stages[:2], config)
    assert [p.state for p in plans] == ["reused", "reused"]
    assert plans[0].done is not None
    assert (plans[0].done.counts["duplicates"], plans[0].done.counts["in_another_split"]) == (1, 0)
    file.write_text(file.read_text().replace('"answer": 4}', '"answer": 5}'))
    plans = run_stages(stages, config, until="base", redo=True)
    assert plans[0].why.startswith("content of task.path '")
    assert plans[1].state == "reused", "a given base reads no data"
    assert answers()["What is 3 + 1?"] == "5"
    assert plan_stages(stages[:3], config)[2].why == "no result yet"
    file.rename(tmp_path / "gone.jsonl")
    assert [p.state for p in plan_stages(stages[:2], config)] == ["reused", "reused"]


def test_a_base_model_is_what_its_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glore.stages.common, "open_task", open_task)
    monkeypatch.setattr("glore.models.load_tokenizer", lambda path: None)
    data, folder = tmp_path / "mine.jsonl", tmp_path / "base"
    data.write_text(
        "".join(f'{{"question": "What is {n} + 1?", "answer": {n + 1}}}\n' for n in range(40))
    )
    folder.mkdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(3_000_000))
    (folder / "config.json").write_text("{}")
    config = RunConfig.model_validate(
        {
            "name": "t",
            "runs_dir": str(tmp_path),
            "task": {"kind": "jsonl", "path": str(data), "n_dev": 5},
            "base": {"model": str(folder)},
        }
    )
    stages = build_stages(config)
    before = {plan.name: plan.fingerprint for plan in run_stages(stages, config, until="base")}

    def plans() -> dict[str, StagePlan]:
        return {plan.name: plan for plan in plan_stages(stages, config)}

    assert plans()["base"].state == "reused"
    (folder / "README.md").write_text("read by nobody")
    assert plans()["base"].state == "reused"
    stat = weights.stat()
    flipped = bytearray(weights.read_bytes())
    flipped[2_345_678] ^= 1
    weights.write_bytes(flipped)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    now = plans()
    assert now["base"].state == "computed"
    assert now["base"].why.startswith("content of base.model '")
    assert now["problems"].fingerprint == before["problems"]
    # All that is trained or sampled follows from the base.
    flipped[2_345_678] ^= 1
    weights.write_bytes(flipped)
    back = plans()
    assert back["base"].state == "reused"
    assert {name for name in now if now[name].fingerprint == back[name].fingerprint} == {"problems"}
    (folder / "tokenizer.json").write_text("{}")
    assert plans()["base"].state == "computed"
    pickled = folder / "pytorch_model.bin"
    pickled.write_bytes(b"a")
    by_file = model_contents(str(pickled))
    assert by_file == model_contents(str(folder))
    pickled.write_bytes(b"b")
    assert model_contents(str(pickled)) != by_file
    monkeypatch.chdir(folder.parent)
    assert model_contents("base/pytorch_model.bin") == model_contents(str(pickled))
    assert model_contents("some/base") == {}
    shutil.rmtree(folder)
    assert plans()["base"].state == "reused", "a finished run needs its base no more"


def test_the_revision_of_a_base_is_part_of_what_follows_from_it(tmp_path: Path) -> None:
    def plans(**base: object) -> dict[str, str]:
        settings = {
            "name": "t",
            "runs_dir": str(tmp_path),
            "task": {"kind": "gsm8k"},
            "base": {"model": "a/b", **base},
        }
        config = RunConfig.model_validate(settings)
        return {plan.name: plan.fingerprint for plan in plan_stages(build_stages(config), config)}

    plain, pinned = plans(), plans(revision="v1")
    assert {name for name in plain if plain[name] == pinned[name]} == {"problems"}
    assert pinned != plans(revision="v2")


def test_every_sampling_and_training_stage_has_an_estimate(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    plans = run_stages(build_stages(config), config, dry_run=True)
    without = {p.name for p in plans if p.tokens is None}
    assert without == {
        "problems",
        "student",
        "labels",
        "pairs",
        "test_labels",
        "test_draft_scores",
        "test_scores",
        "evaluate",
    }
    assert not config.run_dir.exists()


def test_unused_record_kinds_stay_readable(finished: tuple[World, RunConfig]) -> None:
    _, config = finished
    for model in ("orm", "balanced_orm", "sorm"):
        scores = [
            s
            for s in read_stage(config, "test_draft_scores", StepScores, model)
            if isinstance(s, StepScores)
        ]
        assert {s.model for s in scores} == {model}
        assert len(scores) == 8


@pytest.mark.parametrize("recipe", ["quickstart", "svamp-scratch"])
def test_the_base_stage_reads_no_more_of_the_task_than_it_declares(
    recipe: str, data_dir: Path
) -> None:
    """The text of a base model is drawn under the view of the settings that the stage has."""
    data = data_dir / "svamp"
    paths = [f"task.path={data}/SVAMP.json", f"task.scratch_path={data}/mawps_asdiv_train.csv"]
    given = paths if recipe == "svamp-scratch" else []
    config = load_config(Path(__file__).parents[2] / "recipes" / f"{recipe}.yaml", given)
    stage = next(s for s in build_stages(config) if s.name == "base")
    task = open_task(settings_view(config, stage, []).task, config.seed)
    assert isinstance(task, ScratchTask)
    whole = open_task(config.task, config.seed)
    assert isinstance(whole, ScratchTask)
    ours, theirs = random.Random(0), random.Random(0)
    for n in range(300):
        seen, expected = (
            source.base_document(rng, n / 300) for source, rng in ((task, ours), (whole, theirs))
        )
        assert seen == expected, "the same text as without the view"
