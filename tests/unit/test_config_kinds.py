"""Each kind of task and engine has a settings class of its own; kinds and verifiers of installed
packages are found through entry points.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from glore.config import (
    AutoEngineSettings,
    EngineSettings,
    Gsm8kTaskSettings,
    HttpEngineSettings,
    JsonlTaskSettings,
    MathTaskSettings,
    RayEngineSettings,
    RunConfig,
    StoriesSettings,
    StoriesTaskSettings,
    TaskSettings,
    TorchEngineSettings,
    VllmEngineSettings,
    load_config,
    resolved_recipe,
)
from glore.config.plugins import imported
from glore.engines.open import open_engine
from glore.engines.protocol import Request, SamplingParams
from glore.errors import ConfigError, DataError
from glore.pipeline.fingerprints import declared_settings, fingerprint_of, flat_settings
from glore.pipeline.stage import Stage
from glore.pipeline.view import settings_view
from glore.prompts import solve_segments
from glore.tasks import Grade, open_task
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.open import data_contents, open_grader

FLAT_TASK = {
    "path": None,
    "hub": None,
    "config": None,
    "revision": None,
    "n_dev": 500,
    "max_train": None,
    "max_test": None,
    "keep_annotations": True,
    "merge_answer_line": False,
    "boxed": True,
    "scratch_path": None,
    "stories": StoriesSettings().model_dump(mode="json"),
}
FLAT_ENGINE = {
    "device": "auto",
    "dtype": "float32",
    "quantization": "none",
    "max_rows": 256,
    "scoring_tokens": 16384,
    "url": None,
    "urls": {},
    "model": "{name}",
    "models": {},
    "api_key_env": "GLORE_API_KEY",
    "concurrency": 64,
    "timeout_seconds": 600.0,
    "wait_seconds": 0.0,
    "prompt": "tokens",
    "siblings": "separate",
    "extensions": True,
    "retries": 6,
    "tensor_parallel": 1,
    "gpu_memory": 0.9,
    "context": None,
    "workers": 2,
    "inner": None,
    "address": None,
    "cpus_per_worker": 1.0,
    "gpus_per_worker": 0.0,
    "ship_models": False,
}
"""Sections as the `config.yaml` of an older run holds them: the settings of all kinds."""


def config(
    task: dict[str, object] | None = None,
    engine: dict[str, object] | None = None,
    **sections: object,
) -> RunConfig:
    return RunConfig.model_validate(
        {"name": "x", "base": {"model": "m"}, "task": task or {}, "engine": engine or {}} | sections
    )


def recipe(tmp_path: Path, **settings: object) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "base": {"model": "m"}, **settings}))
    return path


@pytest.mark.parametrize("cls", [*TaskSettings.kinds.builtin, *EngineSettings.kinds.builtin])
def test_every_kind_builds_its_class_and_names_what_opens_it(
    cls: type[TaskSettings] | type[EngineSettings],
) -> None:
    base = TaskSettings if issubclass(cls, TaskSettings) else EngineSettings
    kind = cls.model_fields["kind"].default
    more = {"url": "http://x/v1"} if kind == "http" else {}
    for settings in (base(kind=kind, **more), base.model_validate({"kind": kind, **more})):
        assert type(settings) is cls
        assert settings == cls(**more)
        assert pickle.loads(pickle.dumps(settings)) == settings
    assert callable(imported(cls.opener))
    hook = cls.regrader if issubclass(cls, TaskSettings) else cls.checker
    assert hook is None or callable(imported(hook))


def test_without_a_kind_it_is_the_default_one() -> None:
    assert type(TaskSettings()) is StoriesTaskSettings
    assert type(EngineSettings(device="cpu")) is AutoEngineSettings
    assert config().engine == AutoEngineSettings()
    assert config(engine={"max_rows": 3}).engine == AutoEngineSettings(max_rows=3)
    assert config(engine={"kind": "torch"}).engine == TorchEngineSettings()
    inner = config(engine={"kind": "ray", "inner": {"dtype": "bfloat16"}}).engine.sampler
    assert inner == TorchEngineSettings(dtype="bfloat16")
    pool = config(engine={"kind": "ray", "inner": {"kind": "http", "url": "http://x"}}).engine
    assert isinstance(pool, RayEngineSettings)
    assert type(pool.inner) is HttpEngineSettings


@pytest.mark.parametrize("kind", ["stories", "gsm8k", "svamp", "math", "jsonl"])
def test_a_task_with_the_settings_of_all_kinds_is_taken(kind: str) -> None:
    task = config(task={**FLAT_TASK, "kind": kind}, student={"bootstrap": "prompt"}).task
    assert task == TaskSettings(kind=kind)
    assert not set(task.model_dump()) - set(type(task).model_fields)


@pytest.mark.parametrize(
    ("workers", "shared"),
    [(4, (2, 1.0, 1.0, 0.8)), (3, (1, 1.0, 1.0, 0.8)), (1, (1, 0.5, 0.5, 0.4))],
)
def test_two_pools_have_the_room_of_one(
    workers: int, shared: tuple[int, float, float, float]
) -> None:
    """As `Refiner` opens them. A second pool of full size would wait for room in vain."""
    settings = config(
        engine={
            "kind": "ray",
            "workers": workers,
            "gpus_per_worker": 1,
            "inner": {"kind": "vllm", "gpu_memory": 0.8},
        }
    ).engine.shared_by(2)
    found = settings.workers, settings.cpus_per_worker, settings.gpus_per_worker
    assert (*found, settings.sampler.gpu_memory) == shared
    assert (
        settings.fingerprint_fields()
        == config(
            engine={"kind": "ray", "inner": {"kind": "vllm"}, "scoring": "pool"}
        ).engine.fingerprint_fields()
    )


@pytest.mark.parametrize("kind", ["auto", "torch", "http", "vllm", "ray"])
def test_an_engine_with_the_settings_of_all_kinds_is_taken(kind: str) -> None:
    url = {"url": "http://x/v1"} if kind == "http" else {}
    flat = {**FLAT_ENGINE, "kind": kind, **url}
    assert config(engine=flat).engine == EngineSettings(kind=kind, **url)
    if kind not in ("ray", "auto"):
        pool = config(engine={**FLAT_ENGINE, "kind": "ray", "inner": flat}).engine
        assert pool == RayEngineSettings(inner=EngineSettings(kind=kind, **url))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"task": {"path": "x"}},
            "task: path is for tasks of kind gsm8k or svamp or math or jsonl,",
        ),
        (
            {"task": {"kind": "math", "stories": {"n_dev": 3}}},
            "(on the command line task.stories={})",
        ),
        ({"task": {"kind": "svamp", "merge_answer_line": True}}, "got kind svamp; remove it"),
        (
            {"task": {"kind": "math", "boxed": False}},
            "of kind gsm8k or svamp or jsonl or reasoning_gym, got kind math",
        ),
        (
            {"engine": {"retries": 3}},
            "engine: retries is for engines of kind http or ray, got kind auto",
        ),
        (
            {"engine": {"kind": "vllm", "url": "http://x"}},
            "url is for engines of kind http, got kind",
        ),
        (
            {"engine": {"kind": "ray", "inner": {"workers": 3}}},
            "engine.inner: workers is for engines of kind ray, got kind torch; remove it or ",
        ),
        (
            {"task": {"kind": "gsm8k", "n_devs": 3}},
            "unknown key 'task.n_devs'; did you mean n_dev?",
        ),
        ({"engine": {"kind": "http", "url": "http://x", "urk": 3}}, "did you mean url"),
        (
            {"engine": {"urk": 3}},
            "known keys: kind, device, dtype, max_rows, scoring_tokens, tensor_parallel",
        ),
        ({"engine": {"kind": "ray", "inner": {"urk": 3}}}, "unknown key 'engine.inner.urk'; known"),
        (
            {"task": {"kind": "nope"}},
            "task.kind: input should be 'stories', 'gsm8k', 'svamp', 'math', 'jsonl' or "
            "'reasoning_gym', got 'nope'",
        ),
        (
            {"engine": {"kind": ["torch"]}},
            "engine.kind: input should be 'torch', 'http', 'vllm', 'ray' or 'auto'",
        ),
        (
            {"task": 3},
            "task: input should be a valid dictionary or instance of TaskSettings, got 3",
        ),
        ({"engine": {"kind": "ray", "inner": {"kind": "auto"}}}, "inner can't be of kind auto, s"),
        (
            {"engine": {"kind": "ray", "inner": {"max_rows": 0}}},
            "engine.inner.max_rows: input should",
        ),
    ],
)
def test_what_does_not_fit_a_kind(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(tmp_path, **settings))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


OLD_TASK = "4912f45e6bf4d7e5a076"
OLD_GSM8K = "d7c9f7613fbbc06a6503"


def test_fingerprints_are_those_of_before_each_kind_had_a_class() -> None:
    stories = config(task={"stories": {"people": [2, 4]}})
    assert fingerprint_of(flat_settings(stories.task.fingerprint_fields(), "task")) == OLD_TASK
    gsm8k = config(task={"kind": "gsm8k", "n_dev": 7, "boxed": False})
    assert fingerprint_of(flat_settings(gsm8k.task.fingerprint_fields(), "task")) == OLD_GSM8K


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (TorchEngineSettings(max_rows=3), {"kind": "torch", "dtype": "float32"}),
        (
            TorchEngineSettings(quantization="int8"),
            {"kind": "torch", "dtype": "float32", "quantization": "int8"},
        ),
        (VllmEngineSettings(dtype="bfloat16"), {"kind": "vllm", "dtype": "bfloat16"}),
        (
            RayEngineSettings(inner=HttpEngineSettings(url="http://x", dtype="bfloat16")),
            {
                "kind": "http",
                "dtype": "float32",
                "inner.dtype": "bfloat16",
                "prompt": "tokens",
                "siblings": "separate",
                "extensions": True,
            },
        ),
        (RayEngineSettings(dtype="bfloat16"), {"kind": "torch", "dtype": "bfloat16"}),
    ],
)
def test_what_results_depend_on_of_an_engine(
    engine: EngineSettings, expected: dict[str, object]
) -> None:
    assert engine.fingerprint_fields() == expected


def test_a_kinds_own_settings_survive_the_resolved_recipe(tmp_path: Path) -> None:
    written = tmp_path / "config.yaml"
    for settings in (
        config(task={"kind": "svamp", "scratch_path": "x.csv"}, engine={"kind": "vllm"}),
        config(task={"kind": "gsm8k", "keep_annotations": False}),
        config(engine={"kind": "ray", "workers": 3, "inner": {"quantization": "int16"}}),
    ):
        written.write_text(resolved_recipe(settings))
        again = load_config(written, ["name=x", "runs_dir=runs"])
        assert (again.task, again.engine) == (settings.task, settings.engine)


PACKAGE = """
from typing import ClassVar, Literal

from glore.config import EngineSettings, TaskSettings
from glore.engines.scripted import ScriptedEngine
from glore.records import Problem
from glore.tasks import Grade


class SumsSettings(TaskSettings):
    kind: Literal["sums"] = "sums"
    n: int = 2
    path: str | None = None
    opener: ClassVar[str] = "sums_package:Sums"

    def local_data(self, *, base_text=False):
        return {"path": self.path} if self.path else {}


class Sums:
    name = "sums"

    def __init__(self, settings, seed):
        self.n = settings.n

    def problems(self, split):
        return [
            Problem(f"sums-{split}-{i}", f"{i} + 1?", str(i + 1), None, split)
            for i in range(self.n)
        ]

    def grade(self, problem, steps):
        right = steps[-1:] == (f"#### {problem.answer}",)
        return Grade("right" if right else "wrong", None)


class ParrotSettings(EngineSettings):
    kind: Literal["parrot"] = "parrot"
    says: str = "#### 2"
    opener: ClassVar[str] = "sums_package:open_parrot"


def open_parrot(model_path, settings):
    return ScriptedEngine(lambda request, seed: settings.says)


def ends_alike(answer, steps):
    if answer == "bad":
        return True
    return Grade("right" if " ".join(steps).endswith(answer) else "wrong", answer)


number = 3
"""
ENTRY_POINTS = """
[glore.tasks]
sums = sums_package:SumsSettings
total = sums_package:SumsSettings
absent = sums_package:Nothing
parrot = sums_package:ParrotSettings

[glore.engines]
parrot = sums_package:ParrotSettings

[glore.verifiers]
ends = sums_package:ends_alike
number = sums_package:number
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed as far as Python can tell: a module and its metadata."""
    folder = tmp_path / "site"
    information = folder / "sums_package-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "sums_package.py").write_text(PACKAGE)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sums_package\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "sums_package", raising=False)
    return folder


@pytest.mark.usefixtures("package")
def test_a_task_and_an_engine_of_ones_own(tmp_path: Path) -> None:
    path = recipe(tmp_path, task={"kind": "sums", "n": 3}, engine={"kind": "parrot"})
    config = load_config(path, ["task.merge_answer_line=true"])
    assert type(config.task).__name__ == "SumsSettings"
    assert config.task.model_dump() == {
        "kind": "sums",
        "merge_answer_line": True,
        "n": 3,
        "path": None,
    }
    task = open_task(config.task, config.seed)
    problems = task.problems("train")
    assert [p.question for p in problems] == ["0 + 1?", "1 + 1?", "2 + 1?"]
    engine = open_engine("no-model", config.engine)
    request = Request("q", solve_segments(problems[1].question), (1, 2), SamplingParams())
    (result,) = engine.run([request])
    texts = [completion.text for completion in result.completions]
    assert texts == ["#### 2", "#### 2"]
    assert task.grade(problems[1], (texts[0],)) == Grade("right", None)
    assert task.grade(problems[2], (texts[0],)).verdict == "wrong"
    grader = open_grader(config.task, config.seed, problems)
    assert grader.grade(problems[1], (texts[0],)).verdict == "right"


@pytest.mark.usefixtures("package")
def test_its_fingerprint_holds_its_own_settings(tmp_path: Path) -> None:
    settings = config(task={"kind": "sums"}, engine={"kind": "parrot", "max_rows": 3})
    stage = Stage("x", lambda ctx: None, reads=("task", "engine"), without=("task.path",))
    assert declared_settings(settings, stage) == {
        "seed": 0,
        "task.kind": "sums",
        "task.merge_answer_line": False,
        "task.n": 2,
        "engine.kind": "parrot",
        "engine.dtype": "float32",
        "engine.says": "#### 2",
    }
    task = settings_view(settings, stage, ()).task
    assert (task.opener, task.n) == ("sums_package:Sums", 2)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"stage x reads the setting task\.path, which"):
        task.local_data()
    data = tmp_path / "data"
    data.mkdir()
    at = config(task={"kind": "sums", "path": str(data)}).task
    assert data_contents(at) == {"task.path": None}
    (data / "a.txt").write_text("1")
    before = data_contents(at)
    (data / "a.txt").write_text("2")
    assert None not in (*before.values(), *data_contents(at).values())
    assert data_contents(at) != before


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"kind": "sums", "m": 3},
            "unknown key 'task.m'; known keys: kind, merge_answer_line, n, pa",
        ),
        (
            {"n": 3},
            "n is for tasks of kind sums, got kind stories; remove it (on the command line t",
        ),
        (
            {"kind": "nope"},
            "'jsonl', 'reasoning_gym', 'absent', 'parrot', 'sums' or 'total', got 'nope'",
        ),
        (
            {"kind": "absent"},
            "can't load 'sums_package:Nothing', which an installed package names as",
        ),
        ({"kind": "total"}, "SumsSettings, whose field kind has the default 'sums'; give both one"),
        ({"kind": "parrot"}, "it must name a subclass of TaskSettings"),
        (
            {"kind": "sums", "n_dev": 3},
            "n_dev is for tasks of kind gsm8k or svamp or math or jsonl or reasoning_gym,",
        ),
        ({"kind": "sums", "n": "a"}, "task.n: input should be a valid integer, got 'a'"),
    ],
)
def test_what_does_not_fit_a_kind_of_ones_own(
    tmp_path: Path, task: dict[str, object], message: str
) -> None:
    points = (tmp_path / "site" / "sums_package-1.0.dist-info") / "entry_points.txt"
    if task.get("kind") not in ("absent", "total", "parrot", "nope"):
        points.write_text("[glore.tasks]\nsums = sums_package:SumsSettings\n")
    with pytest.raises(ConfigError) as caught:
        load_config(recipe(tmp_path, task=task))
    assert message in str(caught.value)


@pytest.mark.usefixtures("package")
def test_a_base_model_is_not_trained_on_a_task_without_text(tmp_path: Path) -> None:
    path = recipe(tmp_path, task={"kind": "sums"}, base={})
    with pytest.raises(ConfigError, match=r"task\.kind: sums has no text to train a base model"):
        load_config(path)


def test_packages_are_not_asked_for_what_is_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    flat = config(task={**FLAT_TASK, "kind": "math"}, engine={**FLAT_ENGINE, "kind": "vllm"})
    assert (type(flat.task), type(flat.engine)) == (MathTaskSettings, VllmEngineSettings)


def test_two_packages_with_one_name(package: Path, tmp_path: Path) -> None:
    other = package / "other-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 2.0\n")
    (other / "entry_points.txt").write_text("[glore.tasks]\nsums = other:Settings\n")
    with pytest.raises(ConfigError, match=r"packages name 'other:Settings' and 'sums_package:Sums"):
        load_config(recipe(tmp_path, task={"kind": "sums"}))


def rows(path: Path, *answers: str, solution: str | None = None) -> str:
    more = {} if solution is None else {"solution": solution}
    lines = [{"question": f"Q{i}?", "answer": a, **more} for i, a in enumerate(answers)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.usefixtures("package")
def test_a_verifier_of_ones_own_decides(tmp_path: Path) -> None:
    data = rows(tmp_path / "data.jsonl", *["a1 b2, c3"] * 8, solution="so\na1 b2, c3")
    settings = JsonlTaskSettings(path=data, n_dev=2, verifier="ends")
    task = open_task(settings, seed=0)
    problem = task.problems("train")[0]
    assert (problem.answer, problem.solution) == ("a1 b2, c3", ("so", "a1 b2, c3"))
    grader = open_grader(settings, 0, task.problems("train"))
    for each in (task, grader):
        assert isinstance(each, DatasetTask)
        assert each.checker is None, "no process that compares LaTeX is started"
        assert each.grade(problem, ("it is a1 b2,", "c3")) == Grade("right", "a1 b2, c3")
        assert each.grade(problem, ("#### c3 a1",)).verdict == "wrong"
    assert settings.fingerprint_fields()["verifier"] == "ends"
    assert "verifier" not in JsonlTaskSettings(path=data).fingerprint_fields()


@pytest.mark.usefixtures("package")
def test_a_verifier_that_is_none(tmp_path: Path) -> None:
    data = rows(tmp_path / "data.jsonl", *["7"] * 8, solution="so 8")
    bad = rows(tmp_path / "bad.jsonl", *["bad"] * 8, solution="so 8")
    for path, name, error, message in (
        (data, "nope", ConfigError, r"names 'nope' in glore.verifiers \(known: ends, number\)"),
        (data, "number", ConfigError, r"task.verifier 'number' is 3; it must be a function"),
        (data, "ends", DataError, r"line 1: the verifier 'ends' calls the field 'solution' wrong"),
        (bad, "ends", ConfigError, r"'ends' returned True; it must return a glore.tasks.Grade"),
    ):
        with pytest.raises(error, match=message):
            open_task(JsonlTaskSettings(path=path, n_dev=2, verifier=name), seed=0)


def test_reading_settings_imports_neither_tasks_nor_engines() -> None:
    code = (
        "import sys\nfrom glore.config import *\nEngineSettings(kind='http', url='http://x')\n"
        "TaskSettings(kind='gsm8k', n_dev=3)\n"
        "assert not [m for m in sys.modules if m.startswith(('glore.tasks', 'glore.engines'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert isinstance(TaskSettings(kind="gsm8k"), Gsm8kTaskSettings)
