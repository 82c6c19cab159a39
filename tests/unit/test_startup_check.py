"""The start-up check: bfloat16 is not mistaken for a fault, and a fault is found in bfloat16, on
logits of real models' scale.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
)

import glore.engines.local.runner
import glore.engines.local.startup_check
from glore.config import EngineSettings
from glore.engines.local import attention
from glore.engines.local.batch import Batch
from glore.engines.local.runner import ModelRunner
from glore.engines.local.startup_check import Expected, expected_logits, fault
from glore.engines.open import open_engine
from glore.engines.protocol import Request, SamplingParams
from support.tiny_models import llama_like, tiny_lm, tiny_step_model, tiny_tokenizer

CONFIGS = llama_like(vocab=211, hidden=64, inner=96, n_layers=3)
NATIVE = ("llama", "qwen2", "qwen3", "mistral")
SPREAD = 3.0
"""Standard deviation of SmolLM2-135M's logits."""


def realistic(architecture: str, dtype: torch.dtype, seed: int = 0) -> PreTrainedModel:
    """A random model that attends to more than one token and whose logits have a real model's
    scale.
    """
    torch.manual_seed(seed)
    config = CONFIGS[architecture]()
    if getattr(config, "attn_logit_softcapping", None):  # as glore loads it
        config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name and "lm_head" not in name:
                weight.mul_(4.0)
        ids = torch.arange(3, 90)[None]
        spread = float(model(input_ids=ids, use_cache=False).logits.std())
        final = (
            model.base_model.final_layernorm if architecture == "phi" else model.base_model.norm
        ).weight
        # Gemma's norms multiply by one more than their weight.
        final.copy_(
            (1 + final) * SPREAD / spread - 1
            if architecture.startswith("gemma")
            else final * SPREAD / spread
        )
    return model.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_right_way_is_taken_in_every_type(architecture: str, dtype: torch.dtype) -> None:
    for seed in range(3):
        runner = ModelRunner(realistic(architecture, dtype, seed))
        if architecture in NATIVE and glore.engines.local.runner.library() is not None:
            assert runner.backend == "native", runner.reason
        else:
            assert runner.backend == "paged", runner.reason


def test_float16_on_a_cpu_is_drawn_from_in_float32(tmp_path: Path) -> None:
    tiny_lm("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    asked = [Request("a", ("w5 w6 ",), (1, 2), SamplingParams(max_new_tokens=5))]
    with open_engine(tmp_path, EngineSettings(device="cpu", dtype="float16")) as engine:
        compiled = glore.engines.local.runner.library() is not None
        assert engine.backend == ("native float32" if compiled else "paged float16")
        assert all(c.n_tokens for result in engine.run(asked) for c in result.completions)


def test_a_step_model_in_bfloat16_keeps_the_engine() -> None:
    assert ModelRunner(tiny_step_model("llama").to(torch.bfloat16)).backend != "fallback"


def of_step(**changes: Callable[[Batch], object]) -> Callable[[pytest.MonkeyPatch], None]:
    """A decode step some of whose inputs are wrong."""
    single = glore.engines.local.startup_check._single

    def plant(patch: pytest.MonkeyPatch) -> None:
        def faulty(*args: object) -> Batch:
            batch = single(*args)  # type: ignore[arg-type]
            return dataclasses.replace(
                batch, **{name: change(batch) for name, change in changes.items()}
            )

        patch.setattr(glore.engines.local.startup_check, "_single", faulty)

    return plant


def of_attention(**changes: Callable[[object], object]) -> Callable[[pytest.MonkeyPatch], None]:
    """An attention that gets a wrong argument in every layer."""
    attend = attention.ForwardContext.attend

    def plant(patch: pytest.MonkeyPatch) -> None:
        def faulty(self, layer, q, k, v, scaling, window, softcap):  # type: ignore[no-untyped-def]
            given = {"scaling": scaling, "window": window, "softcap": softcap}
            given |= {name: change(given[name]) for name, change in changes.items()}
            return attend(self, layer, q, k, v, **given)

        patch.setattr(attention.ForwardContext, "attend", faulty)

    return plant


FAULTS = {
    "positions off by one": of_step(positions=lambda b: b.positions + 1),
    "a page too few": of_step(n_pages=lambda b: b.n_pages * 0 + 1),
    "the last page's neighbour": of_step(table=lambda b: b.table[:, ::-1].copy()),
    "a token of the last page hidden": of_step(n_last=lambda b: (b.n_last - 2).clip(1)),
    "no scaling": of_attention(scaling=lambda s: 1.0),
    "scaling of another head size": of_attention(scaling=lambda s: s * 0.7),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2", "gemma3", "phi3"])
def test_a_planted_fault_is_found_in_bfloat16(
    architecture: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = realistic(architecture, torch.bfloat16)
    assert ModelRunner(model, ("paged",)).backend == "paged"
    FAULTS[fault](monkeypatch)
    runner = ModelRunner(realistic(architecture, torch.bfloat16), ("paged",))
    assert runner.backend == "fallback"
    assert "from float32" in runner.reason


@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "gemma3"])
def test_a_missing_window_is_found_in_bfloat16(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_attention(window=lambda w: None)(monkeypatch)
    assert ModelRunner(realistic(architecture, torch.bfloat16), ("paged",)).backend == "fallback"


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_the_reference_is_the_float32_model_and_leaves_the_weights_alone(architecture: str) -> None:
    model = realistic(architecture, torch.bfloat16)
    before = {name: (p.data_ptr(), p.dtype, p.clone()) for name, p in model.named_parameters()}
    got = expected_logits(model).reference
    for name, p in model.named_parameters():
        assert (p.data_ptr(), p.dtype) == before[name][:2]
        assert torch.equal(p, before[name][2])
    exact = expected_logits(realistic(architecture, torch.bfloat16).float()).reference
    for one, other in zip(got, exact, strict=True):
        # Gemma multiplies its embeddings by a number that is rounded to the model's type.
        torch.testing.assert_close(
            one, other, rtol=0.02, atol=0.1 if architecture == "gemma3" else 1e-4
        )


def test_a_fallback_is_warned_of_once_with_reason_and_cost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    realistic("llama", torch.bfloat16).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    settings = EngineSettings(device="cpu", dtype="bfloat16")
    FAULTS["no scaling"](monkeypatch)
    monkeypatch.setattr(glore.engines.local.runner, "library", lambda: None)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with open_engine(tmp_path, settings) as engine:
                runner, backend = engine.runner, engine.backend
    (record,) = caplog.records
    assert backend == f"fallback bfloat16 ({runner.reason})"
    assert runner.warning == record.message
    assert "fallback backend" in record.message
    assert "many times slower" in record.message
    assert "from float32" in record.message
    assert runner.refusals["paged"] in record.message
    assert runner.refusals["native"].startswith("there is no compiled code")
    assert "cuda" not in record.message, "what a GPU would take explains nothing on a CPU"


@pytest.mark.parametrize(("architecture", "warns"), [("llama", True), ("gemma2", False)])
def test_a_machine_without_a_compiler_is_warned_of_what_it_costs(
    monkeypatch: pytest.MonkeyPatch, architecture: str, warns: bool
) -> None:
    """Where the compiled code would have been used. Who switched it off is not told again."""
    monkeypatch.setattr(glore.engines.local.runner, "library", lambda: None)
    monkeypatch.setenv("GLORE_NATIVE", "1")
    runner = ModelRunner(tiny_lm(architecture), ("native", "paged"))
    assert runner.backend == "paged"
    assert bool(runner.warning) == warns
    if warns:
        assert "paged backend, several times slower" in runner.warning
        assert "install one" in runner.warning
    monkeypatch.setenv("GLORE_NATIVE", "0")
    assert not ModelRunner(tiny_lm(architecture), ("native", "paged")).warning


def test_a_model_read_in_pages_before_is_checked_again() -> None:
    model = tiny_lm("gemma2")
    assert ModelRunner(model, ("paged",)).backend == "paged"
    assert ModelRunner(model, ("paged",)).backend == "paged"


@pytest.mark.parametrize(
    ("shares", "is_refused"),
    [
        ([0.14] * 20 + [0.34], False),  # SmolLM2-135M in int8
        ([0.35] * 20, True),
        ([0.0] * 20 + [0.7], True),  # a mistake that one place alone shows
    ],
)
def test_products_of_integers_may_be_far_from_the_model_in_one_place(
    shares: list[float], is_refused: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(len(shares), 500, generator=generator) * SPREAD + 7
    noise = torch.randn(len(shares), 500, generator=generator)
    centred = reference - reference.mean(-1, keepdim=True)
    size = torch.tensor(shares)[:, None] * centred.norm(dim=-1, keepdim=True)
    got = reference + noise / noise.norm(dim=-1, keepdim=True) * size
    found = {(0, place): [row] for place, row in enumerate(got)}
    expected = Expected([reference], [reference])
    said = fault(found, expected, "int8", is_exact=False)
    assert (said is not None) == is_refused, said
