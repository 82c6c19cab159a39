"""Recipes from elsewhere: YAML that means something else than it looks, grows without bound, runs
commands, or gives keys away.
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from glore import Refiner
from glore.config import (
    EngineSettings,
    HttpEngineSettings,
    RayEngineSettings,
    RunConfig,
    load_config,
    load_run,
    resolved_recipe,
)
from glore.config.yaml_reader import MAX_BYTES, parse_yaml
from glore.errors import ConfigError, GloreError

ROOT = Path(__file__).parents[2]


def recipe(tmp_path: Path, text: str = "") -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: x\n{text}\n")
    return path


def refused(path: Path, overrides: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides or [])
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


SURPRISES = [
    ("010", "010 would be the number 8; write that, or '010' in quotes for a text"),
    ("-010", "-010 would be the number -8; write that"),
    ("1:30", "1:30 would be the number 90; write that, or '1:30' in quotes for a text"),
    ("1:30:00", "the number 5400"),
    ("1:30.5", "the number 90.5"),
    ("1_000", "1_000 would be the number 1000; write that"),
    ("1_0.5", "the number 10.5"),
    ("0x1F", "the number 31"),
    ("0b101", "the number 5"),
    ("0_", "the number 0"),
    *(
        (word, f"{word} would be {value}; write true or false, or '{word}' in quotes for a text")
        for word, value in [("yes", "true"), ("No", "false")]
    ),
    *((word, "write true or false") for word in ("on", "off", "ON", "Yes", "NO", "Off")),
    *(
        (word, f"{word} is no number that a setting takes; write a finite one")
        for word in (".inf", "-.Inf", ".NaN", "+.INF")
    ),
    *(
        (word, f"{word} would be a date; write '{word}' in quotes")
        for word in ("2026-01-02", "2026-13-45", "2026-01-02 03:04:05")
    ),
    (
        "~",
        "~ means null in YAML, not a folder; write null for nothing, or ~/… for a path "
        "in a home folder",
    ),
    ("=", "= would be no text; write '=' in quotes"),
    (
        "!!int '3'",
        "type tags are not supported, got 'tag:yaml.org,2002:int'; write the value alone",
    ),
    ("!!python/name:os.system ''", "type tags are not supported"),
    ("!!set {a, b}", "type tags are not supported"),
    ("!mine 3", "type tags are not supported, got '!mine'"),
]


@pytest.mark.parametrize(("text", "words"), SURPRISES)
def test_what_yaml_reads_as_something_else_is_an_error_with_the_line(
    tmp_path: Path, text: str, words: str
) -> None:
    for line, content in (
        (3, f"seed: 1\nlaunch: {text}"),
        (4, f"labels:\n  rollouts: 3\n  temperature: {text}"),
        (2, f"task: {{path: {text}}}"),
    ):
        message = refused(recipe(tmp_path, content))
        assert f"recipe.yaml, line {line}: " in message
        assert words in message
    message = refused(recipe(tmp_path), [f"seed={text}"])
    assert "override 'seed=" in message.replace('"', "'")
    assert words in message
    assert ", line" not in message


@pytest.mark.parametrize(
    "key", ["010", "yes", "null", "~", "1", "2026-01-01", "[a]", "{a: b}", "1.5"]
)
def test_keys_are_names(tmp_path: Path, key: str) -> None:
    assert "recipe.yaml, line 2: " in refused(recipe(tmp_path, f"? {key}\n: 3"))


def test_quotes_make_a_text_of_anything(tmp_path: Path) -> None:
    for text in (t for t, _ in SURPRISES if t[0] != "!"):
        assert parse_yaml(f"'{text}'", "x") == text
    assert parse_yaml(
        "[0, -7, +3, 1.5, 1., .5, 1.0e-3, true, FALSE, null, Null, a, 08, y, n]", "x"
    ) == [*(0, -7, 3, 1.5, 1.0, 0.5, 0.001, True, False, None, None, "a", "08", "y", "n")]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")))
"""No setting takes the others (`glore.config.section`)."""
SIMPLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(SIMPLE)
def test_what_glore_writes_reads_back_the_same(value: object) -> None:
    assert (
        parse_yaml(
            yaml.safe_dump(value, sort_keys=False, allow_unicode=True, explicit_end=True), "x"
        )
        == value
    )


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab01:_-.~ \n&*<>{}[]!%@'\"#,?|=\t"), max_size=60))
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    try:
        parse_yaml(text, "x")
    except ConfigError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
    assert len(message) < 700


def billion_laughs(levels: int, width: int, form: str) -> str:
    names = [f"a{i}" for i in range(levels)]
    first = "{k: v}" if "<<" in form else "[x, x]"
    lines = [f"a0: &a0 {first}"]
    lines += [
        f"{name}: &{name} " + form.format(", ".join([f"*{before}"] * width))
        for before, name in itertools.pairwise(names)
    ]
    return "\n".join(lines)


IN_LITTLE_MEMORY = """
import resource, sys
from glore import load_config
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
load_config(sys.argv[1])
"""


@pytest.mark.parametrize(
    "text",
    [
        *(billion_laughs(9, 9, form) for form in ("[{}]", "{{<<: [{}]}}")),
        billion_laughs(13, 6, "[{}]"),
        "a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 100) + "]",
        "a: [" + ", ".join(["1"] * 30_000) + "]",
    ],
)
def test_aliases_do_not_grow_without_bound(tmp_path: Path, text: str) -> None:
    begun = time.monotonic()
    message = refused(recipe(tmp_path, text))
    assert "with all aliases expanded" in message or "nested more than 16 deep" in message
    assert ", line " in message
    assert time.monotonic() - begun < 5
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, str(tmp_path / "recipe.yaml")],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stderr.rstrip().rpartition("\n")[2].startswith("glore.errors.ConfigError"), (
        "within half a gigabyte"
    )


def test_a_recipe_has_a_size(tmp_path: Path) -> None:
    assert "larger than 1 MiB" in refused(recipe(tmp_path, "#" * MAX_BYTES))
    assert "larger than 1 MiB" in refused(Path("/dev/zero"))


def test_a_file_of_keys_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-hunter2\n")
    assert "a recipe is a YAML mapping of settings, got a text" in (
        message := refused(tmp_path / ".env")
    )
    assert "hunter2" not in message


HTTP = "engine: {kind: http, url: 'http://h/v1'"


@pytest.mark.parametrize(
    ("text", "override", "words"),
    [
        (
            "launch: touch /tmp/owned",
            "launch='touch /tmp/owned'",
            "launch: a recipe may not run commands",
        ),
        (
            HTTP + ", api_key_env: AWS_SECRET_ACCESS_KEY}",
            "engine.api_key_env=AWS_SECRET_ACCESS_KEY",
            "that begin with GLORE_ only",
        ),
        (
            HTTP + ", api_key_env: GLOREX}",
            "engine.api_key_env=GLOREX",
            "that begin with GLORE_ only",
        ),
        (
            f"engine: {{kind: ray, inner: {HTTP.partition(' ')[2]}, api_key_env: HF_TOKEN}}}}",
            "engine.inner.api_key_env=HF_TOKEN",
            "engine.inner.api_key_env: a recipe may have variables sent",
        ),
        (
            "engine: {kind: ray, address: 'evil:6379'}",
            "engine.address=evil:6379",
            "may not join this machine to another's cluster",
        ),
        (
            "base: {model: a/pytorch_model.bin}",
            "base.model=a/pytorch_model.bin",
            "may not ask for pickled weights",
        ),
        (
            "base: {model: a/pytorch_model.bin.index.json}",
            "base.model=a/pytorch_model.bin.index.json",
            "may not ask for pickled weights",
        ),
    ],
)
def test_what_a_recipe_may_not_decide_counts_on_the_command_line_alone(
    tmp_path: Path, text: str, override: str, words: str
) -> None:
    path = recipe(tmp_path, text)
    message = refused(path)
    assert words in message
    assert f"add {override} to the command line at each start" in message
    assert words in refused(path, ["labels.rollouts=3"])
    config = load_config(path, shlex.split(override))
    run_dir = tmp_path / "runs" / "x"
    (run_dir / "stages").mkdir(parents=True)
    (run_dir / "config.yaml").write_text(resolved_recipe(config))
    assert words in refused(run_dir / "config.yaml"), (
        "the run's own settings are a file like any other"
    )
    assert load_config(run_dir / "config.yaml", shlex.split(override)).engine == config.engine
    looked_at = load_run(run_dir)
    assert looked_at.launch == ""
    for engine in (looked_at.engine, looked_at.engine.sampler):
        if isinstance(engine, HttpEngineSettings):
            assert engine.api_key_env == "GLORE_API_KEY"
        if isinstance(engine, RayEngineSettings):
            assert engine.address is None


@pytest.mark.parametrize("overrides", [["launch="], ["launch=''"]])
def test_a_recipes_command_can_be_left_out(tmp_path: Path, overrides: list[str]) -> None:
    assert load_config(recipe(tmp_path, "launch: evil"), overrides).launch == ""


def test_another_override_does_not_vouch_for_the_recipes_command(tmp_path: Path) -> None:
    path = recipe(tmp_path, "launch: evil\n" + HTTP + ", api_key_env: HF_TOKEN}")
    assert "launch: " in refused(path, ["engine.api_key_env=HF_TOKEN"])
    assert "engine.api_key_env: " in refused(path, ["launch=good"])
    config = load_config(
        path, ["launch=good", "engine={kind: http, url: 'http://h/v1', api_key_env: HF_TOKEN}"]
    )
    assert isinstance(config.engine, HttpEngineSettings)
    assert (config.launch, config.engine.api_key_env) == ("good", "HF_TOKEN")


def test_harmless_values_need_no_word(tmp_path: Path) -> None:
    config = load_config(
        recipe(tmp_path, "launch: ''\n" + HTTP + ", api_key_env: GLORE_OTHER_KEY}")
    )
    assert isinstance(config.engine, HttpEngineSettings)
    assert config.engine.api_key_env == "GLORE_OTHER_KEY"
    for address in ("auto", "local", "null"):
        load_config(recipe(tmp_path, f"engine: {{kind: ray, address: {address}}}"))


def test_python_settings_are_not_a_recipe() -> None:
    assert RunConfig(name="x", launch="torchrun").launch == "torchrun"
    assert EngineSettings(kind="http", url="http://h", api_key_env="OTHER").api_key_env == "OTHER"


SECRET = "sk-hunter2-0123"


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("", [f"engine.api_key={SECRET}"]),
        ("", [f"engine.api_key=[{SECRET}"]),
        ("", [f"api_key={SECRET}", "seed=-1"]),
        ("", ["engine.kind=http", f"engine.password={SECRET}"]),
        ("", [f"engine.api_key_env={SECRET}"]),
        (f"engine: {{kind: http, url: 'http://h/v1', api_key_env: {SECRET}}}", []),
        (f"engine: {{kind: http, url: 'http://h/v1', api_key: {SECRET}}}", []),
        (f"engine: {{kind: http, url: 'http://h/v1', api_key_env: [{SECRET}]}}", []),
        (f"engine: {{kind: http, url: 'http://user:{SECRET}@h/v1'}}", []),
        (f"engine: {{kind: http, url: 'http://{SECRET}@h/v1'}}", []),
        (f"engine: {{kind: http, url: 'user:{SECRET}@h/v1'}}", []),
        (f"engine: {{kind: http, url: 'http://h/v1?key={SECRET}'}}", []),
        (
            f"engine: {{kind: http, url: 'http://h/v1', urls: {{sft: 'http://user:{SECRET}@h'}}}}",
            [],
        ),
        ("", ["engine.kind=http", f"engine.url=http://user:{SECRET}@h/v1"]),
        ("", [f"engine={{kind: http, url: 'http://user:{SECRET}@h/v1', zzz: 1}}"]),
    ],
)
def test_keys_and_passwords_given_as_settings_are_refused_and_not_quoted(
    tmp_path: Path, text: str, overrides: list[str]
) -> None:
    message = refused(recipe(tmp_path, text), overrides)
    assert "hunter2" not in message
    assert "0123" not in message


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


PATHS = ["runs_dir", "base.model", "task.path", "task.scratch_path"]


def settings_with(key: str, value: str) -> list[str]:
    kind = {
        "task.path": ["task.kind=jsonl", "base.model=m"],
        "task.scratch_path": ["task.kind=svamp"],
    }.get(key, [])
    return [*kind, f"{key}={value}"]


def at(config: object, key: str) -> object:
    for name in key.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ("~/a b", "{}/a b"),
        ("$HOME/x", "{}/x"),
        ("${HOME}/x", "{}/x"),
        ("a/b", "a/b"),
        ("./~x", "./~x"),
    ],
)
def test_home_is_filled_in_everywhere(
    tmp_path: Path, home: Path, key: str, given: str, filled: str
) -> None:
    assert at(load_config(recipe(tmp_path), settings_with(key, given)), key) == filled.format(home)
    section, _, name = key.rpartition(".")
    kind = {"path": "kind: jsonl, ", "scratch_path": "kind: svamp, "}.get(name, "")
    text = f"{section}: {{{kind}{name}: '{given}'}}" if section else f"{name}: '{given}'"
    config = load_config(recipe(tmp_path, text), ["base.model=m"] if name == "path" else [])
    assert at(config, key) == filled.format(home)


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    "given",
    ["$SECRET/x", "${SECRET}", "a/$HOMER", "$", "~nosuchuser/x", "a/~/b", "''", '"a\\0b"', "~"],
)
def test_what_is_not_filled_in_is_refused_and_never_a_folder(
    tmp_path: Path, home: Path, key: str, given: str
) -> None:
    message = refused(recipe(tmp_path), settings_with(key, given))
    assert "hunter2" not in message
    assert not [p for p in tmp_path.rglob("*") if "~" in p.name or "$" in p.name]


def test_home_in_the_place_of_a_recipe_or_run(tmp_path: Path, home: Path) -> None:
    (home / "r.yaml").write_text("name: x\n")
    assert load_config("~/r.yaml").name == "x"
    for name in ("~/no.yaml", "~nosuchuser/r.yaml"):
        refused(Path(name))
    with pytest.raises(GloreError, match="home/no is no run folder"):
        Refiner.from_run("~/no")
    assert not [p for p in tmp_path.rglob("*") if "~" in p.name]
