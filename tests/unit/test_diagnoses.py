"""Warnings of stages that failed although they finished: when they come, and when they don't."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from glore.config import RunConfig
from glore.errors import RunError
from glore.pipeline import run_stages
from glore.pipeline.marks import read_done
from glore.records import PrefixTrials, Solution
from glore.stages import build_stages
from glore.stages.diagnoses import (
    expert_iteration_gained_nothing,
    judges_every_draft_alike,
    judges_every_step_alike,
    labels_are_of_one_kind,
    no_rollout_is_right,
    refiner_copies,
    student_fails,
)
from glore.where import LabelCounts
from support.fakes import solution
from support.pretend_models import SKILL, config_of, pretend


def drafts(n_right: int, n_wrong: int) -> list[Solution]:
    return [
        solution("a\n#### 1", "right" if i < n_right else "wrong", f"d{i}")
        for i in range(n_right + n_wrong)
    ]


@pytest.mark.parametrize(
    ("n_right", "n_wrong", "expected"),
    [(1, 39, "answers 1 of 40 dev"), (0, 30, "answers 0 of 30 dev"), (3, 37, None), (0, 10, None)],
)
def test_a_student_that_fails(n_right: int, n_wrong: int, expected: str | None) -> None:
    found = student_fails(drafts(n_right, n_wrong), "dev", "student.sft.epochs")
    assert (found is None) == (expected is None)
    assert (expected or "") in (found or "")


def test_a_student_that_never_ends() -> None:
    cut = [dataclasses.replace(d, stop="length") for d in drafts(20, 20)]
    assert "40 of 40 greedy solutions of test questions run out" in (
        student_fails(cut, "test", "student.sft.epochs") or ""
    )
    assert student_fails([*cut[:10], *drafts(20, 10)], "test", "a.b") is None


@pytest.mark.parametrize(
    ("accuracies", "best", "warns"),
    [
        ([0.5, 0.5], 0, True),
        ([0.5, 0.6], 1, False),
        ([0.5], 0, False),
        ([0.5, 0.4, 0.5], 0, True),
        ([0.5, 0.4], 1, True),
        ([0.5, 0.4, 0.6], 2, False),
    ],
)
def test_expert_iteration_without_gain(accuracies: list[float], best: int, warns: bool) -> None:
    """Round 0 is the SFT model, or the prompted base, which can't become the student."""
    found = expert_iteration_gained_nothing(
        accuracies, best, "student.ei_train.epochs", "task.n_dev"
    )
    assert (found is not None) == warns
    assert ("no better than the prompted base" in (found or "")) == (warns and best > 0)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.9] * 40, [True] * 20 + [False] * 20, "100% of 40 training steps good, although 20"),
        ([0.1] * 40, [True] * 10 + [False] * 30, "100% of 40 training steps bad, although 10"),
        ([0.9] * 38 + [0.1] * 2, [True] * 20 + [False] * 20, None),
        ([0.9] * 40, [True] * 39 + [False], None),
        ([0.9] * 10, [True] * 5 + [False] * 5, None),
        ([0.1] * 400, [True] * 16 + [False] * 384, "bad, although 16 of them have the label good"),
        ([0.9] * 4 + [0.1] * 396, [True] * 16 + [False] * 384, None),
    ],
)
def test_a_reward_model_that_gives_every_step_one_class(
    scores: list[float], labels: list[bool], expected: str | None
) -> None:
    found = judges_every_step_alike(
        "sorm", "reward.sorm.epochs", [[p] for p in scores], [[x] for x in labels]
    )
    assert (found is None) == (expected is None)
    assert (expected or "") in (found or "")


@pytest.mark.parametrize(
    ("called_wrong", "right", "expected"),
    [(40, 10, "calls 40 of 40 drafts wrong, although 10 are right"),
     (0, 10, "calls 40 of 40 drafts right, although 30 are wrong"), (20, 10, None), (40, 0, None)],
)  # fmt: skip
def test_an_orm_that_calls_every_draft_wrong(
    called_wrong: int, right: int, expected: str | None
) -> None:
    verdicts = [i < called_wrong for i in range(40)]
    found = judges_every_draft_alike("orm", verdicts, drafts(right, 40 - right), None)
    assert (found is None) == (expected is None)
    assert (expected or "") in (found or "")


def trials(verdicts: Sequence[str], draft: str = "d0") -> list[PrefixTrials]:
    n = len(verdicts)
    return [PrefixTrials(draft, 1, ("x",) * n, tuple(verdicts), (True,) * n, n, True)]


def test_rollouts_that_are_never_right() -> None:
    wrong = drafts(0, 1)
    assert "none of 24 rollouts" in (no_rollout_is_right(trials(["wrong"] * 24), wrong) or "")
    assert no_rollout_is_right(trials(["wrong"] * 23 + ["right"]), wrong) is None
    assert no_rollout_is_right(trials(["wrong"] * 4), wrong) is None
    hardly = no_rollout_is_right(trials(["wrong"] * 999 + ["right"]), wrong)
    assert "1 of 1000 rollouts from prefixes of wrong drafts is right" in (hardly or "")
    assert "nearly every step" in (hardly or "")


def test_full_counts_also_draw_from_right_drafts_which_say_nothing_about_wrong_ones() -> None:
    right, wrong = drafts(1, 1)
    drawn = [*trials(["right"] * 30, right.id), *trials(["wrong"] * 30, wrong.id)]
    assert "none of 30 rollouts" in (no_rollout_is_right(drawn, [right, wrong]) or "")
    assert no_rollout_is_right(trials(["wrong"] * 30, right.id), [right, wrong]) is None


def counts(positive: int, negative: int) -> LabelCounts:
    fields = [f.name for f in dataclasses.fields(LabelCounts)]
    given = {"n_drafts": 50, "n_kept_positive": positive, "n_kept_negative": negative}
    return LabelCounts(**{name: given.get(name, 0) for name in fields})


def test_labels_of_one_kind() -> None:
    assert "all 70 step labels are good" in (labels_are_of_one_kind(counts(70, 0)) or "")
    assert "all 9 step labels are bad" in (labels_are_of_one_kind(counts(0, 9)) or "")
    assert "no step of 50 drafts" in (labels_are_of_one_kind(counts(0, 0)) or "")
    assert labels_are_of_one_kind(counts(5, 5)) is None


def test_every_setting_that_a_warning_names_is_one() -> None:
    d, wrong = drafts(10, 30), drafts(0, 30)
    cut = [dataclasses.replace(s, stop="length") for s in d]
    copies = [dataclasses.replace(w, draft_id=w.id) for w in wrong]
    steps, labels = [[0.9]] * 40, [[True]] * 20 + [[False]] * 20
    said = [
        student_fails(wrong, "dev", "student.sft.epochs"),
        student_fails(cut, "dev", "student.ei_train.max_steps"),
        expert_iteration_gained_nothing(
            [0.5, 0.5], 0, "student.ei_train.epochs", "task.stories.n_dev"
        ),
        judges_every_step_alike("sorm", "reward.sorm.max_steps", steps, labels),
        judges_every_draft_alike("orm", [True] * 40, d, None),
        judges_every_draft_alike("orm", [True] * 40, d, "reward.orm.epochs"),
        no_rollout_is_right(trials(["wrong"] * 24), drafts(0, 1)),
        labels_are_of_one_kind(counts(70, 0)),
        labels_are_of_one_kind(counts(0, 0)),
        refiner_copies(copies, {w.id: w for w in wrong}, "refiner.train.epochs"),
    ]
    for text in said:
        assert text is not None
        for path in re.findall(r"\b[a-z]+(?:\.[a-z_]+)+", text):
            section: object = RunConfig(name="t")
            for name in path.split("."):
                section = getattr(section, name)
    in_file = labels_are_of_one_kind(counts(70, 0), in_run=False) or ""
    assert "reward." not in in_file, "glore label has no run"


def test_a_refiner_that_copies() -> None:
    found = {d.id: d for d in drafts(0, 30)}
    copies = [dataclasses.replace(d, id=f"{i}/global", draft_id=i) for i, d in found.items()]
    said = refiner_copies(copies, found, "refiner.train.max_steps") or ""
    assert "30 of 30 refinements of wrong drafts" in said
    assert said.endswith("(refiner.train.learning_rate, refiner.train.max_steps)")
    changed = [dataclasses.replace(c, steps=("b", "#### 2")) for c in copies[:16]]
    assert refiner_copies([*changed, *copies[16:]], found, "a.b") is None


def test_a_refiner_may_leave_right_drafts_as_they_are() -> None:
    found = {d.id: d for d in drafts(60, 30)}
    refined = [
        dataclasses.replace(
            d,
            id=f"{i}/global",
            draft_id=i,
            steps=d.steps if d.correct == "right" else ("b", "#### 2"),
        )
        for i, d in found.items()
    ]
    assert refiner_copies(refined, found, "a.b") is None


def test_warnings_are_kept_and_a_healthy_run_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)

    def warnings(config: RunConfig) -> dict[str, tuple[str, ...]]:
        run_stages(build_stages(config), config)
        marks = [read_done(p.parent) for p in config.run_dir.glob("stages/*/done.json")]
        return {m.stage: m.warnings for m in marks if m is not None and m.warnings}

    monkeypatch.setattr("glore.stages.diagnoses.MIN_N", 4)
    monkeypatch.setitem(SKILL, "ei1", 0.0)
    weak = config_of(
        tmp_path / "weak", ei={"samples": 6, "max_rounds": 1}, ei_train={"max_steps": 9}
    )
    found = warnings(weak)
    assert "answers 0 of" in found["ei1_train"][0]
    assert "expert iteration gained nothing on dev" in found["student"][0]
    for stage in ("ei1_train", "student"):  # epochs change nothing where max_steps is set
        assert "student.ei_train.max_steps" in found[stage][0]
        assert "epochs" not in found[stage][0]
    assert "(task.stories.n_dev)" in found["student"][0]


@pytest.mark.parametrize(("skill", "said"), [(0.0, "never right; use"), (1.0, "always right;")])
def test_an_orm_without_both_kinds_of_steps_ends_the_run_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skill: float, said: str
) -> None:
    pretend(monkeypatch)
    for model in list(SKILL):
        monkeypatch.setitem(SKILL, model, skill)
    config = config_of(tmp_path)
    with pytest.raises(RunError, match=f"the orm has .* the student is {said}"):
        run_stages(build_stages(config), config)
