"""A tiny tokenizer, tiny saved base models and settings for the training tests: no download."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from glore.config import TrainSettings
from glore.training.examples import LMExample, StepExample
from glore.training.scratch import train_tokenizer

TEXTS = [
    "Question: Ana has 12 pens.\nAnswer:\n",
    "Ana : 12 + 7 = 19\n",
    "Tom : 19 - 4 = 15\n",
    "#### 15\n",
] * 8


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(iter(TEXTS), vocab_size=300, max_length=128)


def tiny_model(architecture: str, n_vocab: int, seed: int = 0) -> PreTrainedModel:
    common = {
        "vocab_size": n_vocab,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    ends = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    configs = {
        "llama": lambda: LlamaConfig(**common, **ends, tie_word_embeddings=True),
        "qwen2": lambda: Qwen2Config(**common, **ends, num_key_value_heads=1),
        "gpt_neox": lambda: GPTNeoXConfig(**common, **ends),
    }
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(configs[architecture]())


def save_base(folder: Path, architecture: str = "llama") -> Path:
    tokenizer = tiny_tokenizer()
    tiny_model(architecture, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lm_examples(n: int = 10) -> list[LMExample]:
    return [
        LMExample(
            (f"Question: Ana has {i} pens.\nAnswer:\n",),
            (f"Ana : {i} + 7 = {i + 7}\n", f"#### {i + 7}\n"),
        )
        for i in range(n)
    ]


def step_examples(n: int = 16) -> list[StepExample]:
    """Every second solution adds where it should take away, which a tiny model can see."""
    return [
        StepExample(
            (f"Question: Ana has {i} pens.\nAnswer:\n",),
            (f"Ana : 12 {'+-'[i % 2]} 7\n", "#### 15\n"),
            (i % 2 == 0,) * 2,
            (True, i % 3 != 0),
        )
        for i in range(n)
    ]


def soft_examples() -> list[StepExample]:
    """The same with soft labels in two thirds of them."""
    return [
        e if i % 3 == 0 else dataclasses.replace(e, labels=(0.8, 0.7) if i % 2 == 0 else (0.25, 0))
        for i, e in enumerate(step_examples())
    ]


def settings(**changes: object) -> TrainSettings:
    return TrainSettings.model_validate(
        {"learning_rate": 1e-2, "batch_size": 4, "epochs": 2, "max_length": 96, **changes}
    )
