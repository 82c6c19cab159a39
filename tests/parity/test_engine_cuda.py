"""The GPU backend on a CPU: its kernels in Triton's interpreter, its steps call by call. It gives
the same texts as the other backends.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_engine_tree import prefixes

from support import triton_here  # noqa: F401  # before the kernels are imported

# isort: split
from glore.engines.local.cuda import decoder as decoder_module
from glore.engines.local.cuda.decoder import Decoder
from glore.engines.local.engine import TorchEngine
from glore.engines.local.runner import ModelRunner
from glore.engines.local.scorer import StepScorer
from glore.engines.protocol import SamplingParams
from glore.errors import EngineError
from support.tiny_models import tiny_lm, tiny_step_model, tiny_tokenizer

# Of numpy before 2 and Triton's interpreter.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
PARAMS = SamplingParams(temperature=0.0, max_new_tokens=4)


def cuda_engine(architecture: str, backend: str = "cuda", **options: int) -> TorchEngine:
    engine = TorchEngine.of(tiny_lm(architecture), tiny_tokenizer(), backends=(backend,), **options)
    assert engine.runner.backend == backend, engine.runner.reason
    return engine


@pytest.fixture(scope="module")
def llama() -> TorchEngine:
    """One for all tests: the interpreter takes seconds for the start-up check."""
    return cuda_engine("llama", max_rows=6)


def drawn(engine: TorchEngine, params: SamplingParams, k: int = 1) -> dict[str, tuple]:
    return {r.request.id: r.completions for r in engine.run(prefixes(2, params, k)[:6])}


def paged(params: SamplingParams, k: int = 1, architecture: str = "llama") -> dict[str, tuple]:
    return drawn(
        TorchEngine.of(tiny_lm(architecture), tiny_tokenizer(), backends=("paged",)), params, k
    )


def test_greedy_texts_are_those_of_the_paged_way(llama: TorchEngine) -> None:
    expected = paged(PARAMS)
    assert drawn(llama, PARAMS) == expected
    assert drawn(llama, PARAMS) == expected, "pages and inputs are used again by the next run"


@pytest.mark.slow
def test_windows_and_soft_caps_reach_the_kernels() -> None:
    engine = cuda_engine("gemma2", "cuda-layers")
    assert drawn(engine, PARAMS) == paged(PARAMS, architecture="gemma2")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "mistral"])
def test_kin_of_llama_have_a_forward_pass_of_our_own(architecture: str) -> None:
    """Biases, norms of queries and keys, and windows reach the kernels."""
    assert drawn(cuda_engine(architecture), PARAMS) == paged(PARAMS, architecture=architecture)


def test_others_keep_their_own_layers() -> None:
    runner = ModelRunner(tiny_lm("phi3"), ("cuda", "cuda-layers"))
    assert runner.backend == "cuda-layers"
    assert runner.refusals == {"cuda": "phi3 models"}
    assert runner.warning == "", "that is no fault"


def test_no_weight_is_held_twice_and_what_is_written_to_one_is_used(tmp_path: Path) -> None:
    model = tiny_lm("llama")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    n_bytes = sum(p.nbytes for p in model.parameters())
    decoder = Decoder(model)
    again = Decoder(model)
    for one, other in zip(decoder.layers, again.layers, strict=True):
        assert one.qkv.data_ptr() == other.qkv.data_ptr(), "a second engine uses the same memory"
        assert one.gate_up.data_ptr() == other.gate_up.data_ptr()
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in model.parameters()}
    assert sum(s.nbytes() for s in storages.values()) == n_bytes
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    attention = model.base_model.layers[0].self_attn
    with torch.no_grad():
        attention.v_proj.weight.fill_(7.0)
    n_values = attention.v_proj.weight.shape[0]
    assert (decoder.layers[0].qkv[-n_values:] == 7).all()
    model.save_pretrained(tmp_path)
    saved = type(model).from_pretrained(tmp_path)
    assert torch.equal(saved.base_model.layers[0].self_attn.v_proj.weight, attention.v_proj.weight)


def test_layers_that_are_not_plain_are_refused() -> None:
    model = tiny_lm("llama")
    attention = model.base_model.layers[1].self_attn

    class Adapted(torch.nn.Linear):
        pass

    attention.q_proj = Adapted(*attention.q_proj.weight.shape[::-1], bias=False)
    with pytest.raises(NotImplementedError, match=r"layers.1.self_attn.q_proj of the type Adapted"):
        Decoder(model)


def test_positions_beyond_those_at_hand_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = paged(PARAMS)
    monkeypatch.setattr(decoder_module, "_POSITIONS", 2)
    assert drawn(cuda_engine("llama", max_rows=6), PARAMS) == expected


def test_siblings_are_drawn_with_their_own_seeds_and_tell_their_probabilities(
    llama: TorchEngine,
) -> None:
    warm = dataclasses.replace(PARAMS, temperature=0.9, logprobs=True)
    got = drawn(llama, warm, k=2)
    for name, completions in paged(warm, k=2).items():
        assert [c.text for c in got[name]] == [c.text for c in completions]
        for one, other in zip(got[name], completions, strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_filtered_drawing_is_that_of_torch(llama: TorchEngine) -> None:
    some = dataclasses.replace(PARAMS, temperature=1.0, top_k=5, top_p=0.8)
    assert drawn(llama, some) == paged(some)


def test_a_few_pages_are_enough(llama: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "n_pages", 11)
    assert drawn(llama, PARAMS) == paged(PARAMS)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy, at infinities
def test_logits_that_are_not_finite_end_the_run_with_one_line(llama: TorchEngine) -> None:
    head = llama.model.get_output_embeddings().weight
    before = head.detach().clone()
    with torch.no_grad():
        head[7] = float("nan")
    with pytest.raises(EngineError, match="NaN or infinite"):
        drawn(llama, PARAMS)
    with torch.no_grad():
        head.copy_(before)
    assert drawn(llama, PARAMS) == paged(PARAMS)


def test_scores_are_those_of_a_pass_a_solution() -> None:
    items = [
        ("w3 w4 w5", ("w6 w7", "w8 w9 w10")),
        ("w3 w4 w5", ("w6 w7", "w11")),
        ("w20", ("w21 w22",)),
    ]
    scorer = StepScorer.of(tiny_step_model("qwen2"), tiny_tokenizer(), backends=("cuda",))
    assert scorer.backend == "cuda float32"
    expected = StepScorer.of(
        tiny_step_model("qwen2"), tiny_tokenizer(), backends=("fallback",)
    ).score(items)
    for got, one in zip(scorer.score(items), expected, strict=True):
        np.testing.assert_allclose(got, one, atol=1e-5)


def test_a_cpu_takes_the_interpreter_only_if_asked() -> None:
    runner = ModelRunner(tiny_lm("llama"))
    assert runner.backend in ("native", "paged")
    assert runner.refusals["cuda"] == "the model is on a CPU"
