"""Settings: recipes load, overrides apply, and every mistake is one line that names rule, value and mend."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from glore.config import RunConfig, load_config
from glore.errors import ConfigError

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def recipe(tmp_path: Path, text: str = "name: x\n") -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    config = load_config(path)
    assert config.name


def test_the_resolved_copy_loads_to_the_same_settings(tmp_path: Path) -> None:
    config = load_config(recipe(tmp_path), ["labels.rollouts=3", "student.sft.lora={r: 4}"])
    copy = recipe(tmp_path, yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(copy) == config


def test_overrides_are_yaml_values_at_dotted_paths(tmp_path: Path) -> None:
    config = load_config(recipe(tmp_path), ["labels.rollouts=3", "labels.balance=false", "engine.dtype=bfloat16", "task.path=a=b"])
    assert (config.labels.rollouts, config.labels.balance, config.engine.dtype, config.task.path) == (3, False, "bfloat16", "a=b")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lables.rollouts=3"], "unknown key 'lables'; did you mean labels?"),
        (["labels.rolouts=3"], "did you mean rollouts?"),
        (["labels.zzz=3"], "known keys: "),
        (["labels.rollouts=eight"], "labels.rollouts: input should be a valid integer"),
        (["labels.rollouts=0"], "greater than or equal to 1, got 0"),
        (["evaluation.threshold=.nan"], "evaluation.threshold"),
        (["labels.propagate=false"], "needs full_counts: true"),
        (["task.kind=gsm8k"], "set base.model"),
        (["reward.draft_samples=5", "reward.samples=4"], "can't exceed reward.samples"),
        (["labels.rollouts"], "key.path=value"),
        (["=3"], "key.path=value"),
        (["name.x=3"], "single value"),
        (["labels.rollouts=[1"], "not valid YAML"),
        (["name=../evil"], "name"),
        (["name=" + "x" * 1000], "…"),
        (["task.stories.people=[5, 3]"], "smallest <= largest"),
    ],
)
def test_a_wrong_override_is_one_line_with_the_mend(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(tmp_path), overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", ["", "[]", "3", "a: [", "name: x\nname2: y", "!!python/object/apply:os.system ['true']"])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        load_config(recipe(tmp_path, text))


def test_a_missing_or_binary_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't read the recipe"):
        load_config(tmp_path / "no.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't read the recipe"):
        load_config(tmp_path / "b.yaml")


def test_settings_are_inert_and_frozen() -> None:
    config = RunConfig(name="x")
    assert config.run_dir == Path("runs/x")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]  # the point of the test


def test_an_override_changes_one_of_two_places_that_share_a_yaml_anchor(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\nreward:\n  orm: &verify {epochs: 1}\n  sorm: *verify\n", encoding="utf-8")
    reward = load_config(recipe, ["reward.sorm.epochs=4"]).reward
    assert (reward.orm.epochs, reward.sorm.epochs) == (1, 4)
