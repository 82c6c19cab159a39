"""The server over tiny real models, asked by OpenAI's own client: batches change no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="glore serve needs the extra serve: pip install glore[serve]")
pytest.importorskip("uvicorn", reason="glore serve needs the extra serve: pip install glore[serve]")
pytest.importorskip("openai", reason="OpenAI's client is not installed: pip install openai")

import openai
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from glore.engines.local.engine import TorchEngine
from glore.engines.local.scorer import StepScorer
from glore.refiner import RefineOptions, Refiner
from glore.serve.app import create_app
from glore.serve.served import MODELS, Served
from support.live_server import live
from support.tiny_models import tiny_lm, tiny_step_model, tiny_tokenizer

KEY = "a-key-of-this-test"
Asked = tuple[str, str, int]
Models = tuple[PreTrainedModel, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def models() -> Models:
    """The student's model, for a forward pass of its own, and the tokenizer."""
    return tiny_lm(seed=0), tiny_tokenizer()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    tokenizer = tiny_tokenizer()
    engines = [TorchEngine.of(tiny_lm(seed=seed), tokenizer, max_rows=8) for seed in (0, 1)]
    scorers = [StepScorer.of(tiny_step_model(seed=seed), tokenizer) for seed in (2, 3)]
    refiner = Refiner(*engines, *scorers, RefineOptions(max_new_tokens=12))
    with live(create_app(Served(refiner, tokenizer, context=128), key=KEY)) as address:
        yield f"{address}/v1"
    for model in (*engines, *scorers):
        model.close()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[object]:
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def settings(asked: Asked) -> dict[str, object]:
    model, question, seed = asked
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "seed": seed,
        "temperature": 1.0,
        "n": 2,
        "max_tokens": 6 + seed,
    }


def answer_of(completion: object) -> object:
    found = completion.model_dump()  # type: ignore[attr-defined] # openai's class
    return found["choices"], found["usage"]


def test_answers_do_not_depend_on_what_else_is_asked(url: str, client: object) -> None:
    everything = [(m, f"w{4 + k} w9 w{20 + k}", k) for m in MODELS for k in range(4)]
    alone = [answer_of(client.chat.completions.create(**settings(a))) for a in everything]

    async def together() -> list[object]:
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as many:
            asked = (many.chat.completions.create(**settings(a)) for a in everything)
            return await asyncio.gather(*asked)

    assert [answer_of(found) for found in asyncio.run(together())] == alone
    texts = {c["message"]["content"] for choices, _ in alone for c in choices}
    assert len(texts) > len(everything) / 2
    assert {c["finish_reason"] for choices, _ in alone for c in choices} <= {"stop", "length"}


@pytest.mark.parametrize("model", MODELS)
def test_streams_of_the_client(client: object, model: str) -> None:
    whole = client.chat.completions.create(**settings((model, "w4 w5", 3)))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    pieces = list(client.chat.completions.create(**settings((model, "w4 w5", 3)), **options))
    for choice in whole.choices:
        deltas = [c for piece in pieces for c in piece.choices if c.index == choice.index]
        assert "".join(c.delta.content or "" for c in deltas) == choice.message.content
        assert deltas[-1].finish_reason == choice.finish_reason
    assert pieces[-1].usage == whole.usage

    async def read() -> list[object]:
        async with openai.AsyncOpenAI(base_url=url_of(client), api_key=KEY) as other:
            stream = await other.completions.create(
                model=model, prompt=["w4", "w5"], stream=True, max_tokens=5
            )
            return [piece async for piece in stream]

    assert {c.index for piece in asyncio.run(read()) for c in piece.choices} == {0, 1}


def url_of(client: object) -> str:
    return str(client.base_url)  # type: ignore[attr-defined] # openai's class


def test_the_client_understands_refusals(url: str, client: object) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model") as unknown:
        client.chat.completions.create(**settings(("gpt-9", "w4", 0)))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="not supported") as echoed:
        client.completions.create(model="student", prompt="w4", echo=True)
    assert echoed.value.param == "echo"
    with pytest.raises(openai.BadRequestError, match="context is 128") as long:
        client.completions.create(model="glore", prompt="w4 " * 200)
    assert long.value.code == "context_length_exceeded"
    stranger = openai.OpenAI(base_url=url, api_key="another-key", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError, match="API key"):
        stranger.models.list()
    assert [m.id for m in client.models.list()] == list(MODELS)


def test_log_probabilities_of_the_drawn_tokens(client: object, models: Models) -> None:
    """Those of a forward pass over the same tokens, in both formats, whole and streamed."""
    asked = settings(("student", "w4 w9", 5))
    chat = client.chat.completions.create(**asked, logprobs=True, top_logprobs=0)
    plain = client.chat.completions.create(**asked)
    sums = []
    for choice, other in zip(chat.choices, plain.choices, strict=True):
        assert choice.message == other.message
        assert other.logprobs is None
        entries = choice.logprobs.content
        assert "".join(e.token for e in entries) == choice.message.content
        assert [bytes(e.bytes).decode() for e in entries] == [e.token for e in entries]
        assert {tuple(e.top_logprobs) for e in entries} == {()}
        sums.append([e.logprob for e in entries])
    assert sum(map(len, sums)) == chat.usage.completion_tokens
    student, tokenizer = models
    prompt = tokenizer(f"Question: {asked['messages'][0]['content']}\nAnswer:\n")["input_ids"]
    for choice, logprobs in zip(chat.choices, sums, strict=True):
        drawn = tokenizer(choice.message.content)["input_ids"]
        drawn += [tokenizer.eos_token_id] * (len(logprobs) - len(drawn))
        with torch.inference_mode():
            logits = student(input_ids=torch.tensor([[*prompt, *drawn]])).logits[0].double()
        expected = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)[range(len(drawn)), drawn]
        assert logprobs == pytest.approx(expected.tolist(), abs=1e-4)
    text = client.completions.create(model="student", prompt=["w4", "w5"], logprobs=1, max_tokens=9)
    for choice in text.choices:
        found = choice.logprobs
        assert "".join(found.tokens) == choice.text
        assert found.text_offset[0] == 0
        for token, p, best, at in zip(
            found.tokens, found.token_logprobs, found.top_logprobs, found.text_offset, strict=True
        ):
            assert best == {token: p}
            assert choice.text.startswith(token, at)
    likeliest = client.chat.completions.create(
        **{**asked, "temperature": 0}, logprobs=True, top_logprobs=1
    )
    for entry in likeliest.choices[0].logprobs.content:
        (top,) = entry.top_logprobs
        assert (top.token, top.logprob) == (entry.token, entry.logprob)
    pieces = list(client.chat.completions.create(**asked, logprobs=True, stream=True))
    for choice in chat.choices:
        parts = [c for piece in pieces for c in piece.choices if c.index == choice.index]
        streamed = [entry for c in parts if c.logprobs for entry in c.logprobs.content]
        assert streamed == choice.logprobs.content
        assert "".join(c.delta.content or "" for c in parts) == choice.message.content
        assert parts[-1].finish_reason == choice.finish_reason
    stream = client.completions.create(
        model="student", prompt="w4", logprobs=0, max_tokens=9, stream=True
    )
    offsets = [at for p in stream for c in p.choices if c.logprobs for at in c.logprobs.text_offset]
    assert offsets == text.choices[0].logprobs.text_offset


def test_tokens_that_a_stop_cuts_off_have_no_text(client: object) -> None:
    def drawn(**more: object) -> object:
        return client.completions.create(model="student", prompt="w4", max_tokens=12, **more)

    whole = drawn(logprobs=0)
    stop = whole.choices[0].text.split()[3]
    for stops in (stop, ["nowhere", stop]):
        cut = drawn(logprobs=0, stop=stops)
        (choice,) = cut.choices
        assert (
            "".join(choice.logprobs.tokens) == choice.text == whole.choices[0].text.split(stop)[0]
        )
        n_drawn = len(choice.logprobs.tokens)
        assert n_drawn == cut.usage.completion_tokens
        assert choice.logprobs.token_logprobs == pytest.approx(
            whole.choices[0].logprobs.token_logprobs[:n_drawn], abs=1e-5
        )


def test_a_stop_ends_the_sampling(client: object) -> None:
    def drawn(**more: object) -> tuple[str, int]:
        found = client.completions.create(model="student", prompt="w4", max_tokens=12, **more)
        return found.choices[0].text, found.usage.completion_tokens

    text, n_tokens = drawn()
    stop = text.split()[3]
    cut, n_cut = drawn(stop=stop)
    assert cut == text.partition(stop)[0]
    assert n_cut < n_tokens
    several, n_several = drawn(stop=["nowhere", stop])
    assert (several, n_several) == (cut, n_tokens)
