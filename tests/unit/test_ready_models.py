"""Reward models that a recipe names (`reward.ready`): taken as they are, in place of a training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glore.config import EngineSettings, RunConfig, load_config
from glore.errors import ConfigError, GloreError, ModelError, RunError
from glore.pipeline import plan_stages, run_stages
from glore.pipeline.marks import read_done
from glore.prompts import PLAIN
from glore.reward_models.layouts import NOTE, note_of, noted_head
from glore.reward_models.open import open_model_of_run, open_reward_model
from glore.stages import build_stages
from glore.stages.ready import ready_stages
from glore.step_head import StepHead
from glore.step_layouts.apart import GloreLayout
from support.pretend_models import Scorer, config_of, pretend
from support.reward_checkpoints import save_checkpoint
from support.tiny_training import save_base

ITEMS = [("Ana has 12 pens.", ("Ana : 12 + 7 = 19", "#### 19")), ("How many?", ("#### 3",))]
CPU = EngineSettings(device="cpu")


def with_ready(tmp_path: Path, **ready: str) -> RunConfig:
    config = config_of(tmp_path)
    data = {**config.reward.model_dump(), "ready": ready}
    engine = {"device": "cpu"}
    return RunConfig.model_validate(
        {**config.model_dump(), "reward": data, "engine": engine, "task": {"kind": "stories"}}
    )


@pytest.mark.parametrize("layout", ["qwen", "skywork", "math_shepherd", "rlhflow", "trl"])
def test_a_foreign_model_scores_in_the_run_as_it_does_alone(layout: str, tmp_path: Path) -> None:
    source = save_checkpoint(layout, tmp_path / "source")
    named = {"sorm_layout": layout} if layout in ("math_shepherd", "rlhflow") else {}
    config = with_ready(tmp_path, sorm=str(source), **named)
    stages = tuple(ready_stages(config).values())
    run_stages(stages, config)
    made = config.run_dir / "models" / "sorm"
    assert not list(made.glob("*.py"))
    assert "## Metrics" in (made / "README.md").read_text()
    with (
        open_reward_model(source, layout, CPU) as alone,
        open_model_of_run(made, CPU, PLAIN) as inside,
    ):
        assert inside.score(ITEMS) == alone.score(ITEMS)
    done = read_done(config.run_dir / "stages" / "sorm")
    assert done is not None
    assert done.settings["reward.ready.sorm"] == str(source)
    assert [plan.state for plan in plan_stages(stages, config)] == ["reused"]
    # Other content under the same name is another model.
    text = json.loads((source / "config.json").read_text()) | {"rms_norm_eps": 0.5}
    (source / "config.json").write_text(json.dumps(text))
    [plan] = plan_stages(stages, config)
    assert (plan.state, plan.replaces) == ("computed", True)
    with pytest.raises(RunError, match="redo"):
        run_stages(stages, config)
    shutil.rmtree(source)  # the run has its own copy
    assert [plan.state for plan in plan_stages(stages, config)] == ["reused"]


def test_a_model_of_ours_is_prompted_as_it_was_trained(tmp_path: Path) -> None:
    from glore.config import PromptSettings
    from glore.models import load_tokenizer, new_step_model, save_model

    base = save_base(tmp_path / "base")
    prompt = PromptSettings(steps="paragraph")
    note = note_of(GloreLayout(PLAIN), prompt)
    source = tmp_path / "rm"
    save_model(new_step_model(base, "float32"), load_tokenizer(base), source, "card", {NOTE: note})
    config = with_ready(tmp_path, orm=str(source))
    run_stages(tuple(ready_stages(config).values()), config)
    made = config.run_dir / "models" / "orm"
    assert json.loads((made / NOTE).read_text())["prompt"]["steps"] == "paragraph"
    with (
        open_reward_model(source, None, CPU) as alone,
        open_model_of_run(made, CPU, PLAIN) as inside,
    ):
        assert inside.score(ITEMS) == alone.score(ITEMS)
        assert inside.layout.prompt.steps != PLAIN.steps


@pytest.mark.parametrize("tokens", [("+", "-"), ("+", "-", ":")])
def test_a_model_that_says_label_tokens_says_the_same_in_the_run(
    tokens: tuple[str, ...], tmp_path: Path
) -> None:
    source = save_base(tmp_path / "lm")
    head = StepHead("label_token", len(tokens), tokens, "bad" if len(tokens) == 3 else "good")
    (source / NOTE).write_bytes(note_of(GloreLayout(PLAIN), None, head))
    config = with_ready(tmp_path, orm=str(source))
    run_stages(tuple(ready_stages(config).values()), config)
    made = config.run_dir / "models" / "orm"
    assert noted_head(made, "") == head
    with (
        open_reward_model(source, None, CPU) as alone,
        open_model_of_run(made, CPU, PLAIN) as inside,
        open_model_of_run(made, CPU, PLAIN, with_question=True) as questioned,
    ):
        scores = alone.score(ITEMS)
        assert inside.score(ITEMS) == scores
        for longer, steps in zip(questioned.score(ITEMS), scores, strict=True):
            assert longer[1:] == pytest.approx(steps, abs=1e-5)
            assert len(longer) == len(steps) + 1


def test_a_run_trains_only_what_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = pretend(monkeypatch)
    monkeypatch.setattr("glore.stages.bases.model_contents", lambda model: {})
    for where in ("glore.reward_models.open", "glore.stages.ready"):
        monkeypatch.setattr(f"{where}.open_reward_model", lambda path, *_: Marked(path))
    source = save_checkpoint("trl", tmp_path / "source")
    config = with_ready(tmp_path, sorm=str(source), orm=str(source), orm_layout="trl")
    names = [stage.name for stage in build_stages(config)]
    assert names.index("orm") == names.index("base") + 1 == names.index("sorm") - 1
    assert sorted(names) == sorted(s.name for s in build_stages(config_of(tmp_path)))
    run_stages(build_stages(config), config)
    assert {"balanced_orm", "refiner"} <= world.trained.keys()
    assert not {"orm", "sorm"} & world.trained.keys()
    assert (config.run_dir / "report" / "evaluation.json").is_file()
    assert {p.state for p in plan_stages(build_stages(config), config)} == {"reused"}


class Marked(Scorer):
    """Scores as the pretended models do."""

    def __init__(self, path: Path) -> None:
        self._good, self._first = 0.9, ()


@pytest.mark.parametrize(
    ("files", "error", "rule"),
    [
        ({}, ModelError, "no model folder"),
        ({"config.json": "{}", "pytorch_model.bin": "x"}, ModelError, "pickled"),
        ({"config.json": "{"}, ModelError, "config.json"),
    ],
    ids=["missing", "pickles", "no JSON"],
)
def test_what_is_no_reward_model_is_refused_before_anything_is_sampled(
    files: dict[str, str], error: type[GloreError], rule: str, tmp_path: Path, monkeypatch
) -> None:
    world = pretend(monkeypatch)
    source = tmp_path / "source"
    for name, text in files.items():
        source.mkdir(exist_ok=True)
        (source / name).write_text(text)
    config = with_ready(tmp_path, sorm=str(source))
    with pytest.raises(error, match=rule) as caught:
        run_stages(build_stages(config), config)
    assert "\n" not in str(caught.value)
    assert not world.trained
    assert not world.engines


def test_a_language_model_needs_its_layout_named(tmp_path: Path) -> None:
    source = save_base(tmp_path / "lm")
    config = with_ready(tmp_path, orm=str(source))
    with pytest.raises(ModelError, match="name it"):
        run_stages(tuple(ready_stages(config).values()), config)
    config = with_ready(tmp_path, orm=str(source), orm_layout="nonsense")
    with pytest.raises(ConfigError, match="must be one of glore"):
        run_stages(tuple(ready_stages(config).values()), config)
    # It has no chat template: the trial finds that out, and names the setting.
    config = with_ready(tmp_path, orm=str(source), orm_layout="rlhflow")
    with pytest.raises(ModelError, match=r"^reward\.ready\.orm \(.*lm\): "):
        run_stages(tuple(ready_stages(config).values()), config)


def test_settings(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\n")
    for override, rule in (
        ("reward.ready.orm_layout=trl", "reward.ready: orm_layout 'trl' is for a ready model"),
        ("reward.ready.sorm=rm.gguf", "GGUF file"),
        ("reward.ready.rom=x", "did you mean orm"),
    ):
        with pytest.raises(ConfigError, match=rule):
            load_config(recipe, [override])
