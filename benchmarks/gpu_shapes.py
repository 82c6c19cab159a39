"""Models and prompts of the GPU benchmark: Llamas shaped like SmolLM2-135M and TinyLlama-1.1B, 720
rollouts from 90 prefixes.
"""

from __future__ import annotations

import copy
import dataclasses
import gc

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from benchmarks.workloads import Ask, drafts, prefix_asks

N_PREFIXES, N_TOKENS = 90, 44_008
"""Of the first measurement on a card (issue 18), so that rates can be compared."""
_SHAPES = {
    "135M": (576, 1536, 30, 9, 3, 49152, True),
    "1.1B": (2048, 5632, 22, 32, 4, 32000, False),
}
"""hidden size, intermediate size, layers, heads, key/value heads, vocabulary, tied embeddings"""
_DRY_SHAPES = {"135M": (48, 64, 2, 3, 1, 600, True), "1.1B": (64, 64, 2, 4, 2, 600, False)}


@dataclasses.dataclass
class Bench:
    """Settings of a benchmark run."""

    device: torch.device
    name: str
    is_dry: bool
    n_rounds: int
    card: dict[str, float] = dataclasses.field(default_factory=dict)
    """What `gpu_rates.card` measured."""

    @classmethod
    def of(cls, is_dry: bool, n_rounds: int) -> Bench:
        if is_dry:
            return cls(torch.device("cpu"), "dry run on a CPU", True, 1)
        return cls(torch.device("cuda"), torch.cuda.get_device_name(), False, n_rounds)

    def sync(self) -> None:
        if not self.is_dry:
            torch.cuda.synchronize()

    def free(self) -> None:
        """Free the memory that earlier sections left."""
        gc.collect()
        if not self.is_dry:
            torch.cuda.empty_cache()

    def config(self, size: str, **more: object) -> LlamaConfig:
        hidden, inter, layers, heads, kv, vocab, tied = (_DRY_SHAPES if self.is_dry else _SHAPES)[
            size
        ]
        return LlamaConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=inter,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv,
            max_position_embeddings=2048,
            tie_word_embeddings=tied,
            eos_token_id=None,
            bos_token_id=None,
            pad_token_id=0,
            **more,
        )

    def model(self, size: str, dtype: torch.dtype = torch.bfloat16) -> LlamaForCausalLM:
        """A random model with the same weights at every call."""
        torch.manual_seed(0)
        with self.device:
            model = LlamaForCausalLM(self.config(size)).to(dtype).eval()
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model

    def reward_model(self, size: str, dtype: torch.dtype) -> LlamaForTokenClassification:
        torch.manual_seed(1)
        with self.device:
            return LlamaForTokenClassification(self.config(size, num_labels=2)).to(dtype).eval()

    def asks(self, n_prefixes: int = N_PREFIXES) -> list[Ask]:
        """Eight rollouts from each of so many prefixes; of 90, 44,008 new tokens in all."""
        if self.is_dry:
            return [dataclasses.replace(a, n_new=4, k=2) for a in prefix_asks(drafts(1, 2))[:4]]
        found = prefix_asks(drafts(-(-n_prefixes // 6), 2))[:n_prefixes]
        wanted = N_TOKENS * n_prefixes // N_PREFIXES // 8
        total = sum(a.n_new for a in found)
        scaled = [dataclasses.replace(a, n_new=a.n_new * wanted // total) for a in found]
        short = wanted - sum(a.n_new for a in scaled)
        return [dataclasses.replace(a, n_new=a.n_new + (n < short)) for n, a in enumerate(scaled)]


_TINY = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": 0,
}
_ARCHITECTURES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_TINY),
    "qwen2": Qwen2Config(**_TINY),
    "qwen3": Qwen3Config(**_TINY, head_dim=32),
    "mistral": MistralConfig(**_TINY, sliding_window=24),
    "gemma2": Gemma2Config(**_TINY, head_dim=64, sliding_window=24, query_pre_attn_scalar=64),
    "gemma3": Gemma3TextConfig(**_TINY, head_dim=256, sliding_window=24, query_pre_attn_scalar=256),
    "phi3": Phi3Config(
        **(_TINY | {"num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 192})
    ),
}


def architectures() -> list[str]:
    return list(_ARCHITECTURES)


def small_model(name: str, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A random model whose logits have the standard deviation of a real one's, about 3."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(_ARCHITECTURES[name])).to(device).eval()
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.mul_(1.5 if "embed" in weight_name or "lm_head" in weight_name else 2.5)
        ids = torch.arange(3, 60, device=device)[None]
        spread = float(model(input_ids=ids, use_cache=False).logits.float().std())
        final = next(m for n, m in model.named_modules() if n.endswith("model.norm") or n == "norm")
        if not name.startswith("gemma"):
            final.weight.mul_(3.0 / spread)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.to(dtype)
