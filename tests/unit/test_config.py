"""Settings: recipes load, overrides apply, and every mistake is one line that names rule, value and
mend.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from glore.config import RunConfig, load_config, resolved_recipe
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
    config = load_config(
        recipe(tmp_path),
        ["labels.rollouts=3", "labels.balance=false", "engine.dtype=bfloat16", "base.model=a=b"],
    )
    assert (
        config.labels.rollouts,
        config.labels.balance,
        config.engine.dtype,
        config.base.model,
    ) == (3, False, "bfloat16", "a=b")


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
        (
            ["engine.quantization=int8", "engine.dtype=bfloat16"],
            "quantization int8 is for float32 models on a CPU, got dtype bfloat16",
        ),
        (
            ["engine.quantization=int8", "engine.device=mps"],
            "quantization int8 is for float32 models on a CPU, got dtype float32, device mps",
        ),
        (["base.dtype=float16"], "base.dtype: float16 can't be trained"),
        (["engine.dtype=float8"], "engine.dtype: input should be 'float32', 'bfloat16' or 'float"),
        (
            ["engine.quantization=int4"],
            "engine.quantization: input should be 'none', 'int16' or 'int8', got",
        ),
        (
            ["engine.kind=http", "engine.url=http://x", "engine.quantization=int8"],
            "quantization is for engines of kind torch",
        ),
        (["reward.draft_samples=5", "reward.samples=4"], "can't exceed reward.samples"),
        (["labels.rollouts"], "key.path=value"),
        (["=3"], "key.path=value"),
        (["name.x=3"], "single value"),
        (["labels.rollouts=[1"], "not valid YAML"),
        (["name=../evil"], "name: a name has 1 to 64 letters, digits, '.', '_' or '-'"),
        (['name="a\\n"'], "name: a text can't have control characters"),
        (
            ['runs_dir="a\\0b"'],
            "runs_dir: a text can't have control characters (NUL, newline, escape, …), got "
            "'a\\x00b'; remove them",
        ),
        (
            ["engine.kind=http", "engine.url=http://x", 'engine.models={student: "a\\nb"}'],
            "engine.models: a text can't have control",
        ),
        (
            ['student.sft.lora={target_modules: ["q\\eproj"]}'],
            "student.sft.lora.target_modules: a text can't have control",
        ),
        (
            ["student.sft.lora={target_modules: []}"],
            "student.sft.lora.target_modules: at least one layer is needed, got []",
        ),
        (
            ["reward.temperature=0.0001"],
            "reward.temperature: input should be greater than or equal to 0.001, got 0.0001",
        ),
        (
            ["student.ei.temperature=1001"],
            "student.ei.temperature: input should be less than or equal to 1000, got 1001",
        ),
        (
            ["student.bootstrap=prompt", "student.ei.max_rounds=0"],
            "got student.ei.max_rounds 0; set it to 1 or more",
        ),
        (
            ["task.stories.worked_share=0"],
            "got task.stories.worked_share 0; raise it, or set student.bootstrap to prompt",
        ),
        (["name=" + "x" * 1000], "…"),
        (["task.stories.people=[5, 3]"], "smallest <= largest"),
        (["labels.rollouts=true"], "labels.rollouts: input should be a valid integer, got True"),
        (["labels.rollouts='4'"], "labels.rollouts: input should be a valid integer, got '4'"),
        (["labels.rollouts=4.0"], "labels.rollouts: input should be a valid integer, got 4.0"),
        (["labels.balance=1"], "labels.balance: input should be a valid boolean, got 1"),
        (["labels.balance='no'"], "labels.balance: input should be a valid boolean, got 'no'"),
        (
            ["labels.temperature=true"],
            "labels.temperature: input should be a valid number, got True",
        ),
        (
            ["labels.temperature='0.5'"],
            "labels.temperature: input should be a valid number, got '0.5'",
        ),
        (["labels.temperature=1e999"], "labels.temperature: input should be a finite number"),
        (
            ["task.stories.people=[2, true]"],
            "task.stories.people.1: input should be a valid integer, got True",
        ),
        (
            ["task.path=/nope"],
            "path is for tasks of kind gsm8k or svamp or math or jsonl, got kind stories",
        ),
        (["task.hub=x/y"], "remove it (on the command line task.hub=null) or change kind"),
        (["task.n_dev=7"], "task.n_dev=500"),
        (["task.scratch_path=x.csv"], "scratch_path is for tasks of kind svamp"),
        (
            ["task.kind=math", "task.keep_annotations=false", "base.model=m"],
            "task.keep_annotations=true",
        ),
        (
            ["task.kind=svamp", "task.merge_answer_line=true", "base.model=m"],
            "merge_answer_line is for tasks of kind stories or",
        ),
        (["task.kind=gsm8k", "task.stories.n_train=9", "base.model=m"], "task.stories={}"),
        (
            ["task.kind=gsm8k", "task.path=a", "task.hub=b", "base.model=m"],
            "path and hub are both set; keep the one",
        ),
        (["task.kind=svamp", "task.path=a", "task.hub=b", "base.model=m"], "task.hub=null"),
        (["base.revision=v1"], "base: revision 'v1' needs a model on the Hub"),
        (
            ["base.model=./models/x", "base.revision=v1"],
            "is the local './models/x', whose content is fingerprinted anyway; drop the revision",
        ),
        (["base.model=/", "base.revision=v1"], "base.revision=null"),
        (
            ["base.model=a/b@v1"],
            "base: model 'a/b@v1': a Hub name has no '@'; give what follows it as base.revision",
        ),
        (["base.model=a/b", "base.revision=-x"], "base.revision: "),
        (
            ["base.model=a/b", "base.revision=1234567"],
            "base.revision: input should be a valid string, got 1234567",
        ),
        (
            ["base.scratch.train.lora={r: 8}"],
            "base: scratch.train.lora: a model trained from nothing has no weights to adapt",
        ),
        (
            ["student.sft.report_to=[nosuch]"],
            "student.sft.report_to: no tracker is called 'nosuch'; known: azure_ml, ",
        ),
        (["student.sft.report_to=[tensorboard, all]"], "no tracker is called 'all'"),
        (["labels=&a {rollouts: *a}"], "a value that contains itself"),
        (["labels={balance: true, balance: false}"], "the key 'balance' is already on line 1"),
    ],
)
def test_a_wrong_override_is_one_line_with_the_mend(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(tmp_path), overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("", ["labels.rollouts=0"], "override 'labels.rollouts=0': labels.rollouts: "),
        ("", ["labels={rollouts: 0}"], "override 'labels={rollouts: 0}': labels.rollouts: "),
        ("labels: {rollouts: 0}", ["labels.balance=false"], "recipe.yaml: labels.rollouts: "),
        (
            "labels: {rollouts: 0}",
            ["labels.rollouts=-1"],
            "override 'labels.rollouts=-1': labels.rollouts: ",
        ),
        (
            "",
            ["seed=1", "lables.rollouts=3"],
            "recipe.yaml with 'lables.rollouts=3': unknown key 'lables'",
        ),
        (
            "labels: {full_counts: false}",
            ["labels.propagate=false"],
            "recipe.yaml with 'labels.propagate=false': labels: ",
        ),
        (
            "labels: {rollouts: 0}",
            ["seed=-1"],
            "override 'seed=-1': seed: input should be greater than or equal to 0, got -1; /",
        ),
    ],
)
def test_a_mistake_is_looked_for_where_it_was_made(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(tmp_path, f"name: x\n{text}\n"), overrides)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "a: [", "name: x\nname2: y", "!!python/object/apply:os.system ['true']"]
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        load_config(recipe(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: " + "[" * 3000, "nested more than 16 deep"),
        ("x: " + "[" * 20 + "]" * 20, "nested more than 16 deep"),
        ("a: &a [*a]", "a value that contains itself"),
        ("a: &a {b: *a}", "a value that contains itself"),
        (
            "name: a\nseed: 1\nname: b",
            "line 3: not valid YAML: the key 'name' is already on line 1; keep one of them",
        ),
        (
            "name: a\nlabels: {}\n'labels': {}",
            "line 3: not valid YAML: the key 'labels' is already on line 2",
        ),
        (
            "name: a\nseed: 2026-99-99",
            "recipe.yaml, line 2: 2026-99-99 would be a date; write '2026-99-99' in quotes",
        ),
        ("name: a\n[b]: 1", "line 2: a key is the name of a setting, got a list or mapping"),
        ("name: \0", "recipe.yaml: not valid YAML: "),
    ],
)
def test_hostile_or_ambiguous_yaml_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_merged_keys_may_be_given_anew(tmp_path: Path) -> None:
    merged = (
        "name: x\nreward:\n  orm: &a {epochs: 1, batch_size: 8}\n  sorm: &b {<<: *a, epochs: 2}\n"
    )
    config = load_config(recipe(tmp_path, merged + "refiner:\n  train: {<<: *b, epochs: 3}\n"))
    assert [
        (t.epochs, t.batch_size)
        for t in (config.reward.orm, config.reward.sorm, config.refiner.train)
    ] == [(1, 8), (2, 8), (3, 8)]


def test_numbers_are_taken_as_yaml_writes_them(tmp_path: Path) -> None:
    config = load_config(
        recipe(tmp_path),
        ["student.sft.learning_rate=1e-4", "student.sft.epochs=3", "base.scratch.n_tokens=1000"],
    )
    assert (
        config.student.sft.learning_rate,
        config.student.sft.epochs,
        config.base.scratch.n_tokens,
    ) == (1e-4, 3.0, 1000)
    epochs = [
        load_config(recipe(tmp_path), [f"student.sft.epochs={text}"]).student.sft.epochs
        for text in ("1.5e1", "2E+0", ".5e1", "2.")
    ]
    assert epochs == [15, 2, 5, 2]
    assert load_config(recipe(tmp_path), ["name=1e4"]).name == "1e4", "a text stays a text"


@pytest.mark.parametrize("trackers", [["tensorboard", "wandb"], ["all"], ["none"], []])
def test_trackers_of_the_trainer_are_accepted(tmp_path: Path, trackers: list[str]) -> None:
    assert load_config(
        recipe(tmp_path), [f"student.sft.report_to={trackers}"]
    ).student.sft.report_to == tuple(trackers)


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
    recipe.write_text(
        "name: x\nreward:\n  orm: &verify {epochs: 1}\n  sorm: *verify\n", encoding="utf-8"
    )
    reward = load_config(recipe, ["reward.sorm.epochs=4"]).reward
    assert (reward.orm.epochs, reward.sorm.epochs) == (1, 4)


def test_a_system_prompt_may_have_lines_and_no_other_control_characters(tmp_path: Path) -> None:
    prompt = {"style": "chat", "system": "Two\nlines."}
    config = RunConfig.model_validate({"name": "x", "prompt": prompt})
    (tmp_path / "config.yaml").write_text(resolved_recipe(config))
    assert load_config(tmp_path / "config.yaml").prompt == config.prompt
    for text in ("a\tb", "a\x1b[0m", "a\x00"):
        with pytest.raises(ValidationError, match="control characters"):
            RunConfig.model_validate({"name": "x", "prompt": {**prompt, "system": text}})
    with pytest.raises(ValidationError, match="control characters"):
        RunConfig.model_validate({"name": "x", "task": {"kind": "jsonl", "path": "a\nb"}})


def test_a_setting_of_another_style_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"system 'Be brief' is for prompt.style chat"):
        RunConfig.model_validate({"name": "x", "prompt": {"system": "Be brief"}})
    with pytest.raises(ValidationError, match=r"shots 2 is for student.bootstrap prompt, got sft"):
        RunConfig.model_validate({"name": "x", "student": {"shots": 2}})
