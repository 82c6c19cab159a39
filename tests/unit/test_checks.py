"""What a stage would refuse is refused before the first one begins, and bounds of settings are
those of what reads them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from glore.config import LoraSettings, RunConfig, TrainSettings, load_config
from glore.engines.encoding import check
from glore.engines.protocol import Request, SamplingParams
from glore.errors import ConfigError, DataError, EngineError, GloreError, ModelError
from glore.pipeline import run_stages
from glore.stages import build_stages
from glore.stages.checks import LLAMA_LAYERS, _least_tokens
from support.small_stages import small_config, small_stages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with its tokenizer."""
    from support.tiny_models import tiny_lm, tiny_tokenizer

    folder = tmp_path_factory.mktemp("base")
    tiny_lm().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


FEW_STORIES = "task: {stories: {n_train: 200, n_dev: 20, n_test: 20}}\n"


def dry_run(folder: Path, *overrides: str) -> None:
    is_of_stories = not any(o.startswith("task.kind=") for o in overrides)
    (folder / "r.yaml").write_text("name: x\n" + (FEW_STORIES if is_of_stories else ""))
    config = load_config(folder / "r.yaml", [f"runs_dir={folder / 'runs'}", *overrides])
    run_stages(build_stages(config), config, dry_run=True)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    "overrides",
    [(), ("student.ei.max_rounds=0",), ("reward.orm.lora={target_modules: [q_proj, down_proj]}",)],
)
def test_a_recipe_that_can_be_run_passes(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    if any("lora" in override for override in overrides):
        pytest.importorskip("peft")
    dry_run(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["base.model={none}"], "no model folder"),
        (["base.model={empty}"], "holds no config.json"),
        (["base.model={no_weights}"], "it holds no weights"),
        (["base.model={no_tokenizer}"], "has no tokenizer"),
        (["base.model={no_eos}"], "has no eos_token"),
        (
            ["base.model={base}", "refiner.train.lora={target_modules: [q_porj]}"],
            "refiner.train.lora.target_modules: the base model has no",
        ),
        (
            ["base.model={base}", "refiner.train.lora={target_modules: [q_porj]}"],
            "down_proj, embed_tokens, gate_proj, k_proj, lm_head",
        ),
        (
            ["reward.sorm.lora={target_modules: [c_attn]}"],
            "reward.sorm.lora.target_modules: the base model has no layer 'c_attn'",
        ),
        (["reward.sorm.lora={target_modules: [lm_head]}"], "has no layer 'lm_head'"),
        (["launch=no-such-launcher --x"], "launch: can't start 'no-such-launcher': No such file"),
        (
            [
                "engine.kind=http",
                "engine.url=http://x/v1",
                "engine.extensions=false",
                "labels.top_k=5",
            ],
            "labels.top_k: 5 is sent with engine.extensions=true only",
        ),
        (["base.model={base}", "prompt.style=chat"], "has no chat template"),
        (
            ["prompt.style=chat"],
            "prompt.style chat, prompt.steps line: a base model trained from nothing learns plain",
        ),
        (
            ["base.model={base}", "prompt.steps=paragraph"],
            "prompt.steps paragraph: the truth of stories is known line by line",
        ),
        (
            [
                "base.model={base}",
                "prompt.style=chat",
                "engine.kind=http",
                "engine.url=http://x/v1",
                "engine.prompt=text",
            ],
            "engine.prompt text: a server would take what a question spells",
        ),
        (
            ["launch=python 'unclosed"],
            "is no command line (No closing quotation); close its quotes",
        ),
        (
            ["launch=accelerate launch --config_file none.yaml"],
            "launch: there is no file 'none.yaml' for --config_file",
        ),
        (
            ["launch=accelerate launch --config_file={fsdp}", "student.sft.optimizer=muon"],
            "FSDP and DeepSpeed train whole weights",
        ),
        (
            ["launch=accelerate launch --use_deepspeed", "refiner.train.lora={{r: 4}}"],
            "FSDP and DeepSpeed train whole weights",
        ),
        (
            ["base.scratch.max_positions=128", "task.stories={HARD}"],
            "base.scratch.max_positions: 128 tokens leave no room for an answer",
        ),
        (
            ["student.sft.max_length=16"],
            "student.sft.max_length: 16 tokens exclude every worked solution (the shortest has ",
        ),
        (
            ["runs_dir={base}/config.json/runs"],
            "/config.json/runs/x as a run folder: there is a file at ",
        ),
        (
            ["refiner.train.report_to=[clearml]"],
            "refiner.train.report_to: clearml is not installed here",
        ),
        (
            ["task.kind=gsm8k", "task.path={none}", "base.model={base}"],
            "does not exist, and stage problems reads it",
        ),
        (
            ["task.kind=svamp", "task.path={base}/config.json", "task.scratch_path={none}"],
            "does not exist, and stage base reads it",
        ),
    ],
)
def test_what_a_stage_would_refuse(
    tmp_path: Path, base: Path, overrides: list[str], message: str
) -> None:
    if any("lora" in override for override in overrides):
        pytest.importorskip("peft")
    places = {
        name: tmp_path / name for name in ("none", "empty", "no_weights", "no_tokenizer", "no_eos")
    }
    for name in ("no_weights", "no_tokenizer", "no_eos"):
        places[name].mkdir()
        for file in base.iterdir():
            if not (
                (name == "no_weights" and file.suffix == ".safetensors")
                or (name == "no_tokenizer" and "tokenizer" in file.name)
            ):
                (places[name] / file.name).write_bytes(file.read_bytes())
    places["empty"].mkdir()
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (places["no_eos"] / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in settings.items() if k != "eos_token"})
    )
    places |= {"base": base, "fsdp": ROOT / "recipes" / "accelerate" / "fsdp.yaml"}
    given = [
        o.replace("{{", "{").replace("}}", "}") if "{{" in o else _filled(o, places)
        for o in overrides
    ]
    with pytest.raises(GloreError) as caught:
        dry_run(tmp_path, *given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def _filled(override: str, places: dict[str, Path]) -> str:
    override = override.replace(
        "{HARD}",
        "{people: [8, 8], steps: [6, 9], distractors: 3, extra_relations: 3, n_train: 20, "
        "n_test: 20}",
    )
    for name, path in places.items():
        override = override.replace(f"{{{name}}}", str(path))
    return override


def test_what_depends_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from glore.engines.local.native import build as native

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device cuda was asked for, but torch sees no GPU here"):
        dry_run(tmp_path, "engine.device=cuda")
    monkeypatch.setattr(native, "library", lambda: None)
    with pytest.raises(EngineError, match=r"engine\.quantization int8 needs a C compiler"):
        dry_run(tmp_path, "engine.quantization=int8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(
        EngineError, match=r"engine\.device=auto takes the GPU here; set engine.device=cpu"
    ):
        dry_run(tmp_path, "engine.quantization=int8")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name in ("vllm", "ray", "peft") else found(name),
    )
    for name in ("vllm", "ray", "peft"):
        monkeypatch.setitem(sys.modules, name, None)
    for override, kind, message in (
        ("engine.kind=vllm", EngineError, "engine.kind=vllm needs the package vllm"),
        ("engine.kind=ray", EngineError, "engine.kind=ray needs the package ray"),
        (
            "student.sft.lora={r: 4}",
            ConfigError,
            r"student\.sft\.lora needs peft, which is not installed",
        ),
    ):
        with pytest.raises(kind, match=message):
            dry_run(tmp_path, override)
    monkeypatch.setenv("GLORE_API_KEY", "geheim\N{KEY}")
    with pytest.raises(EngineError, match="an API key is printable ASCII") as caught:
        dry_run(tmp_path, "engine.kind=http", "engine.url=http://127.0.0.1:9/v1")
    assert "geheim" not in str(caught.value)
    monkeypatch.delenv("GLORE_API_KEY")
    dry_run(
        tmp_path, "engine.kind=http", "engine.url=http://127.0.0.1:9/v1"
    )  # the server may be started later


def test_a_dry_run_of_a_plain_recipe_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: x\n")
    code = (
        "import sys\nfrom glore.cli import main\nsys.argv = ['glore', 'run', 'r.yaml', "
        "'--dry-run']\ntry: main()\nexcept SystemExit as e: print(e.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 False"


def test_checks_come_before_the_first_stage_and_only_for_what_is_to_be_done(tmp_path: Path) -> None:
    def refuse(_: RunConfig) -> None:
        raise ModelError("no such base")

    stages = small_stages()
    asked = (*stages[:-1], dataclasses.replace(stages[-1], checks=(refuse,)))
    config = small_config(tmp_path)
    for dry in (True, False):
        with pytest.raises(ModelError, match="no such base"):
            run_stages(asked, config, dry_run=dry)
        assert not (tmp_path / "small" / "stages").exists()
    run_stages(asked, config, until="train")
    run_stages(stages, config)
    run_stages(asked, config)  # all reused: nothing to refuse


def test_data_that_is_gone_is_said_before_the_first_stage(tmp_path: Path) -> None:
    first, *others = small_stages()
    stages = (
        first,
        dataclasses.replace(others[0], contents=lambda c: {"base.model": None}),
        *others[1:],
    )
    with pytest.raises(
        DataError,
        match=r"^base\.model: 'None' does not exist, and stage sample reads it; give a path",
    ):
        run_stages(stages, small_config(tmp_path))
    assert not (tmp_path / "small" / "stages").exists()


def sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str, FieldInfo]]:
    """Every field of the settings: path of its section, name, what is known of it."""
    for name, field in model.model_fields.items():
        nested = [
            t
            for t in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(t, type) and issubclass(t, BaseModel)
        ]
        yield path, name, field
        for kind in nested[:1]:
            if kind is not model:
                yield from sections(kind, f"{path}.{name}".lstrip("."))


def edges(field: FieldInfo) -> list[float]:
    """The smallest and largest values that a numeric setting takes."""
    known: dict[str, float] = {
        k: v
        for m in field.metadata
        for k in ("ge", "gt", "le", "lt")
        if (v := getattr(m, k, None)) is not None
    }
    is_int = field.annotation is int
    low = (
        [known["ge"]]
        if "ge" in known
        else [known["gt"] + (1 if is_int else 1e-9)]
        if "gt" in known
        else []
    )
    high = (
        [known["le"]]
        if "le" in known
        else [known["lt"] - (1 if is_int else 1e-9)]
        if "lt" in known
        else []
    )
    return low + high


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "max_new_tokens"])
def test_whatever_the_settings_take_an_engine_takes(name: str) -> None:
    found = [(path, field) for path, field_name, field in sections(RunConfig) if field_name == name]
    assert len(found) >= 2
    for path, field in found:
        values = edges(field)
        assert values, path
        for value in values:
            nested: dict[str, object] = {name: value}
            for part in reversed(path.split(".")):
                nested = {part: nested}
            RunConfig.model_validate({"name": "x", **nested})
            check(Request("q", ("a",), (1,), SamplingParams(**{name: value})), 1)
        if name == "temperature":
            assert len(values) == 2
            for outside in (values[0] * 0.99, values[1] * 1.01):
                with pytest.raises(EngineError, match="temperature is 0"):
                    check(Request("q", ("a",), (1,), SamplingParams(temperature=outside)), 1)


@pytest.mark.parametrize(
    "name", [n for n, f in TrainSettings.model_fields.items() if f.annotation in (int, float)]
)
def test_whatever_the_settings_take_the_trainer_takes(name: str, tmp_path: Path) -> None:
    from glore.training.batches import plan_batches
    from glore.training.fit import _arguments

    for value in edges(TrainSettings.model_fields[name]):
        settings = TrainSettings.model_validate({name: value})
        assert plan_batches([5, 6], settings.batch_size, settings.epochs, settings.max_steps, 0)
        _arguments(settings, tmp_path, 3, 1, True, [])


def test_whatever_the_settings_take_peft_takes() -> None:
    peft = pytest.importorskip("peft")
    for name, field in LoraSettings.model_fields.items():
        for value in edges(field) if field.annotation in (int, float) else []:
            settings = LoraSettings.model_validate({name: value})
            peft.LoraConfig(r=settings.r, lora_alpha=settings.alpha, lora_dropout=settings.dropout)


def test_pieces_are_no_more_than_tokens() -> None:
    from support.tiny_training import TEXTS, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    for text in (*TEXTS, "", "a_b  c\n\n12x $3.50", "π ≈ 3,14 …\t!", "\u4e00\u4e8c 3"):
        assert _least_tokens([text]) <= len(tokenizer(text)["input_ids"])
    assert _least_tokens(["Ana : 12 + 7\n"]) == 7


def test_the_layers_of_a_base_from_nothing_are_those_that_lora_may_name() -> None:
    from torch import nn

    from support.tiny_models import tiny_lm

    named = {
        name.split(".")[-1]
        for name, m in tiny_lm().named_modules()
        if isinstance(m, nn.Linear | nn.Embedding)
    }
    assert named == set(LLAMA_LAYERS)
