"""Regrading: stored records become those of a fresh run with the current graders, and nothing known
is drawn again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

import glore.pipeline.swap
import glore.regrade.run
import glore.stages.common
from glore.cli import app
from glore.config import RunConfig, TaskSettings
from glore.errors import RunError
from glore.pipeline import plan_stages, run_stages
from glore.pipeline.folder import locked
from glore.records import PrefixTrials, Problem, Solution, read_records
from glore.regrade import Regrading, regrade
from glore.report import build_report
from glore.stages import build_stages
from glore.tasks.open import open_grader, open_task
from glore.tasks.protocol import Grade
from support.pretend_models import Oracle, World, all_problems, config_of, pretend, read_stage


class Stricter(Oracle):
    """Another grader for these questions or splits: some right answers become wrong, some wrong
    ones right, some unknown.
    """

    def __init__(self, questions: Sequence[str]) -> None:
        super().__init__(all_problems())
        self._questions = frozenset(questions)

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        grade = super().grade(problem, steps)
        if not {problem.id, problem.split} & self._questions:
            return grade
        text = "\n".join(steps)
        if grade.verdict == "right":
            return Grade("wrong" if "3 - 1" in text else "right", grade.answer)
        odd = sum(map(ord, problem.id)) % 3
        return Grade(
            ("right", "unknown", "wrong")[odd] if "1 + 1" in text else "wrong",
            f"{grade.answer} by another grader",
        )


def use_grader(monkeypatch: pytest.MonkeyPatch, *questions: str) -> None:
    monkeypatch.setattr(
        glore.stages.common, "open_task", lambda settings, seed, *_: Stricter(questions)
    )
    monkeypatch.setattr(
        glore.regrade.run, "open_grader", lambda settings, seed, problems: Stricter(questions)
    )


def settings(folder: Path, **labels: object) -> RunConfig:
    """Reward models and expert iteration use different questions, so a change to one leaves the
    other.
    """
    config = config_of(folder, ei={"samples": 6, "max_rounds": 1, "questions": 5})
    data = config.model_dump()
    data["reward"]["questions"] = 7
    data["labels"].update(labels)
    return RunConfig.model_validate(data)


@pytest.fixture(scope="module", params=["scan", "full counts"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunConfig]:
    """A run under the first grader."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretend(monkeypatch)
        config = settings(
            tmp_path_factory.mktemp("made"), full_counts=request.param == "full counts"
        )
        run_stages(build_stages(config), config)
        yield config


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return pretend(monkeypatch)


@pytest.fixture
def run(made: RunConfig, tmp_path: Path, world: World) -> RunConfig:
    """A copy of it that a test may change."""
    config = made.model_copy(update={"runs_dir": str(tmp_path)})
    shutil.copytree(made.run_dir, config.run_dir)
    return config


def fresh(config: RunConfig, folder: Path) -> RunConfig:
    """A fresh run of the same settings with the current grader."""
    other = config.model_copy(update={"runs_dir": str(folder)})
    run_stages(build_stages(other), other)
    return other


def files(config: RunConfig) -> dict[str, bytes]:
    """All files except the lock and logs."""
    return {
        str(p.relative_to(config.run_dir)): p.read_bytes()
        for p in sorted(config.run_dir.rglob("*"))
        if p.is_file() and p.name != ".lock" and "log" not in p.relative_to(config.run_dir).parts
    }


def records(config: RunConfig, stage: str) -> dict[str, object]:
    """Bytes of a stage's files. For rollouts: their records without the tokens, which a shortened
    record does not know.
    """
    found: dict[str, object] = {}
    for path in sorted((config.run_dir / "stages" / stage).glob("*.parquet")):
        found[path.name] = path.read_bytes()
        if "rollouts" in stage:
            found[path.name] = [
                dataclasses.replace(t, n_tokens=0) for t in read_records(path, PrefixTrials)
            ]
    return found


def reward_questions(config: RunConfig) -> set[str]:
    """Training questions that reward models use, and no stage before them."""
    return {
        s.problem_id for s in read_stage(config, "samples", Solution) if isinstance(s, Solution)
    }


def states(config: RunConfig) -> dict[str, str]:
    return {plan.name: plan.state for plan in plan_stages(build_stages(config), config)}


def outcomes(result: Regrading) -> dict[str, str]:
    return {s.stage: s.outcome for s in result.stages if s.outcome != "unchanged"}


def test_the_same_grader_changes_nothing(run: RunConfig) -> None:
    before = files(run)
    for apply in (False, True):
        result = regrade(run, apply=apply)
        assert not result.changed
        assert not result.is_applied
        assert (result.stale, result.skipped) == ([], [])
        assert sum(s.n_dropped + s.n_unfinished for s in result.stages) == 0
    assert files(run) == before
    seen = {s.stage: s.n_verdicts for s in result.stages}
    assert seen["samples"] == len(read_stage(run, "samples", Solution))
    assert seen["rollouts"] == sum(
        len(t.completions)
        for t in read_stage(run, "rollouts", PrefixTrials)
        if isinstance(t, PrefixTrials)
    )
    sampling = {"sft", "ei1_samples", "ei1_train", "samples", "sft_samples", "rollouts"}
    assert set(seen) == sampling | {
        "test_drafts",
        "test_samples",
        "sft_test_drafts",
        "sft_test_samples",
        "test_rollouts",
        "test_refinements",
    }


def test_looking_writes_nothing_and_counts_every_change(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(run)
    use_grader(monkeypatch, "train", "test")
    result = regrade(run, n_examples=2)
    assert files(run) == before
    assert result.changed
    assert not result.is_applied
    by_stage = {s.stage: s for s in result.stages}
    grader, problems = Stricter(["train", "test"]), {p.id: p for p in all_problems()}
    stored = [s for s in read_stage(run, "samples", Solution) if isinstance(s, Solution)]
    expected = Counter(
        (s.correct, grader.grade(problems[s.problem_id], s.steps).verdict) for s in stored
    )
    assert by_stage["samples"].transitions == {
        pair: n for pair, n in expected.items() if pair[0] != pair[1]
    }
    assert {("right", "wrong"), ("wrong", "right"), ("wrong", "unknown")} <= set(
        by_stage["samples"].transitions
    )
    example = next(
        e for e in by_stage["samples"].examples if (e.stored, e.now) == ("wrong", "right")
    )
    assert (example.gold, example.answer) == ("10", "3 by another grader")
    assert problems[example.problem_id].split == "train"
    for pair in by_stage["samples"].transitions:
        shown = [e.problem_id for e in by_stage["samples"].examples if (e.stored, e.now) == pair]
        assert 1 <= len(shown) <= 2
        assert len(set(shown)) == len(shown), "of different questions"


@pytest.mark.parametrize(
    "questions", [("test",), ("reward",), ("train", "dev", "test")], ids=" ".join
)
def test_regraded_and_run_on_is_what_a_fresh_run_holds(
    run: RunConfig, questions: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_grader(monkeypatch, *(reward_questions(run) if questions == ("reward",) else questions))
    result = regrade(run, apply=True)
    assert result.is_applied
    there = fresh(run, tmp_path / "fresh")
    after = states(run)
    for stage, outcome in outcomes(result).items():
        if stage not in result.stale:
            assert after[stage] == ("resumed" if outcome == "unfinished" else "reused"), stage
        if after[stage] == "reused":
            assert records(run, stage) == records(there, stage), stage
    assert {name for name, state in after.items() if state == "computed"} == set(result.stale)
    assert "evaluate" in result.stale
    again = regrade(run)
    assert not any(s.outcome == "rewritten" for s in again.stages), "once is enough"
    with pytest.raises(RunError, match="--redo"):
        run_stages(build_stages(run), run)
    with pytest.raises(RunError, match=r"--redo|finish it first with glore run"):
        build_report(run.run_dir)
    run_stages(build_stages(run), run, redo=True)
    for stage in states(run):
        assert records(run, stage) == records(there, stage), stage
    assert set(states(run).values()) == {"reused"}
    assert not regrade(run).changed


def test_a_changed_stage_makes_the_later_ones_stale_and_keeps_the_earlier(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_grader(monkeypatch, "test")
    result = regrade(run, apply=True)
    assert set(outcomes(result)) >= {
        "test_drafts",
        "test_samples",
        "sft_test_drafts",
        "sft_test_samples",
        "test_refinements",
        "test_rollouts",
    }
    assert set(result.stale) == {
        "test_labels",
        "test_draft_scores",
        "test_refinements",
        "test_scores",
        "evaluate",
    }
    assert {n for n, s in states(run).items() if s == "reused"} >= {
        "sft",
        "student",
        "samples",
        "orm",
        "rollouts",
        "sorm",
        "refiner",
    }
    counts = {p.name: p.done.counts for p in plan_stages(build_stages(run), run) if p.done}
    drafts = [
        s.correct for s in read_stage(run, "test_drafts", Solution) if isinstance(s, Solution)
    ]
    assert (counts["test_drafts"]["right"], counts["test_drafts"]["unknown"]) == (
        drafts.count("right"),
        drafts.count("unknown"),
    )
    assert counts["test_drafts"]["solutions"] == len(drafts)


def test_only_what_is_missing_is_drawn(
    run: RunConfig, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_grader(monkeypatch, *reward_questions(run))
    rollouts = {s.stage: s for s in regrade(run, apply=True).stages}["rollouts"]
    if run.labels.full_counts:
        assert (rollouts.outcome, rollouts.n_unfinished, states(run)["rollouts"]) == (
            "rewritten",
            0,
            "reused",
        ), "all were drawn"
        return
    assert rollouts.outcome == "unfinished"
    assert rollouts.n_unfinished > 0
    assert states(run)["rollouts"] == "resumed"
    assert regrade(run).skipped == ["rollouts"]
    world.engines.clear()
    run_stages(build_stages(run), run, redo=True, until="rollouts")
    (engine,) = world.engines["student"]
    there = fresh(run, tmp_path / "fresh")
    from_nothing = next(
        e
        for e in world.engines["student"]
        if e is not engine and e.requests[0].id.startswith("samples/")
    )
    assert {r.id.split("/", 1)[0] for r in engine.requests} == {"samples"}
    assert 0 < engine.n_drawn < from_nothing.n_drawn
    assert len({r.id.rsplit("/", 2)[0] for r in engine.requests}) == rollouts.n_unfinished, (
        "of the drafts that were named, no other"
    )
    assert records(run, "rollouts") == records(there, "rollouts")


def test_a_kill_at_any_moment_leaves_old_or_new(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_grader(monkeypatch, "test")

    def copy(name: str) -> RunConfig:
        other = run.model_copy(update={"runs_dir": str(tmp_path / name)})
        shutil.copytree(run.run_dir, other.run_dir)
        return other

    whole = copy("whole")
    moves = _killed_after(whole, None, monkeypatch)
    old, new = files(run), files(whole)
    assert old != new
    found = []
    for n in range(moves):
        place = copy(str(n))
        _killed_after(place, n, monkeypatch)
        left = _without_leftovers(files(place))
        if any(name.startswith(".swap/") for name in left):
            found.append("half")
            with pytest.raises(RunError, match="finish it"):
                regrade(place)
            # Whoever takes the lock next goes on with it: here a run, which then stops at what is
            # stale.
            with pytest.raises(RunError, match="--redo"):
                run_stages(build_stages(place), place)
            left = _without_leftovers(files(place))
            assert left == new
        assert left in (old, new)
        found.append("old" if left == old else "new")
        regrade(place, apply=True)
        assert _without_leftovers(files(place)) == new
    assert set(found) == {"old", "half", "new"}, (
        "killed before, in and after the moment from which it counts"
    )


class _Killed(BaseException):
    """Stands for a kill: nothing is cleaned up."""


def _killed_after(config: RunConfig, n: int | None, monkeypatch: pytest.MonkeyPatch) -> int:
    """Regrade, killed before the n-th rename or removal of a folder; returns their number."""
    moves = 0
    rename, rmtree = Path.rename, shutil.rmtree

    def counted() -> None:
        nonlocal moves
        if moves == n:
            raise _Killed
        moves += 1

    def renaming(self: Path, target: Path) -> Path:
        counted()
        return rename(self, target)

    def removing(path: Path, ignore_errors: bool = False) -> None:
        counted()
        rmtree(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as patch, contextlib.suppress(_Killed):
        patch.setattr(Path, "rename", renaming)
        patch.setattr(glore.pipeline.swap.shutil, "rmtree", removing)
        regrade(config, apply=True)
    return moves


def _without_leftovers(found: dict[str, bytes]) -> dict[str, bytes]:
    """Without the files that the next run removes."""
    return {
        name: data
        for name, data in found.items()
        if not re.search(r"(^|/)\.[^/]*\.(tmp|old)/", name)
    }


def test_a_run_that_is_at_work_is_not_regraded(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_grader(monkeypatch, "test")
    with locked(run.run_dir):
        assert regrade(run).changed, "looking needs no lock"
        with pytest.raises(RunError, match="in use"):
            regrade(run, apply=True)


def test_damaged_and_missing_records_are_errors(run: RunConfig, tmp_path: Path) -> None:
    path = run.run_dir / "stages/samples/part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"part-00000\.parquet has changed since its stage wrote it"):
        regrade(run)
    path.unlink()
    with pytest.raises(RunError, match=r"stage samples can't be graded: .*is missing"):
        regrade(run)
    shutil.rmtree(run.run_dir / "stages")
    with pytest.raises(RunError, match="no finished stage problems"):
        regrade(run)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("jsonl", [("1 + 1?", "2"), ("half?", "0.5")]),
        ("jsonl", [("1 + 1?", "2"), ("root?", "\\sqrt{2}")]),
        ("gsm8k", [("1 + 1?", "So 2.\n#### 2"), ("half?", "#### 0.5")]),
        ("math", [("1 + 1?", "\\boxed{2}"), ("root?", "\\boxed{\\sqrt{2}}")]),
    ],
)
def test_a_grader_without_the_data_says_what_the_task_says(
    kind: str, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    fields = ("problem", "solution") if kind == "math" else ("question", "answer")
    for split in ("train", "test"):
        lines = [
            json.dumps({fields[0]: f"{split}: {question} ({n})", fields[1]: text})
            for n in range(4)
            for question, text in rows
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    settings = TaskSettings.model_validate({"kind": kind, "path": str(tmp_path), "n_dev": 2})
    task = open_task(settings, 0)
    problems = [p for split in ("train", "dev", "test") for p in task.problems(split)]
    answers = [
        "#### 2",
        "#### 0.50",
        "#### \\sqrt{2}",
        "#### \\sqrt{8}/2",
        "so \\boxed{2}",
        "#### 2\n\\boxed{3}",
        "#### many",
        "no answer",
    ]
    expected = [task.grade(p, tuple(a.split("\n"))) for p in problems for a in answers]
    shutil.rmtree(tmp_path)
    grader = open_grader(settings, 0, problems)
    assert [grader.grade(p, tuple(a.split("\n"))) for p in problems for a in answers] == expected
    assert {g.verdict for g in expected} >= {"right", "wrong"}
    for opened in (task, grader):
        opened.close()  # type: ignore[attr-defined]


def test_a_stage_regraded_twice_is_never_taken_for_the_first_one(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regraded there and back: stages made in between must not count as made from either result."""
    use_grader(monkeypatch, "test")
    regrade(run, apply=True)
    once = {p.name: p.fingerprint for p in plan_stages(build_stages(run), run)}
    use_grader(monkeypatch)
    result = regrade(run, apply=True)
    twice = {p.name: p.fingerprint for p in plan_stages(build_stages(run), run)}
    assert result.is_applied
    assert once["test_samples"] != twice["test_samples"]
    assert states(run)["test_scores"] == "computed"


def test_the_command_shows_counts_and_examples_and_writes_only_when_asked(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_grader(monkeypatch, "test")
    before = files(run)

    def command(*options: str) -> str:
        done = CliRunner().invoke(app, ["regrade", str(run.run_dir), *options])
        assert (done.exit_code, done.exception) == (0, None), done.output
        return done.output

    looked = command("--examples", "1")
    assert files(run) == before
    rows = [
        [cell.strip() for cell in line.strip("│┃").split("│")]
        for line in looked.splitlines()
        if line.startswith("│")
    ]
    counts = {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows if len(row) == 5}
    drafts = {s.stage: s for s in regrade(run).stages}["test_samples"]
    n = drafts.transitions["wrong", "right"]
    assert counts["test_samples", "wrong → right"][1:] == (str(n), "32")
    assert counts["samples", ""] == ("", "", "42")
    (example,) = [
        row
        for row in rows
        if len(row) == 6 and row[0] == "test_samples" and row[4:] == ["wrong", "right"]
    ]
    assert example[1].startswith("test")
    assert example[2:4] == ["'10'", "'3 by another grader'"]
    assert looked.splitlines()[-1] == "nothing was written; add --apply to write it"
    assert re.search("^would become stale: .*test_labels", looked, re.MULTILINE)
    written = command("--apply")
    assert (
        written.splitlines()[-1] == f"continue with glore run {run.run_dir / 'config.yaml'} --redo"
    )
    assert re.search("^now stale: .*test_labels", written, re.MULTILINE)
    assert "regraded: " in (run.run_dir / "log/run.log").read_text()
    assert files(run) != before
    again = files(run)
    assert command("--apply").splitlines()[-1] == "nothing changes"
    assert files(run) == again
