"""Studies `prm` and `contrastive`: labels as people give them, files of labels, rerank tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import RunConfig
from glore.errors import ConfigError, DataError
from glore.evaluation import read_evaluation
from glore.pipeline import run_stages
from glore.records import Solution, StepLabels, read_records
from glore.stages import build_stages
from glore.studies import find_study, run_study
from glore.studies.measured import find, read_measured
from glore.studies.prm import all_labels, neutral_as, until_first_mistake
from glore.studies.study import configured, own_settings
from glore.training.examples import StepExample
from support.pretend_models import World, config_of, pretend


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunConfig, World]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = pretend(monkeypatch)
        config = config_of(tmp_path_factory.mktemp("runs"))
        run_stages(build_stages(config), config)
        for name in ("prm", "contrastive"):
            run_study(find_study(name), config)
        yield config, world


def labels(*flags: bool) -> StepLabels:
    first = flags.index(False) if False in flags else None
    return StepLabels("d", flags, (True,) * len(flags), first, "truth")


Flags = st.lists(st.booleans(), min_size=1, max_size=6)


@given(Flags)
def test_labels_end_with_the_first_mistake(flags: list[bool]) -> None:
    found = until_first_mistake(labels(*flags))
    n = flags.index(False) + 1 if False in flags else len(flags)
    assert found.kept == (*(True,) * n, *(False,) * (len(flags) - n))
    assert found.labels == tuple(flags)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_neutral_steps_are_those_on_which_truth_and_rollouts_disagree(
    pairs: list[tuple[bool, bool]],
) -> None:
    truth, rollouts = (labels(*(p[side] for p in pairs)) for side in (0, 1))
    bad = next((i for i, p in enumerate(pairs) if p == (False, False)), len(pairs))
    for neutral in (True, False, None):
        found = neutral_as(truth, rollouts, neutral)
        assert found.labels is not None
        assert found.kept is not None
        for i, (good, other) in enumerate(pairs):
            is_neutral = good != other
            assert found.kept[i] == (i <= bad and not (is_neutral and neutral is None))
            if found.kept[i]:
                assert found.labels[i] == (neutral if is_neutral else good)


def test_all_labels_judge_each_step_by_itself() -> None:
    draft = Solution("d", "p", ("a", "b", "c"), "1", "wrong", "s", None, 1, "eos", 0, 1.0)
    found = all_labels(draft, (True, False, True))
    assert (found.labels, found.first_error) == ((True, False, True), 1)
    assert found.kept == (True, True, True)


def test_each_prm_learns_from_its_labels(studied: tuple[RunConfig, World]) -> None:
    _, world = studied
    for e in world.trained["prm"]:
        assert isinstance(e, StepExample)
        wrong = [i for i, step in enumerate(e.steps) if "false" in step or step == "#### 3\n"]
        n = wrong[0] + 1 if wrong else len(e.steps)
        assert e.kept == tuple(i < n for i in range(len(e.steps)))
        assert e.labels == tuple(not wrong or i < wrong[0] for i in range(len(e.steps)))
    every = [e for e in world.trained["prm_all_labels"] if isinstance(e, StepExample)]
    assert every
    assert all(all(e.kept) for e in every)


def test_heads_learn_from_the_same_labels(studied: tuple[RunConfig, World]) -> None:
    config, world = studied
    stages = config.run_dir / "studies" / "prm" / "stages" / "prm_labels"
    parts = {
        name: read_records(sorted(stages.glob(f"prm_neutral_{name}-0*.parquet")), StepLabels)
        for name in ("good", "bad")
    }
    usable = [i for i, r in enumerate(parts["good"]) if r.kept is not None and any(r.kept)]
    for name, kind, n in (
        ("prm_neutral_good", "classes", 2),
        ("prm_classes_3", "classes", 3),
        ("prm_label_token", "label_token", 2),
        ("prm_label_token_3", "label_token", 3),
    ):
        assert (world.heads[name].kind, world.heads[name].n_classes) == (kind, n)
        examples = [e for e in world.trained[name] if isinstance(e, StepExample)]
        assert len(examples) == len(usable)
        for e, i in zip(examples, usable, strict=True):
            good, bad = parts["good"][i].labels, parts["bad"][i].labels
            assert good is not None
            assert bad is not None
            expected = [2 if n == 3 and a != b else a for a, b in zip(good, bad, strict=True)]
            assert list(e.labels) == expected
            assert e.kept == parts["good"][i].kept
    learned = [e for e in world.trained["prm_classes_3"] if isinstance(e, StepExample)]
    assert any(2 in e.labels for e in learned)
    found = read_measured(config.run_dir / "studies" / "prm", "prm_results")
    rows = {m.row[0] for m in found if m.table == "prm-rerank"}
    assert {
        f"PRM, {x}three classes{y}" for x in ("", "label token, ") for y in ("", ", neutral as bad")
    } <= rows


def test_the_main_figure_agrees_with_the_run(studied: tuple[RunConfig, World]) -> None:
    config, _ = studied
    curves = {
        (p.way, p.k): p.accuracy.value
        for p in read_evaluation(config.run_dir / "report" / "evaluation.json").curves
    }
    for study, stage, table in (
        ("prm", "prm_results", "prm-curves"),
        ("contrastive", "contrastive_results", "contrastive-curves"),
    ):
        found = read_measured(config.run_dir / "studies" / study, stage)
        points = {(m.row[0], m.x): m.value for m in found if m.table == table}
        for k in (1, 2, 4):
            assert points["ORM", k] == pytest.approx(curves["orm", k])
            if study == "prm":
                assert points["majority", k] == pytest.approx(curves["majority", k])
    found = read_measured(config.run_dir / "studies" / "prm", "prm_results")
    last = find(found, "prm-rerank", "ORM", "final")
    assert last.value == pytest.approx(curves["orm", 4])


def test_its_setting_labels_is_not_the_section_of_the_run() -> None:
    given = ["labels=prm800k.jsonl", "neutral=bad", "labels.rollouts=4", "engine.max_rows=8"]
    assert own_settings(find_study("prm"), given) == (given[:2], given[2:])


def test_a_prm_learns_from_a_file_of_people(
    studied: tuple[RunConfig, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = studied
    shutil.copytree(config.run_dir, tmp_path / "t")
    config = config.model_copy(update={"runs_dir": str(tmp_path)})
    world = pretend(monkeypatch)
    path = tmp_path / "prm800k.jsonl"
    ratings = (1, 0, -1)
    steps = [
        {"completions": [{"text": f"step {r}", "rating": r}], "chosen_completion": 0}
        for r in ratings
    ]
    row = {"question": {"problem": "Why?"}, "label": {"steps": steps}}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    study = configured(find_study("prm"), {}, [f"labels={path}", "neutral=bad", "truth=false"])
    run_study(study, config, redo=True)
    (example,) = world.trained["prm_file"]
    assert isinstance(example, StepExample)
    assert (example.labels, example.kept) == ((True, False, False), (True,) * 3)
    assert set(world.trained) == {"prm_file"}
    names = {m.row[0] for m in read_measured(tmp_path / "t" / "studies" / "prm", "prm_results")}
    assert "PRM, from the file" in names
    three = configured(
        find_study("prm"),
        {},
        [f"labels={path}", "neutral=bad", "truth=false", "head=label_token", "classes=3"],
    )
    run_study(three, config, redo=True)
    (example,) = world.trained["prm_file"]
    assert isinstance(example, StepExample)
    assert example.labels == (True, 2, False)
    head = world.heads["prm_file"]
    assert (head.kind, head.n_classes, head.neutral) == ("label_token", 3, "bad")
    path.write_text(json.dumps(row | {"x": 1}) + "\n", encoding="utf-8")
    changed = configured(find_study("prm"), {}, [f"labels={path}", "neutral=bad", "truth=false"])
    states = {p.name: p.state for p in run_study(changed, config, dry_run=True, redo=True)}
    assert states["prm_file"] == "computed", "another content is another training"


def test_settings_without_anything_to_learn_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        configured(find_study("prm"), {}, [f"labels={tmp_path / 'none.jsonl'}"])
    with pytest.raises(ConfigError, match="nothing to learn from"):
        configured(find_study("prm"), {}, ["truth=false"])
    with pytest.raises(ConfigError, match=r"^neutral is one of good, bad, missing, got"):
        configured(find_study("prm"), {}, ["neutral=maybe"])
    with pytest.raises(ConfigError, match=r"^neutral=missing leaves .* set classes=2, or neutral="):
        configured(find_study("prm"), {}, ["neutral=missing", "classes=3"])
    for of_file in ("neutral=bad", "head=label_token", "classes=3"):
        with pytest.raises(
            ConfigError, match=f"^{of_file.partition('=')[0]} is for .* labels=FILE"
        ):
            configured(find_study("prm"), {}, [of_file])
    with pytest.raises(ConfigError, match="label tokens"):
        configured(find_study("prm"), {}, ["label_tokens=+ -"])


def test_a_file_without_labels_is_refused_before_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, config = pretend(monkeypatch), config_of(tmp_path)
    run_stages(build_stages(config), config)
    world.trained.clear()
    row = {"question": "q", "steps": ["1 + 1 = 2", "#### 2"]}
    path = tmp_path / "people.jsonl"
    for labels, settings, said in (
        ([None, None], [], "no solution has labels for the prm"),
        ([True, "?"], [], "labels"),
        ([True, False], ["classes=3", "head=classes"], "no step is neutral"),
    ):
        path.write_text(json.dumps({**row, "labels": labels}) + "\n")
        study = configured(find_study("prm"), {}, [f"labels={path}", *settings])
        for dry_run in (True, False):
            with pytest.raises(DataError, match=said):
                run_study(study, config, dry_run=dry_run)
    assert not world.trained
