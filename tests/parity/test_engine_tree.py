"""Requests that share prefixes: the same texts as `generate` and as requests of their own, each
token computed once, memory bounded.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import glore.engines.local.runner
import glore.engines.local.startup_check
from glore.config.engine import Quantization
from glore.engines.local.attention import KVCache
from glore.engines.local.batch import Batch, prompt_batches
from glore.engines.local.engine import TorchEngine
from glore.engines.local.prefix_tree import PAGE_SIZE, PrefixTree, cut
from glore.engines.local.runner import ModelRunner
from glore.engines.local.scheduler import Scheduler
from glore.engines.protocol import Request, Result, SamplingParams
from glore.engines.requests import run_requests
from glore.errors import EngineError
from glore.seeds import stable_seed
from support.tiny_models import ARCHITECTURES, VOCAB, llama_like, tiny_lm, tiny_tokenizer

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=20)
WARM = SamplingParams(temperature=1.0, max_new_tokens=25)
NATIVE = ("llama", "mistral", "qwen2", "qwen3")
BACKENDS = [(a, "native") for a in NATIVE] + [
    (a, backend) for a in sorted(ARCHITECTURES) if a != "bloom" for backend in ("paged", "torch")
]


def engine_of(
    architecture: str, backend: str, monkeypatch: pytest.MonkeyPatch, **options: int
) -> TorchEngine:
    """`torch`: the paged backend without compiled code."""
    if backend == "torch":
        monkeypatch.setattr(glore.engines.local.runner, "library", lambda: None)
    elif glore.engines.local.runner.library() is None:
        pytest.skip("no C compiler here, or switched off")
    engine = TorchEngine.of(
        tiny_lm(architecture),
        tiny_tokenizer(),
        backends=("native",) if backend == "native" else ("paged",),
        **options,
    )
    assert engine.runner.backend == ("native" if backend == "native" else "paged")
    return engine


def prefixes(n_questions: int, params: SamplingParams, k: int = 1, seed: int = 0) -> list[Request]:
    """Every prefix of two drafts of each question; one question in three stands alone."""
    rng = random.Random(seed)

    def words(longest: int) -> str:
        return " ".join(f"w{rng.randrange(3, VOCAB)}" for _ in range(rng.randint(1, longest)))

    items = []
    for q in range(n_questions):
        head = words(40)
        for d in range(2 if q % 3 else 1):
            steps = [words(18) for _ in range(3 if q % 3 else 0)]
            for i in range(len(steps) + 1):
                seeds = tuple(stable_seed(q, d, i, j) for j in range(k))
                items.append(Request(f"{q}/{d}/{i}", (head, *steps[:i]), seeds, params))
    return items


def texts(results: list[Result]) -> dict[str, tuple[str, ...]]:
    return {r.request.id: tuple(c.text for c in r.completions) for r in results}


@pytest.mark.parametrize(("architecture", "backend"), BACKENDS)
def test_greedy_with_shared_prefixes_equals_generate(
    architecture: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = prefixes(3, GREEDY)
    got = texts(list(engine_of(architecture, backend, monkeypatch, max_rows=7).run(items)))
    tokenizer, model = tiny_tokenizer(), tiny_lm(architecture)
    for item in items:
        ids = tokenizer(" ".join(item.segments), return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=20,
                pad_token_id=0,
            )
        assert got[item.id][0] == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("architecture", "backend"), [("llama", "native"), ("gemma2", "paged"), ("qwen2", "torch")]
)
def test_a_completion_is_the_same_alone_in_any_batch_and_with_little_memory(
    architecture: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = prefixes(5, WARM, k=4)
    alone = texts(
        [
            r
            for item in items
            for r in engine_of(architecture, backend, monkeypatch, max_rows=1).run([item])
        ]
    )
    for max_rows, shuffled, cache_tokens in ((16, False, 4096), (200, True, 4096), (16, True, 200)):
        order = random.Random(max_rows).sample(items, len(items)) if shuffled else items
        engine = engine_of(
            architecture, backend, monkeypatch, max_rows=max_rows, cache_tokens=cache_tokens
        )
        assert texts(list(engine.run(order))) == alone
    assert any(len(set(t)) > 1 for t in alone.values())


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [("float32", "none"), ("bfloat16", "none"), ("float32", "int16"), ("float32", "int8")],
)
@pytest.mark.parametrize("architecture", NATIVE)
def test_log_probabilities_are_the_same_bits_in_any_batch(
    architecture: str, dtype: str, quantization: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the compiled code: the order of a sum depends on the text alone, not on the batch."""
    engine_of(architecture, "native", monkeypatch)

    def model() -> PreTrainedModel:
        """Where tiny Llamas share key heads between query heads, this one has one of its own for
        each.
        """
        config = ARCHITECTURES[architecture]()
        if architecture == "llama":
            config.num_key_value_heads = config.num_attention_heads
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))

    try:
        engines = [
            TorchEngine.of(model(), tiny_tokenizer(), n, quantization=quantization)
            for n in (1, 5, 64)
        ]
    except EngineError:
        pytest.skip("products of integers need AVX512-VNNI and a C compiler")
    items = prefixes(4, dataclasses.replace(WARM, logprobs=True, temperature=0.3), k=3)
    found = [
        {
            (r.request.id, k): (c.text, c.logprobs)
            for r in results
            for k, c in enumerate(r.completions)
        }
        for results in (
            *(engine.run(items) for engine in engines),
            (r for item in items for r in engines[2].run([item])),
        )
    ]
    assert found[0] == found[1] == found[2] == found[3]
    assert all(logprobs for _, logprobs in found[0].values())


def test_every_token_is_computed_once_and_memory_stays_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = prefixes(6, WARM, k=3)
    engine = TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows=32, cache_tokens=8192)
    small = TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows=32, cache_tokens=192)
    distinct = {
        (item.segments[:i]): len(item.segments[i - 1].split())
        for item in items
        for i in range(1, len(item.segments) + 1)
    }
    forward, computed, sizes = ModelRunner.forward, [], set()

    def counted(self: ModelRunner, batch: Batch, cache: KVCache, *others: int) -> torch.Tensor:
        if batch.dependent:
            computed.append(int((batch.write_page >= 0).sum()))
        sizes.add(cache.n_pages)
        return forward(self, batch, cache, *others)

    monkeypatch.setattr(ModelRunner, "forward", counted)
    assert sum(1 for _ in engine.run(items)) == len(items)
    assert sum(computed) == sum(distinct.values())
    assert sum(len(" ".join(r.segments).split()) for r in items) > 2 * sum(computed)

    computed.clear()
    sizes.clear()
    scheduler = small.scheduler()
    assert isinstance(scheduler, Scheduler)
    for _ in run_requests(scheduler, items):
        assert 0 <= scheduler.tree.n_available <= scheduler.tree.n_pages == 12
    assert scheduler.tree.n_available == 12  # nothing is held when all is done
    assert sum(computed) > sum(distinct.values())  # some were evicted and computed again
    assert sizes == {12}


def test_out_of_memory_shrinks_the_batch_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = prefixes(4, WARM, k=4)
    engine = TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows=16)
    expected = texts(list(engine.run(items)))
    forward, calls, sizes = ModelRunner.forward, Counter[str](), []

    def failing(self: ModelRunner, batch, store, n_threads: int = 1):
        calls["forward"] += 1
        if calls["forward"] in (1, 9, 40):
            raise (
                MemoryError
                if calls["forward"] == 9
                else RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …")
            )
        sizes.append(batch.selected.size)
        return forward(self, batch, store, n_threads)

    monkeypatch.setattr(ModelRunner, "forward", failing)
    assert texts(list(engine.run(items))) == expected
    assert max(sizes[60:]) <= 2

    def never(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ModelRunner, "forward", never)
    with pytest.raises(EngineError, match="not enough memory"):
        list(engine.run(items))


def test_layers_of_an_unknown_type_are_read_by_the_fallback() -> None:
    """Llama 4 attends in chunks, which a text shorter than a chunk does not show."""
    model = tiny_lm("llama")
    assert ModelRunner(model).backend != "fallback"
    model = tiny_lm("llama")
    model.config.layer_types = ["chunked_attention"] * model.config.num_hidden_layers
    assert ModelRunner(model).backend == "fallback"


@pytest.mark.parametrize("architecture", NATIVE)
def test_bfloat16_products_stay_near_the_models_distribution(architecture: str) -> None:
    """At most 3 % of the probability moves, 1 % on average, against the same weights computed in
    float32 throughout.
    """
    half = ModelRunner(tiny_lm(architecture).to(torch.bfloat16), ("native",))
    if half.backend != "native" or half.products != "bfloat16":
        pytest.skip("no bfloat16 products on this processor")
    exact = ModelRunner(tiny_lm(architecture).to(torch.bfloat16).float(), ("native",))
    assert exact.products == "float32"
    most, mean = moved_probability(half, exact)
    assert 0 < most < 0.03
    assert mean < 0.01


@pytest.mark.parametrize(("quantization", "bound"), [("int16", 0.001), ("int8", 0.02)])
@pytest.mark.parametrize("architecture", NATIVE)
def test_products_of_integers_stay_near_the_models_distribution(
    architecture: str, quantization: Quantization, bound: float
) -> None:
    """At most so much of the probability moves."""
    quantized = ModelRunner(tiny_lm(architecture), ("native",), quantization)
    if quantized.products != quantization:
        pytest.skip("products of integers need AVX512-VNNI and a C compiler")
    most, _ = moved_probability(quantized, ModelRunner(tiny_lm(architecture), ("native",)))
    assert 0 < most < bound


@pytest.mark.parametrize(("inner", "bound"), [(256, 0.014), (40, 0.02)])
def test_a_few_large_channels_cost_int8_little(inner: int, bound: float) -> None:
    """As real models have them, in hidden states and in the inputs of `down`. Without rotations,
    the means were 0.017 and 0.029.
    """
    torch.manual_seed(0)
    config = llama_like(VOCAB, hidden=128, inner=inner, n_layers=2)["llama"]()
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.5)
        model.get_input_embeddings().weight[:, 5].mul_(30)
        for layer in model.model.layers:
            layer.mlp.up_proj.weight[7].mul_(30)
    quantized = ModelRunner(model, ("native",), "int8")
    if quantized.products != "int8":
        pytest.skip("products of integers need AVX512-VNNI and a C compiler")
    _, mean = moved_probability(quantized, ModelRunner(model, ("native",)))
    assert mean < bound


def test_quantization_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        EngineError,
        match=r"engine.quantization int8 needs .* gpt2 model .* Leave engine.quantization out",
    ):
        TorchEngine.of(tiny_lm("gpt2"), tiny_tokenizer(), quantization="int8")
    with monkeypatch.context() as patch:
        patch.setattr(glore.engines.local.startup_check, "_INTEGERS_OVERALL", 1e-9)
        with pytest.raises(
            EngineError,
            match=r"int16 does not suit this llama model: its logits are .* of their spread from",
        ):
            TorchEngine.of(tiny_lm("llama"), tiny_tokenizer(), quantization="int16")
    monkeypatch.setattr(glore.engines.local.runner, "library", lambda: None)
    with pytest.raises(EngineError, match=r"needs a C compiler"):
        TorchEngine.of(tiny_lm("llama"), tiny_tokenizer(), quantization="int16")


def test_sums_of_integers_cannot_overflow_and_broken_numbers_show() -> None:
    """All weights and inputs as large as possible, of one sign. An input that is not finite."""
    config = ARCHITECTURES["llama"]()
    config.intermediate_size = 45  # not whole words, and not whole vectors
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "proj" in name:
                weight.fill_(0.01)
            elif "embed" in name:
                weight.fill_(1.0)
    runner, exact = ModelRunner(model, ("native",), "int16"), ModelRunner(model, ("native",))
    if runner.products != "int16":
        pytest.skip("products of integers need AVX512-VNNI and a C compiler")
    assert moved_probability(runner, exact)[0] < 1e-4
    with torch.no_grad():
        model.get_input_embeddings().weight[3] = float("nan")
    batch = one_prompt([3] * 5)
    for quantized in (runner, exact):
        assert quantized.forward(batch, quantized.new_kv_cache(8)).isnan().all()


def moved_probability(one: ModelRunner, other: ModelRunner) -> tuple[float, float]:
    """Total variation distance between the next tokens' distributions after 20 texts: the largest,
    and the mean.
    """
    rng = random.Random(1)
    moved = []
    for _ in range(20):
        batch = one_prompt([rng.randrange(VOCAB) for _ in range(rng.randint(1, 60))])
        probs = [
            torch.softmax(runner.forward(batch, runner.new_kv_cache(8))[0], -1)
            for runner in (one, other)
        ]
        moved.append(float((probs[0] - probs[1]).abs().sum() / 2))
    return max(moved), sum(moved) / len(moved)


def one_prompt(ids: list[int]) -> Batch:
    """A prompt that is read at once, its last token's logits wanted."""
    tree = PrefixTree(8)
    found = tree.acquire(cut([ids]))
    assert found is not None
    ((batch, _),) = prompt_batches(tree, found[1], [found[0]], 100)
    return batch


def test_a_prompt_that_can_never_fit_is_refused() -> None:
    engine = TorchEngine.of(tiny_lm(), tiny_tokenizer(), max_rows=4, cache_tokens=64)
    long = " ".join(["w4"] * 50)
    with pytest.raises(EngineError, match=r"'long'.* 50 tokens and 20 new ones .* 64 tokens"):
        list(engine.run([Request("long", (long,), (1,), GREEDY)]))


@pytest.mark.parametrize("shared", [False, True])
def test_samples_follow_the_models_distribution(shared: bool) -> None:
    """Chi-square over two drawn tokens, the prompt alone or in the company of its prefixes."""
    segments = ("w5 w9 w21", "w7 w33", "w40 w3")
    params = SamplingParams(max_new_tokens=2)
    request = Request("it", segments, tuple(stable_seed("chi", i) for i in range(6000)), params)
    company = (
        [Request(str(i), segments[:i], tuple(range(50)), params) for i in (1, 2)] if shared else []
    )
    engine = TorchEngine.of(tiny_lm("llama", seed=3), tiny_tokenizer(), max_rows=512)
    engine.texts = lambda rows: [" ".join(map(str, row)) for row in rows]  # type: ignore[method-assign]  # ids, special ones too
    results = {r.request.id: r for r in engine.run([*company, request])}
    drawn = [[int(t) for t in c.text.split()] for c in results["it"].completions]

    def check(counts: Counter[int], prefix: list[int]) -> None:
        with torch.inference_mode():
            probs = torch.softmax(
                tiny_lm("llama", seed=3)(input_ids=torch.tensor([prefix])).logits[0, -1].double(),
                -1,
            ).numpy()
        expected = probs * counts.total()
        seen = np.array([counts[i] for i in range(VOCAB)])
        likely = expected >= 5
        chi_square = float(((seen[likely] - expected[likely]) ** 2 / expected[likely]).sum())
        freedom = int(likely.sum())
        assert freedom > 3
        assert chi_square < freedom + 4.5 * (2 * freedom) ** 0.5 + 5  # far beyond 99.99 %

    ids = tiny_tokenizer()(" ".join(segments))["input_ids"]
    firsts = Counter(d[0] for d in drawn)
    check(firsts, ids)
    first = next(t for t, _ in firsts.most_common() if t != 1)
    check(Counter(d[1] for d in drawn if d[0] == first), [*ids, first])


def test_pages_are_as_large_as_native_code_thinks() -> None:
    source = (
        Path(glore.engines.local.runner.__file__)
        .with_name("native")
        .joinpath("forward.c")
        .read_text(encoding="utf-8")
    )
    assert f"#define PAGE {PAGE_SIZE} " in source
