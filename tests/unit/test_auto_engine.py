"""`engine.kind=auto`: which engine it chooses, what of it reaches fingerprints and marks, and which
options it refuses. vLLM and the GPU are pretended; what a chosen engine draws is tested elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.cli.display import stage_engines
from glore.cli.dry_run import engine_note
from glore.config import (
    AutoEngineSettings,
    EngineSettings,
    RunConfig,
    TorchEngineSettings,
    VllmEngineSettings,
    load_config,
)
from glore.config.plugins import is_installed
from glore.engines import auto
from glore.engines.auto import LARGE, as_kind, best_kind, chosen_for
from glore.engines.open import open_engine
from glore.errors import ConfigError
from glore.pipeline import Stage, StageContext, plan_stages, run_stages
from glore.pipeline.chosen import with_engine
from glore.pipeline.marks import read_done
from support.small_stages import small_config

OWN = {"quantization": "int8", "tensor_parallel": 2, "gpu_memory": 0.5, "context": 64}
"""Options that only one of `torch` and `vllm` has, each with a value that is not its default."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with vLLM and a GPU."""
    pretend(monkeypatch)


def pretend(monkeypatch: pytest.MonkeyPatch, *, vllm: bool = True, gpu: bool = True) -> None:
    monkeypatch.setattr(auto, "is_installed", lambda package: vllm and package == "vllm")
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)


def saved_model(folder: Path) -> Path:
    from support.tiny_models import tiny_lm, tiny_tokenizer

    tiny_lm().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("vllm", "gpu", "device", "n_weights", "kind", "why"),
    [
        (False, True, "auto", 7 * LARGE, "torch", "vLLM is not installed"),
        (True, False, "auto", 7 * LARGE, "torch", "the model is not on a GPU with CUDA"),
        (True, True, "cpu", 7 * LARGE, "torch", "the model is not on a GPU with CUDA"),
        (True, True, "mps", 7 * LARGE, "torch", "the model is not on a GPU with CUDA"),
        (True, True, "auto", LARGE - 10**7, "torch", "has 990M weights, fewer than 1B"),
        (True, True, "auto", 134_515_008, "torch", "has 135M weights, fewer than 1B"),
        (True, True, "cuda", LARGE, "vllm", "it is installed, and the model, on a GPU, has 1B w"),
        (True, True, "auto", 7_241_732_096, "vllm", "on a GPU, has 7.24B weights"),
        (True, True, "auto", None, "vllm", "size of the model, on a GPU, is not known yet"),
    ],
)
def test_vllm_is_chosen_for_a_large_model_on_a_gpu(
    vllm: bool,
    gpu: bool,
    device: str,
    n_weights: int | None,
    kind: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, vllm=vllm, gpu=gpu)
    found = best_kind(AutoEngineSettings(device=device), lambda: n_weights)
    assert found[0] == kind
    assert why in found[1]


def test_a_folder_with_the_name_of_a_package_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `vllm/`, with runs in it, in the folder that `python -m glore` is called in."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "some_folder_of_runs").mkdir()
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").touch()
    assert not is_installed("some_folder_of_runs")
    assert is_installed("some_package")
    assert not is_installed("some_package_that_is_not_there")


def test_weights_are_counted_only_where_they_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise AssertionError("counted")

    for machine in ({"vllm": False}, {"gpu": False}):
        pretend(monkeypatch, **machine)
        assert best_kind(AutoEngineSettings(), fail)[0] == "torch"


@given(st.sets(st.sampled_from(sorted(OWN))), st.sampled_from(["torch", "vllm"]))
def test_an_option_is_taken_exactly_where_the_chosen_kind_has_it(
    names: set[str], kind: str
) -> None:
    settings = AutoEngineSettings(max_rows=3, **{name: OWN[name] for name in names})
    made = EngineSettings.kinds.class_for({"kind": kind})
    foreign = sorted(names - made.model_fields.keys())
    if not foreign:
        expected = {"kind": kind, "max_rows": 3, **{name: OWN[name] for name in names}}
        assert as_kind(settings, kind, "x").settings == EngineSettings(**expected)
        return
    with pytest.raises(ConfigError) as caught:
        as_kind(settings, kind, "no reason")
    other = "vllm" if kind == "torch" else "torch"
    assert any(f"engine.{name}: " in str(caught.value) for name in foreign)
    assert f"chooses {kind} here, since no reason" in str(caught.value)
    assert f"set engine.kind={other}" in str(caught.value)


def test_an_option_of_a_kind_that_auto_never_chooses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: x\nengine: {url: 'http://x/v1'}\n")
    with pytest.raises(ConfigError, match="url is for engines of kind http, got kind auto"):
        load_config(tmp_path / "r.yaml")


def test_a_section_without_a_kind_keeps_working(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: x\nengine: {dtype: bfloat16}\n")
    config = load_config(tmp_path / "r.yaml", [f"runs_dir={tmp_path}"])
    assert with_engine(config).config.engine == TorchEngineSettings(dtype="bfloat16")


@pytest.mark.usefixtures("machine")
def test_the_size_of_a_runs_base_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_here = small_config(tmp_path)  # a base trained from nothing
    named = small_config(tmp_path, base={"model": "some/model"}, student={"bootstrap": "prompt"})
    given = small_config(tmp_path, base={"model": str(saved_model(tmp_path / "base"))})
    assert with_engine(made_here).config.engine == TorchEngineSettings()
    assert with_engine(named).config.engine == VllmEngineSettings()
    assert with_engine(given).config.engine == TorchEngineSettings()
    monkeypatch.setattr(auto, "LARGE", 1000)
    assert with_engine(given).config.engine == VllmEngineSettings()


def drawing_stages() -> tuple[Stage, ...]:
    """One stage that draws and one that doesn't; both know the settings that they declare."""

    def draw(context: StageContext) -> None:
        context.count(**{f"is_{context.config.engine.kind}": 1})

    def judge(context: StageContext) -> None:
        context.count(rows=1)

    return (
        Stage("draw", draw, reads=("engine",)),
        Stage("judge", judge, inputs=("draw",), reads=("evaluation.threshold",)),
    )


def run_named(config: RunConfig, name: str) -> RunConfig:
    named = config.model_copy(update={"name": name})
    run_stages(drawing_stages(), named)
    return named


def test_fingerprints_and_stages_know_the_chosen_kind_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, vllm in (("torch", False), ("vllm", True)):
        pretend(monkeypatch, vllm=vllm)
        monkeypatch.setattr(auto, "LARGE", 0)
        run = run_named(small_config(tmp_path), f"auto-{kind}")
        given = run_named(small_config(tmp_path, engine={"kind": kind}), f"given-{kind}")
        marks = [read_done(c.run_dir / "stages" / "draw") for c in (run, given)]
        assert marks[0].fingerprint == marks[1].fingerprint
        assert [m.settings["engine.kind"] for m in marks] == [kind, kind]
        assert marks[0].counts == {f"is_{kind}": 1}
        assert marks[1].engine == ""
        assert marks[0].engine == (
            "torch, since vLLM is not installed"
            if kind == "torch"
            else "vllm, since it is installed, and the model, on a GPU, has 1.12M weights"
        )
        assert read_done(run.run_dir / "stages" / "judge").engine == ""
        # The run's models may be used elsewhere, so its settings still say auto.
        assert load_config(run.run_dir / "config.yaml").engine == AutoEngineSettings()


def test_a_run_keeps_the_kind_that_its_stages_were_drawn_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "LARGE", 0)
    config = small_config(tmp_path)
    for first, vllm in (("torch", False), ("vllm", True)):
        pretend(monkeypatch, vllm=vllm)
        run = run_named(config, first)
        pretend(monkeypatch, vllm=not vllm)
        plans = run_stages(drawing_stages(), run, dry_run=True)
        assert [plan.state for plan in plans] == ["reused", "reused"]
        assert engine_note(run) == f"engine: {first}, since stages of this run were drawn with it"
        other = small_config(tmp_path, name=first, engine={"kind": "ray", "workers": 1})
        assert engine_note(other) == "engine: ray, as engine.kind says"


def test_a_run_of_before_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its marks note torch, which was the default, and no reason."""
    run_named(small_config(tmp_path, engine={"kind": "torch"}), "before")
    pretend(monkeypatch)
    monkeypatch.setattr(auto, "LARGE", 0)
    plans = plan_stages(drawing_stages(), small_config(tmp_path, name="before"))
    assert [plan.state for plan in plans] == ["reused", "reused"]
    assert stage_engines(plans, tmp_path / "before") == ["torch: draw"]


def test_show_and_dry_run_name_the_engine_and_why(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    assert engine_note(config) == "engine: torch, since vLLM is not installed"
    run = run_named(config, "shown")
    plans = plan_stages(drawing_stages(), run)
    assert stage_engines(plans, run.run_dir) == ["torch, since vLLM is not installed: draw"]


def test_an_option_that_does_not_fit_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    config = small_config(tmp_path, engine={"gpu_memory": 0.5})
    with pytest.raises(ConfigError, match=r"engine\.gpu_memory: 0\.5 is for engines of kind vllm"):
        run_stages(drawing_stages(), config)
    assert not config.run_dir.exists()


def test_a_model_alone_is_opened_with_the_engine_for_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import fake_vllm

    folder = saved_model(tmp_path / "model")
    with open_engine(folder, EngineSettings(device="cpu")) as engine:
        assert engine.backend.split()[0] in ("native", "paged")
    pretend(monkeypatch)
    fake_vllm.install(monkeypatch)
    assert chosen_for(folder, EngineSettings()) == TorchEngineSettings()
    monkeypatch.setattr(auto, "LARGE", 1000)
    with open_engine(folder, EngineSettings(gpu_memory=0.5)) as engine:
        assert engine.backend == "vllm"
        assert fake_vllm.LLMEngine.made.args.gpu_memory_utilization == 0.5
    with pytest.raises(ConfigError, match=r"set engine\.kind=torch"):
        open_engine(folder, EngineSettings(quantization="int8"))
