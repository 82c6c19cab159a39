"""Tiny random models and a word tokenizer, built from configs: no download."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCAB = 61
Configs = dict[str, Callable[[], PreTrainedConfig]]


def llama_like(vocab: int, hidden: int, inner: int, n_layers: int) -> Configs:
    """Configs of Llama and its kin: 4 heads, half as many for keys and values, windows shorter than
    the tests' texts.
    """
    shape = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "eos_token_id": 1,
        "bos_token_id": None,
        "pad_token_id": 0,
    }
    head = hidden // 4
    return {
        "llama": lambda: LlamaConfig(**shape),
        "qwen2": lambda: Qwen2Config(**shape),
        "qwen3": lambda: Qwen3Config(**shape, head_dim=head),
        "mistral": lambda: MistralConfig(**shape, sliding_window=12),
        "gemma": lambda: GemmaConfig(**shape, head_dim=head),
        "gemma2": lambda: Gemma2Config(
            **shape,
            head_dim=head,
            sliding_window=10,
            query_pre_attn_scalar=head,
            # transformers before 5.21 chooses torch's attention, which ignores the softcap
            attn_implementation="eager",
        ),
        "gemma3": lambda: Gemma3TextConfig(
            **shape, head_dim=head, sliding_window=10, query_pre_attn_scalar=head
        ),
        "phi": lambda: PhiConfig(**shape),
        "phi3": lambda: Phi3Config(**shape),
    }


LLAMA_LIKE = llama_like(VOCAB, hidden=32, inner=48, n_layers=2)
ARCHITECTURES: Configs = {
    **{
        name: LLAMA_LIKE[name] for name in ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2")
    },
    "bloom": lambda: BloomConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        n_layer=2,
        n_head=4,
        eos_token_id=1,
        bos_token_id=1,
        pad_token_id=0,
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        eos_token_id=1,
        bos_token_id=1,
        pad_token_id=0,
        n_inner=48,
    ),
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Words `w3` … `w60`, one token each."""
    vocab = {"<pad>": 0, "<eos>": 1, "[BAD]": 2} | {f"w{i}": i for i in range(3, VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=["[BAD]"],
        clean_up_tokenization_spaces=False,
    )


def wide_lm(seed: int = 0) -> PreTrainedModel:
    """As `tiny_lm`, with heads of the least size that vLLM's attention takes (32)."""
    torch.manual_seed(seed)
    config = llama_like(VOCAB, hidden=128, inner=192, n_layers=2)["llama"]()
    return _lively(AutoModelForCausalLM.from_config(config), scale=0.5)


def tiny_lm(architecture: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A random model whose next-token distribution is neither flat nor certain: one of
    ARCHITECTURES or of LLAMA_LIKE.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config({**LLAMA_LIKE, **ARCHITECTURES}[architecture]())
    return _lively(model)


def tiny_step_model(architecture: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A random two-class token classifier."""
    torch.manual_seed(seed)
    config = ARCHITECTURES[architecture]()
    config.num_labels = 2
    return _lively(AutoModelForTokenClassification.from_config(config))


def _lively(model: PreTrainedModel, scale: float = 1.0) -> PreTrainedModel:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                is_head = "embed" in name or "lm_head" in name or "wte" in name
                weight.mul_((4.0 if is_head else 6.0) * scale)
    return model.eval()
