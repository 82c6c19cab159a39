"""What fits is reused, what doesn't is made again and the reason said, and an interruption anywhere
changes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import glore.pipeline.reuse
import glore.pipeline.run
from glore.config import RunConfig
from glore.errors import ConfigError, RunError
from glore.pipeline import Stage, StageContext, plan_stages, run_stages
from glore.pipeline.fingerprints import declared_settings, flat_settings
from glore.pipeline.integrity import check_belongs_together, makers, part_files
from glore.pipeline.marks import read_done
from glore.pipeline.view import settings_view
from glore.records import Problem, StepScores, read_records
from support.small_stages import N_PROBLEMS, contents, small_config, small_stages


class Notes:
    """A Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lines: list[tuple[str, int]] = []
        self.units: list[int] = []
        self.tokens = 0

    def begin(self, what: str, total: int, unit: str) -> None:
        if not what.endswith("working"):
            self.lines.append((what, total))
            self.units.append(0)

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        self.units[-1] += n
        self.tokens += tokens

    def note(self, message: str) -> None:
        self.notes.append(message)


class Stopped(BaseException):
    """Like KeyboardInterrupt: not an Exception."""


def states(config: RunConfig, stages: Sequence[Stage] = ()) -> list[str]:
    return [p.state for p in plan_stages(stages or small_stages(), config)]


def test_a_run_leaves_records_marks_and_models(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    notes = Notes()
    run_stages(small_stages(), config, progress=notes)
    assert sorted(contents(config.run_dir)) == [
        "config.yaml",
        "models/student-1/glore-digests.json",
        "models/student-1/weights",
        "models/student-2/glore-digests.json",
        "models/student-2/weights",
        "stages/evaluate/done.json",
        "stages/evaluate/part-00000.parquet",
        "stages/sample/done.json",
        *(f"stages/sample/train-0000{i}.parquet" for i in range(4)),
        *(f"stages/sample/train-dev-0000{i}.parquet" for i in range(2)),
        "stages/task/done.json",
        "stages/task/part-00000.parquet",
        "stages/train/done.json",
    ]
    done = read_done(config.run_dir / "stages" / "sample")
    assert done is not None
    assert (done.tokens, done.counts) == (10 * (N_PROBLEMS + 3), {"wrong": 4 + 2})
    assert notes.lines == [("stage 2/4 sample · train", 7), ("stage 2/4 sample · train-dev", 3)]
    assert (notes.units, notes.tokens) == ([7, 3], 100)
    train = read_done(config.run_dir / "stages" / "train")
    assert train is not None
    assert sorted(train.models) == ["student-1", "student-2"]
    assert train.tokens == 200
    evaluate = read_done(config.run_dir / "stages" / "evaluate")
    assert evaluate is not None
    assert evaluate.models == {}, "a model that is only read belongs to the stage that made it"


def test_running_again_computes_nothing(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    run_stages(small_stages(), config)
    before = contents(config.run_dir)

    def forbidden() -> None:
        raise AssertionError("computed again")

    assert [p.state for p in run_stages(small_stages(forbidden), config)] == ["reused"] * 4
    assert contents(config.run_dir) == before


@pytest.mark.parametrize("moment", range(13))
def test_interrupted_anywhere_and_run_again_gives_the_same_bytes(
    tmp_path: Path, moment: int
) -> None:
    whole = small_config(tmp_path / "whole")
    run_stages(small_stages(), whole)
    config = small_config(tmp_path / "cut")
    ticks = iter(range(1000))

    def tick() -> None:
        if next(ticks) == moment:
            raise Stopped

    for _ in range(2):
        try:
            run_stages(small_stages(tick), config)
            break
        except Stopped:
            continue
    got, expected = contents(config.run_dir), contents(whole.run_dir)
    del got["config.yaml"], expected["config.yaml"]
    assert got == expected
    assert moment < 12 or next(ticks) == 12, "the last moment lies beyond the end of the run"


def test_committed_shards_are_not_computed_again(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    ticks = iter(range(1000))

    def tick() -> None:
        if next(ticks) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run_stages(small_stages(tick), config)
    assert states(config) == ["reused", "resumed", "computed", "computed"]
    notes = Notes()
    run_stages(small_stages(tick), config, progress=notes)
    assert "  train: 2 of 4 shards are there already" in notes.notes
    assert notes.lines[0] == ("stage 2/4 sample · train", 3)


def test_a_changed_setting_recomputes_its_stage_and_what_follows_and_says_which(
    tmp_path: Path,
) -> None:
    config = small_config(tmp_path)
    run_stages(small_stages(), config)
    changed = small_config(tmp_path, student={"sft": {"learning_rate": 0.5}})
    plans = plan_stages(small_stages(), changed)
    assert [p.state for p in plans] == ["reused", "reused", "computed", "computed"]
    assert plans[2].why == "student.sft.learning_rate 5e-05 → 0.5"
    assert plans[3].why == "made from another train"
    run_stages(small_stages(), changed, redo=True)
    fresh = small_config(tmp_path / "fresh", student={"sft": {"learning_rate": 0.5}})
    run_stages(small_stages(), fresh)
    got, expected = contents(changed.run_dir), contents(fresh.run_dir)
    del got["config.yaml"], expected["config.yaml"]
    assert got == expected


@pytest.mark.parametrize("finished", [True, False])
def test_what_was_made_under_other_settings_is_not_replaced_unasked(
    tmp_path: Path, finished: bool
) -> None:
    ticks = iter(range(1000))

    def tick() -> None:
        if not finished and next(ticks) == 3:
            raise Stopped

    config = small_config(tmp_path)
    with contextlib.nullcontext() if finished else pytest.raises(Stopped):
        run_stages(small_stages(tick), config)
    before = contents(config.run_dir)
    rule = "stage task and 3 after it" if finished else "stage task and 1 after it"
    with pytest.raises(
        RunError,
        match=rf"holds results of other settings: {rule} \(seed 0 → 5\).*name=….*--redo",
    ):
        run_stages(small_stages(), small_config(tmp_path, seed=5))
    assert contents(config.run_dir) == before
    run_stages(small_stages(), config)
    assert states(config) == ["reused"] * 4


def test_stages_that_do_not_belong_together_are_found(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    run_stages(small_stages(), config)
    names = [stage.name for stage in small_stages()]
    check_belongs_together(config.run_dir, names)
    run_stages(small_stages(), small_config(tmp_path, seed=5), until="task", redo=True)
    with pytest.raises(
        RunError, match=r"stage sample was made from another task than the present one.*--redo"
    ):
        check_belongs_together(config.run_dir, names)
    check_belongs_together(config.run_dir, ["task"])
    models = [p.name for p in (config.run_dir / "models").iterdir()]
    with pytest.raises(RunError, match="made from another"):
        check_belongs_together(config.run_dir, makers(config.run_dir, models))


def test_partial_shards_of_other_settings_are_not_used(tmp_path: Path) -> None:
    ticks = iter(range(1000))

    def tick() -> None:
        if next(ticks) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run_stages(small_stages(tick), small_config(tmp_path))
    changed = small_config(tmp_path, seed=5)
    assert (
        plan_stages(small_stages(), changed)[1].why
        == "unfinished, but seed 0 → 5; made from another task"
    )
    run_stages(small_stages(), changed, redo=True)
    fresh = small_config(tmp_path / "fresh", seed=5)
    run_stages(small_stages(), fresh)
    got, expected = contents(changed.run_dir), contents(fresh.run_dir)
    del got["config.yaml"], expected["config.yaml"]
    assert got == expected


def test_settings_no_stage_reads_change_nothing(tmp_path: Path) -> None:
    run_stages(small_stages(), small_config(tmp_path))
    assert states(small_config(tmp_path, labels={"rollouts": 3})) == ["reused"] * 4


def test_a_newer_stage_version_recomputes(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    run_stages(small_stages(), config)
    stages = list(small_stages())
    stages[1] = dataclasses.replace(stages[1], version=2)
    plans = plan_stages(stages, config)
    assert [p.state for p in plans] == ["reused", "computed", "computed", "computed"]
    assert plans[1].why == "the stage's code has another version"


def with_contents(folder: Path) -> tuple[Stage, ...]:
    """The small stages, the first of which reads a file from outside the run."""
    file = folder / "data.txt"
    first, *others = small_stages()
    return dataclasses.replace(
        first, contents=lambda c: {"task.path": file.read_text() if file.exists() else None}
    ), *others


def test_changed_data_recomputes_and_data_that_is_gone_does_not(tmp_path: Path) -> None:
    config, stages = small_config(tmp_path), with_contents(tmp_path)
    plan = plan_stages(stages, config)[0]
    assert "content of task.path" not in plan.settings
    assert plan.why == "no result yet; missing: task.path"
    (tmp_path / "data.txt").write_text("old")
    run_stages(stages, config)
    assert states(config, stages) == ["reused"] * 4
    (tmp_path / "data.txt").write_text("new")
    plans = plan_stages(stages, config)
    assert [p.state for p in plans] == ["computed"] * 4
    assert [p.why for p in plans[:2]] == [
        "content of task.path 'old' → 'new'",
        "made from another task",
    ]
    (tmp_path / "data.txt").unlink()
    assert states(config, stages) == ["reused"] * 4, "a finished run needs its data no more"


def test_changed_data_does_not_go_on_with_an_unfinished_stage(tmp_path: Path) -> None:
    def stopped(context: StageContext) -> None:
        raise Stopped

    config, (first, *others) = small_config(tmp_path), with_contents(tmp_path)
    (tmp_path / "data.txt").write_text("old")
    with pytest.raises(Stopped):
        run_stages((dataclasses.replace(first, run=stopped), *others), config)
    assert plan_stages((first, *others), config)[0].state == "resumed"
    (tmp_path / "data.txt").write_text("new")
    plan = plan_stages((first, *others), config)[0]
    assert (plan.state, plan.why) == (
        "computed",
        "unfinished, but content of task.path 'old' → 'new'",
    )


def test_another_release_recomputes_and_another_patch_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path)
    for version, expected in (("0.1.0", "computed"), ("0.1.7", "reused"), ("0.2.0", "computed")):
        for module in (glore.pipeline.reuse, glore.pipeline.run):
            monkeypatch.setattr(
                module, "package_versions", lambda version=version: {"glore": version}
            )
        plans = plan_stages(small_stages(), config)
        assert [p.state for p in plans] == [expected] * 4, version
        if version == "0.1.0":
            run_stages(small_stages(), config)
    assert plans[0].why == "made by glore 0.1, this is 0.2"


def test_until_stops_after_its_stage_and_suggests_the_nearest(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    assert [p.name for p in run_stages(small_stages(), config, until="sample")] == [
        "task",
        "sample",
    ]
    assert states(config) == ["reused", "reused", "computed", "computed"]
    with pytest.raises(ConfigError, match="did you mean sample"):
        run_stages(small_stages(), config, until="smaple")
    with pytest.raises(ConfigError, match="stages: task, sample, train, evaluate"):
        run_stages(small_stages(), config, until="zzz")


def test_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    config = small_config(tmp_path / "not" / "there")
    plans = run_stages(small_stages(), config, dry_run=True)
    assert [p.tokens for p in plans] == [0, 100, 200, None]
    assert not (tmp_path / "not").exists()


def test_seconds_of_interrupted_attempts_are_kept(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    ticks = iter(range(1000))

    def tick() -> None:
        if next(ticks) == 4:
            raise Stopped

    with pytest.raises(Stopped):
        run_stages(small_stages(tick), config)
    shard = config.run_dir / "stages" / "sample" / ".train-00000.json"
    memory = json.loads(shard.read_text())
    shard.write_text(json.dumps({**memory, "seconds": 500.0}))
    run_stages(small_stages(), config)
    done = read_done(config.run_dir / "stages" / "sample")
    assert done is not None
    assert 500 < done.seconds < 510


def test_an_unfinished_run_goes_on_where_it_was_copied_to(tmp_path: Path) -> None:
    config, copy = small_config(tmp_path / "here"), small_config(tmp_path / "there")
    ticks = iter(range(1000))

    def tick() -> None:
        if next(ticks) == 11:
            raise Stopped

    with pytest.raises(Stopped):
        run_stages(small_stages(tick), config)
    assert states(config) == ["reused", "reused", "reused", "resumed"]
    shutil.copytree(config.run_dir, copy.run_dir)
    run_stages(small_stages(), copy)
    run_stages(small_stages(), config)
    got, expected = contents(copy.run_dir), contents(config.run_dir)
    del got["config.yaml"], expected["config.yaml"]
    assert got == expected


def test_another_shard_size_in_the_code_reuses_no_shard(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    problems = [Problem(str(i), "q", "1", None, "train") for i in range(6)]

    def stage(shard_size: int, n_shards: int) -> Stage:
        def run(context: StageContext) -> None:
            made = iter(range(n_shards))

            def work(shard: Sequence[Problem]) -> list[Problem]:
                if next(made, None) is None:
                    raise Stopped
                return list(shard)

            assert context.sharded(problems, shard_size, work, Problem) == problems

        return Stage("s", run)

    with pytest.raises(Stopped):
        run_stages([stage(1, 4)], config)
    run_stages([stage(3, 2)], config)
    files = part_files(config.run_dir / "stages" / "s", "part")
    assert [p.name for p in files] == ["part-00000.parquet", "part-00001.parquet"]
    assert read_records(files, Problem) == problems


def test_no_items_is_one_empty_shard(tmp_path: Path) -> None:
    config = small_config(tmp_path)

    def run(context: StageContext) -> None:
        assert context.sharded([], 4, lambda shard: list(shard), Problem) == []
        assert context.read("s", Problem) == []

    run_stages([Stage("s", run)], config)


def test_work_that_shows_its_own_progress_is_not_counted_twice(tmp_path: Path) -> None:
    notes = Notes()

    def run(context: StageContext) -> None:
        def work(shard: Sequence[int]) -> list[StepScores]:
            for _ in shard:
                context.progress.advance(1, tokens=5)
            context.count(tokens=5 * len(shard))
            return []

        context.sharded(range(10), 4, work, StepScores)

    run_stages([Stage("s", run)], small_config(tmp_path), progress=notes)
    assert (notes.units, notes.tokens) == ([10], 50)


def test_a_stage_reads_only_what_it_says_it_reads(tmp_path: Path) -> None:
    task = small_stages()[0]
    greedy = Stage("greedy", lambda context: void(context.read("task", Problem)))
    with pytest.raises(ValueError, match="not among its inputs"):
        run_stages([task, greedy], small_config(tmp_path))


def test_two_stages_cannot_make_one_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sft and ei both make models/student"):
        run_stages(
            [Stage(name, void, models=("student",)) for name in ("sft", "ei")],
            small_config(tmp_path),
        )


def test_a_stage_makes_only_models_that_it_says_it_makes(tmp_path: Path) -> None:
    stage = Stage("sft", lambda context: void(context.new_model_dir("student")), models=("sft",))
    with pytest.raises(ValueError, match="makes models/student, which is not among its models"):
        run_stages([stage], small_config(tmp_path))


def test_a_model_that_the_stage_no_longer_makes_goes_with_its_records(tmp_path: Path) -> None:
    def run(context: StageContext) -> None:
        for name in ("a", "b") if context.config.seed == 0 else ("a",):
            context.new_model_dir(name).mkdir(parents=True)
            (context.new_model_dir(name) / "weights").write_text(name)

    def stage(*models: str) -> Stage:
        return Stage("s", run, models=models)

    config = small_config(tmp_path)
    run_stages([stage("a", "b")], config)
    run_stages([stage("a")], small_config(tmp_path, seed=1), redo=True)
    assert [p.name for p in (config.run_dir / "models").iterdir()] == ["a"]


@pytest.mark.parametrize("meddle", ["chmod", "touch", "link", "nothing"])
def test_what_else_happens_to_the_files_during_a_stage_does_not_matter(
    tmp_path: Path, meddle: str
) -> None:
    """`chmod -R`, `touch` and `cp -al` over the whole run folder while a stage is at work."""
    moments = iter(range(100))

    def tick() -> None:
        run_dir = tmp_path / "small"
        number = next(moments)
        for path in sorted(run_dir.rglob("*")):
            if meddle == "chmod":
                path.chmod(0o700)
            elif meddle == "touch":
                os.utime(path)
        if meddle == "link":
            shutil.copytree(run_dir, tmp_path / f"link{number}", copy_function=os.link)

    config = small_config(tmp_path)
    run_stages(small_stages(tick), config)
    assert states(config) == ["reused"] * 4
    done = read_done(config.run_dir / "stages" / "train")
    assert done is not None
    assert sorted(done.models) == ["student-1", "student-2"]
    assert sorted(done.models["student-1"]) == ["glore-digests.json", "weights"]
    evaluate = read_done(config.run_dir / "stages" / "evaluate")
    assert evaluate is not None
    assert evaluate.models == {}


def test_stages_must_be_in_order(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must stand before it"):
        plan_stages(small_stages()[::-1], small_config(tmp_path))


def test_a_stage_reads_only_models_of_its_inputs(tmp_path: Path) -> None:
    def make(context: StageContext) -> None:
        context.new_model_dir("base").mkdir(parents=True)
        (context.new_model_dir("base") / "weights").write_text("w")

    base = Stage("base", make, models=("base",))
    reads = Stage("reads", lambda context: void(context.model_dir("base")), inputs=("base",))
    other = Stage("other", lambda context: void(context.model_dir("base")))
    run_stages([base, reads], small_config(tmp_path))
    with pytest.raises(ValueError, match="other reads models/base, which none of its inputs makes"):
        run_stages([base, other], small_config(tmp_path))


def test_settings_are_named_by_their_place_in_the_recipe() -> None:
    config = RunConfig(name="x", seed=7)
    stage = Stage(
        "s", void, reads=("labels", "student.ei"), without=("labels.balance", "student.ei.samples")
    )
    flat = declared_settings(config, stage)
    assert flat["seed"] == 7
    assert flat["labels.rollouts"] == 8
    assert flat["student.ei.max_rounds"] == 5
    assert not {"labels.balance", "student.ei.samples"} & flat.keys()
    assert flat_settings((("a", 3), {"n": 1}), "at") == {"at.0.0": "a", "at.0.1": 3, "at.1.n": 1}
    with pytest.raises(TypeError, match="sections and plain values"):
        flat_settings(Path("x"))


def test_a_newer_setting_is_in_a_fingerprint_only_with_another_value() -> None:
    """So runs made before the setting existed stay valid."""
    stage = Stage("s", void, reads=("reward", "student.ei.top_p"), without=("reward.top_k",))
    assert (
        not {"reward.top_p", "reward.top_k", "student.ei.top_p"}
        & declared_settings(RunConfig(name="x"), stage).keys()
    )
    changed = {"reward": {"top_p": 0.9, "top_k": 3}, "student": {"ei": {"top_p": 0.5}}}
    flat = declared_settings(RunConfig.model_validate({"name": "x", **changed}), stage)
    assert (flat["reward.top_p"], flat["student.ei.top_p"]) == (0.9, 0.5)
    assert "reward.top_k" not in flat
    lora = Stage("s", void, reads=("student.sft", "refiner.train"))
    sections = {
        "student": {"sft": {"lora": {"r": 4}}},
        "refiner": {"train": {"lora": {"save": "adapter"}}},
    }
    flat = declared_settings(RunConfig.model_validate({"name": "x", **sections}), lora)
    assert flat["student.sft.lora.r"] == 4
    assert "student.sft.lora.save" not in flat
    assert flat["refiner.train.lora.save"] == "adapter"
    none = declared_settings(RunConfig(name="x"), lora)
    assert none["student.sft.lora"] is None


def test_a_stage_sees_what_it_declares_and_what_its_inputs_do() -> None:
    config = RunConfig(name="x")
    task = Stage("task", void, reads=("task",), without=("task.stories.n_train",))
    stage = Stage(
        "s", void, inputs=("task",), reads=("labels.rollouts", "base.model"), uses=("launch",)
    )
    seen = settings_view(config, stage, [task])
    assert (seen.seed, seen.labels.rollouts, seen.launch) == (0, 8, "")
    assert (seen.task.kind, seen.task.stories.n_test) == ("stories", 600)
    changed = seen.labels.model_copy(update={"full_counts": True})
    assert (changed.full_counts, changed.rollouts) == (True, 8)
    again = changed.model_copy(update={"temperature": 0.5})
    assert (again.full_counts, again.temperature, again.rollouts) == (True, 0.5, 8)


@pytest.mark.parametrize(
    "path",
    ["labels.balance", "student.bootstrap", "task.stories.n_train", "base.reference", "name"],
)
def test_an_undeclared_read_is_refused(path: str) -> None:
    """A property such as `base.reference` counts as the fields that it is made of."""
    task = Stage("task", void, reads=("task",), without=("task.stories.n_train",))
    stage = Stage("s", void, inputs=("task",), reads=("labels.rollouts", "base.model"))
    config = RunConfig.model_validate({"name": "x", "base": {"model": "some/base"}})
    seen = settings_view(config, stage, [task])
    with pytest.raises(ValueError, match=r"stage s reads the setting .*, which it does not decl"):
        functools.reduce(getattr, path.split("."), seen)


def test_a_stage_declares_settings_that_exist() -> None:
    stage = Stage("s", void, reads=("labels.rollout",))
    with pytest.raises(ValueError, match=r"stage s declares labels\.rollout, which is no setting"):
        settings_view(RunConfig(name="x"), stage, [])


def void(_: object) -> None:
    """Drop a value."""
