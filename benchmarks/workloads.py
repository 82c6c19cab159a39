"""Workloads, the same for every contender: random models of three sizes, a tokenizer of whole
words, and drafts of realistic lengths.

A random model is the hardest case: all tokens are about equally likely, so siblings share almost
nothing. `student.py` has a trained model. Lengths are those of the quickstart's stories: questions
of 60–90 tokens, drafts of 4–6 steps of 9–14 tokens. A random model does not know when to stop, so
end-of-text is switched off, and every rollout has the number of tokens that its draft has left.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    PreTrainedTokenizerFast,
)

from glore.engines.local.runner import ModelRunner
from glore.engines.protocol import Request, SamplingParams
from glore.seeds import stable_seed

if TYPE_CHECKING:
    from glore.config.engine import Quantization

VOCAB = 512
QUESTIONS = {"1M": 8, "3M": 5, "15M": 3}
"""Questions of the rollouts; two drafts each."""
DRAFT_QUESTIONS = {"1M": 8, "3M": 5, "15M": 2}
"""Questions of the K = 96 drafts: about as many completions as fill our rows once or several times.
"""
PARTS = {"1M": 1, "3M": 2, "15M": 3}
SIZES = {"1M": (128, 384, 4, 4), "3M": (192, 576, 6, 6), "15M": (384, 1024, 8, 6)}
"""hidden size, intermediate size, layers, heads"""


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A question and the steps of a draft, as words of one token each."""

    question: str
    steps: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """A request for k continuations of at most n_new tokens each of the text of all segments. A
    model without an end draws exactly n_new.
    """

    segments: tuple[str, ...]
    k: int
    n_new: int
    ids: tuple[int, ...]
    """Token ids of the prompt."""


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A model and the requests for it."""

    name: str
    model: Callable[[], LlamaForCausalLM]
    """The same weights at every call."""
    tokenizer: PreTrainedTokenizerFast
    rollouts: list[Ask]
    drafts: list[Ask]
    part: int
    """`generate` gets one prompt in this many: it takes the others' time many times over, and a
    rate does not need all.
    """


def config(size: str, **more: object) -> LlamaConfig:
    hidden, inter, layers, heads = SIZES[size]
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=hidden,
        intermediate_size=inter,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
        **more,
    )


def language_model(size: str) -> LlamaForCausalLM:
    """A random model with the same weights at every call."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config(size)).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def reward_model(size: str) -> LlamaForTokenClassification:
    torch.manual_seed(1)
    return LlamaForTokenClassification(config(size, num_labels=2)).eval()


def quantizations(model: LlamaForCausalLM) -> list[Quantization]:
    """Kinds of quantization that this machine supports for the model."""
    kinds: tuple[Quantization, ...] = ("int16", "int8")
    return [kind for kind in kinds if ModelRunner(model, ("native",), kind).products == kind]


def tokenizer(n_vocab: int = VOCAB) -> PreTrainedTokenizerFast:
    """Words w3 … w511; no end-of-text token."""
    vocab = {"<pad>": 0, "<eos>": 1, "[BAD]": 2} | {f"w{i}": i for i in range(3, n_vocab)}
    fast = Tokenizer(models.WordLevel(vocab, unk_token="w3"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", clean_up_tokenization_spaces=False
    )


def drafts(n_questions: int, n_each: int, seed: int = 0) -> list[Draft]:
    """`n_each` drafts of every question."""
    rng = random.Random(seed)

    def words(n: int) -> str:
        return " ".join(f"w{rng.randrange(3, VOCAB)}" for _ in range(n))

    made: list[Draft] = []
    for _ in range(n_questions):
        question = words(rng.randint(60, 90))
        made.extend(
            Draft(question, tuple(words(rng.randint(9, 14)) for _ in range(rng.randint(4, 6))))
            for _ in range(n_each)
        )
    return made


def random_subject(size: str) -> Subject:
    """A random model, rollouts from every prefix of its drafts, and K = 96 drafts a question."""
    rollouts = prefix_asks(drafts(QUESTIONS[size], 2))
    return Subject(
        size,
        lambda: language_model(size),
        tokenizer(),
        rollouts,
        draft_asks(drafts(DRAFT_QUESTIONS[size], 1), 96),
        PARTS[size],
    )


def _ids(segments: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(word[1:]) for segment in segments for word in segment.split())


def prefix_asks(of: list[Draft], k: int = 8) -> list[Ask]:
    """Full counts: k rollouts from every prefix of every draft."""
    asks = [
        ((d.question, *d.steps[:i]), sum(len(s.split()) for s in d.steps[i:]))
        for d in of
        for i in range(1, len(d.steps))
    ]
    return [Ask(segments, k, n_new, _ids(segments)) for segments, n_new in asks]


def draft_asks(of: list[Draft], k: int) -> list[Ask]:
    """k drafts of every question, as long as the first of its drafts."""
    first = {d.question: d for d in reversed(of)}
    return [
        Ask((q,), k, sum(len(s.split()) for s in d.steps), _ids((q,))) for q, d in first.items()
    ]


def requests(asks: list[Ask]) -> list[Request]:
    """The same requests for a glore engine."""
    return [
        Request(
            str(n),
            ask.segments,
            tuple(stable_seed("bench", n, k) for k in range(ask.k)),
            SamplingParams(max_new_tokens=ask.n_new),
        )
        for n, ask in enumerate(asks)
    ]
