"""The torch engine against `transformers.generate`, and against itself: alone, in any batch, in any
order.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from transformers import (
    Mamba2Config,
    MambaConfig,
    PreTrainedConfig,
    RecurrentGemmaConfig,
    RwkvConfig,
)

from glore.config import EngineSettings
from glore.engines.local.engine import TorchEngine
from glore.engines.local.scorer import StepScorer
from glore.engines.open import open_engine
from glore.engines.protocol import Request, Result, SamplingParams
from glore.errors import EngineError, ModelError
from glore.seeds import stable_seed
from support.tiny_models import (
    ARCHITECTURES,
    LLAMA_LIKE,
    VOCAB,
    tiny_lm,
    tiny_step_model,
    tiny_tokenizer,
)

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=20)
WARM = SamplingParams(temperature=1.0, max_new_tokens=25)


def prompts(n: int, seed: int = 0, longest: int = 30) -> list[str]:
    rng = random.Random(seed)
    return [
        " ".join(f"w{rng.randrange(3, VOCAB)}" for _ in range(rng.randint(1, longest)))
        for _ in range(n)
    ]


def requests(n: int, k: int, params: SamplingParams = WARM) -> list[Request]:
    return [
        Request(f"r{i}", (text,), tuple(stable_seed(i, j) for j in range(k)), params)
        for i, text in enumerate(prompts(n))
    ]


def texts(results: list[Result]) -> dict[str, tuple[str, ...]]:
    return {r.request.id: tuple(c.text for c in r.completions) for r in results}


def generated(architecture: str, text: str, params: SamplingParams) -> list[int]:
    ids = tiny_tokenizer()(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        out = tiny_lm(architecture).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=params.max_new_tokens,
            pad_token_id=0,
        )
    return [int(t) for t in out[0, ids.shape[1] :]]


@pytest.mark.parametrize("architecture", sorted(LLAMA_LIKE))
def test_greedy_equals_generate_on_64_prompts(architecture: str) -> None:
    """In float32, `generate` with one prompt after the other, the engine with all in one batch."""
    tokenizer = tiny_tokenizer()
    engine = TorchEngine.of(tiny_lm(architecture), tokenizer, max_rows=64)
    assert engine.packed
    items = requests(64, 1, dataclasses.replace(GREEDY, max_new_tokens=12))
    got = {r.request.id: r.completions[0].text for r in engine.run(items)}
    expected = {
        item.id: tokenizer.decode(
            generated(architecture, item.segments[0], item.params), skip_special_tokens=True
        )
        for item in items
    }
    assert got == expected
    assert len(set(expected.values())) > 10


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_greedy_equals_generate_token_for_token(architecture: str) -> None:
    tokenizer = tiny_tokenizer()
    engine = TorchEngine.of(tiny_lm(architecture), tokenizer, max_rows=4)
    assert engine.packed == (architecture != "bloom")
    items = requests(9, 1, GREEDY)
    got = {r.request.id: r.completions[0] for r in engine.run(items)}
    for item in items:
        expected = generated(architecture, item.segments[0], GREEDY)
        completion = got[item.id]
        assert completion.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert completion.n_tokens == len(expected)
        assert completion.stop == ("eos" if expected[-1] == 1 else "length")


RECURRENT: dict[str, PreTrainedConfig] = {
    "mamba": MambaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        state_size=4,
        num_hidden_layers=2,
        eos_token_id=1,
        pad_token_id=0,
    ),
    "mamba2": Mamba2Config(
        vocab_size=VOCAB,
        hidden_size=32,
        num_heads=8,
        head_dim=8,
        state_size=8,
        n_groups=1,
        num_hidden_layers=2,
        eos_token_id=1,
        chunk_size=16,
    ),
    "rwkv": RwkvConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, context_length=128, eos_token_id=1
    ),
    "recurrent_gemma": RecurrentGemmaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        lru_width=32,
        eos_token_id=1,
    ),
}


@pytest.mark.parametrize("architecture", ["mamba", "mamba2"])
def test_recurrent_states_give_generates_tokens_in_any_batch(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, architecture, lambda: RECURRENT[architecture])
    # Prompts of one length share a wave, those of others don't.
    items = [
        Request(f"{n}/{i}", (text,), (i,), GREEDY)
        for n in (1, 3, 18)
        for i, text in enumerate(of_length(3, n))
    ]
    expected = {
        item.id: (
            tiny_tokenizer().decode(
                generated(architecture, item.segments[0], GREEDY), skip_special_tokens=True
            ),
        )
        for item in items
    }
    for max_rows in (2, 8):
        engine = TorchEngine.of(tiny_lm(architecture), tiny_tokenizer(), max_rows=max_rows)
        assert not engine.packed
        assert texts(list(engine.run(items))) == expected
    assert len(set(expected.values())) > 3


def of_length(n: int, length: int) -> list[str]:
    rng = random.Random(length)
    return [" ".join(f"w{rng.randrange(3, VOCAB)}" for _ in range(length)) for _ in range(n)]


@pytest.mark.parametrize("architecture", ["rwkv", "recurrent_gemma"])
def test_a_model_whose_cache_is_not_known_is_refused_at_once(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, architecture, lambda: RECURRENT[architecture])
    with pytest.raises(
        ModelError,
        match=r"ForCausalLM returns no cache that glore knows .*past_key_values or cache_params",
    ):
        TorchEngine.of(tiny_lm(architecture), tiny_tokenizer())


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "bloom"])
@pytest.mark.parametrize("k", [1, 5])
def test_a_completion_does_not_depend_on_batch_size_or_order(architecture: str, k: int) -> None:
    model, tokenizer = tiny_lm(architecture), tiny_tokenizer()
    items = requests(14, k)
    reference = texts(list(TorchEngine.of(model, tokenizer, max_rows=1).run(items)))
    for max_rows, shuffled in ((3, False), (16, True), (200, False)):
        order = random.Random(max_rows).sample(items, len(items)) if shuffled else items
        assert (
            texts(list(TorchEngine.of(model, tokenizer, max_rows=max_rows).run(order))) == reference
        )
    assert len(reference) == 14
    if k > 1:
        assert any(len(set(t)) > 1 for t in reference.values())


def test_requests_of_many_sizes_and_params_share_a_batch() -> None:
    model, tokenizer = tiny_lm(), tiny_tokenizer()
    rng = random.Random(5)
    items = [
        Request(
            f"m{i}",
            (text,),
            tuple(stable_seed("m", i, j) for j in range(rng.choice([0, 1, 2, 7, 12]))),
            SamplingParams(
                rng.choice([0.0, 0.5, 1.0]),
                rng.choice([1.0, 0.8]),
                rng.choice([0, 4]),
                rng.choice([1, 3, 30]),
            ),
        )
        for i, text in enumerate(prompts(20, seed=9))
    ]
    alone = texts(
        [r for item in items for r in TorchEngine.of(model, tokenizer, max_rows=16).run([item])]
    )
    together = list(TorchEngine.of(model, tokenizer, max_rows=10).run(iter(items)))
    assert texts(together) == alone
    for result in together:
        assert [c.seed for c in result.completions] == list(result.request.seeds)
        for completion in result.completions:
            assert completion.stop in ("eos", "length")
            assert 1 <= completion.n_tokens <= result.request.params.max_new_tokens


def test_follow_ups_join_the_running_batch_and_equal_requests_of_their_own() -> None:
    model, tokenizer = tiny_lm(), tiny_tokenizer()
    words = prompts(6, longest=12)

    def request(i: int, kept: int) -> Request:
        return Request(
            f"{i}:{kept}",
            (" ".join(words[i].split()[:kept]),),
            (stable_seed(i, kept, 0), stable_seed(i, kept, 1)),
            WARM,
        )

    def backwards(result: Result) -> list[Request]:
        i, kept = map(int, result.request.id.split(":"))
        return [request(i, kept - 1)] if kept > 1 else []

    first = [request(i, len(text.split())) for i, text in enumerate(words)]
    chained = texts(list(TorchEngine.of(model, tokenizer, max_rows=6).run(first, backwards)))
    every = [
        request(i, kept) for i, text in enumerate(words) for kept in range(1, len(text.split()) + 1)
    ]
    assert chained == texts(list(TorchEngine.of(model, tokenizer, max_rows=32).run(every)))


def test_the_source_is_read_lazily() -> None:
    engine = TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows=4)
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Request(str(taken), (f"w{3 + taken % 50}",), (taken,), WARM)

    stream = engine.run(endless())
    for _ in range(10):
        next(stream)
    stream.close()
    assert taken <= 10 + 5 * 4


def test_length_stops_at_the_context_and_a_full_prompt_is_refused() -> None:
    engine = TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows=4)
    long = " ".join(["w5"] * 126)
    (result,) = engine.run(
        [Request("long", (long,), tuple(range(8)), SamplingParams(max_new_tokens=50))]
    )
    assert all(c.n_tokens <= 2 for c in result.completions)
    with pytest.raises(EngineError, match=r"'full'.* 128 tokens .*context is 128"):
        list(engine.run([Request("full", (long + " w5 w5",), (1,), WARM)]))
    with pytest.raises(EngineError, match=r"'none'.*empty"):
        list(engine.run([Request("none", ("",), (1,), WARM)]))


def test_broken_weights_are_an_error_and_not_nonsense() -> None:
    model = tiny_lm()
    engine = TorchEngine.of(model, tiny_tokenizer(), max_rows=4)
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    with pytest.raises(EngineError, match="NaN"):
        list(engine.run(requests(1, 1)))


def test_an_engine_opens_a_folder_and_leaves_no_special_tokens_in_texts(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_lm("mistral")
    with torch.no_grad():
        model.lm_head.weight[2] *= 3  # makes [BAD] (id 2) a token that is drawn
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    items = requests(12, 3)
    engine = open_engine(tmp_path, EngineSettings(device="cpu", max_rows=8))
    results = list(engine.run(items))
    assert texts(results) == texts(list(TorchEngine.of(model, tokenizer, max_rows=5).run(items)))
    completions = [c for r in results for c in r.completions]
    assert all("[BAD]" not in c.text and "<eos>" not in c.text for c in completions)
    assert any(len(c.text.split()) + (c.stop == "eos") < c.n_tokens for c in completions)


def test_scoring_a_saved_model(tmp_path: Path) -> None:
    tokenizer, model = tiny_tokenizer(), tiny_step_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    items = [("w3 w4", ("w5 w6", "w7")), ("w8", ())]
    assert StepScorer(tmp_path, EngineSettings(device="cpu")).score(items) == StepScorer.of(
        model, tokenizer
    ).score(items)
