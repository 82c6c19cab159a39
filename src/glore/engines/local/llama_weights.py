"""The weights of Llama and its kin by what they are for: what our own forward passes lay out, the
one in C (`native`) and the one of kernels (`cuda`).

Axes: I inputs, O outputs, D head size.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from glore.engines.local.native.build import KNOWN

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LayerWeights", "LlamaWeights", "angles", "llama_weights"]

_ROPES = ("default", "linear", "llama3")
"""Frequencies that don't depend on the longest position of the batch."""
Weight = torch.Tensor
Weights = tuple[Weight, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer; matrices [O, I], as `torch.nn.Linear` holds them."""

    input_norm: Weight
    qkv: Weights
    """Of queries, keys and values, in turn."""
    qkv_bias: Weights
    """Three, or none."""
    q_norm: Weight | None
    """[D]; for each head."""
    k_norm: Weight | None
    out: Weight
    out_bias: Weight | None
    mlp_norm: Weight
    gate_up: Weights
    """Of the gate and of what it gates, in turn."""
    down: Weight
    window: int
    """Tokens that a query sees, its own included; 0: all."""


@dataclasses.dataclass(frozen=True, slots=True)
class LlamaWeights:
    """A Llama, Mistral, Qwen2 or Qwen3 model."""

    embedding: Weight
    layers: tuple[LayerWeights, ...]
    final_norm: Weight
    head: Weight
    """Of the vocabulary, or of a reward model's classes."""
    head_bias: Weight | None
    n_heads: int
    n_kv_heads: int
    head_size: int
    inner_size: int
    eps: float
    """Of the norms."""


def llama_weights(model: PreTrainedModel) -> LlamaWeights:
    """Find them in a transformers model. Raises NotImplementedError for any other model."""
    config = model.config
    if config.model_type not in KNOWN or config.hidden_act != "silu":
        raise NotImplementedError(f"{config.model_type} models")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in _ROPES:
        raise NotImplementedError("rotary positions that depend on the batch")
    base = model.base_model
    head = "lm_head" if _maybe(model, "lm_head.weight") is not None else "score"
    n_heads = config.num_attention_heads
    # Mistral's windows are of the model, the others' of each layer.
    window = config.sliding_window if config.model_type == "mistral" else None
    return LlamaWeights(
        embedding=base.get_parameter("embed_tokens.weight"),
        layers=tuple(_layer(x, window) for x in base.get_submodule("layers").children()),
        final_norm=base.get_parameter("norm.weight"),
        head=model.get_parameter(f"{head}.weight"),
        head_bias=_maybe(model, f"{head}.bias"),
        n_heads=n_heads,
        n_kv_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // n_heads,
        inner_size=config.intermediate_size,
        eps=config.rms_norm_eps,
    )


def _layer(layer: torch.nn.Module, window: int | None) -> LayerWeights:
    biases = [_maybe(layer, f"self_attn.{x}_proj.bias") for x in "qkv"]
    found = tuple(b for b in biases if b is not None)
    if _maybe(layer, "mlp.gate_proj.bias") is not None or len(found) not in (0, 3):
        raise NotImplementedError("biases of this kind")
    window = window or getattr(layer.get_submodule("self_attn"), "sliding_window", None)
    return LayerWeights(
        input_norm=layer.get_parameter("input_layernorm.weight"),
        qkv=tuple(layer.get_parameter(f"self_attn.{x}_proj.weight") for x in "qkv"),
        qkv_bias=found,
        q_norm=_maybe(layer, "self_attn.q_norm.weight"),
        k_norm=_maybe(layer, "self_attn.k_norm.weight"),
        out=layer.get_parameter("self_attn.o_proj.weight"),
        out_bias=_maybe(layer, "self_attn.o_proj.bias"),
        mlp_norm=layer.get_parameter("post_attention_layernorm.weight"),
        gate_up=tuple(layer.get_parameter(f"mlp.{x}_proj.weight") for x in ("gate", "up")),
        down=layer.get_parameter("mlp.down_proj.weight"),
        window=window or 0,
    )


def _maybe(module: torch.nn.Module, name: str) -> Weight | None:
    """A parameter that not every model has."""
    try:
        return module.get_parameter(name)
    except AttributeError:
        return None


@torch.no_grad()
def angles(model: PreTrainedModel, n_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [positions, D] in float32, by the model's own module, on its device."""
    rotary = model.base_model.get_submodule("rotary_emb")
    device = model.base_model.get_parameter("norm.weight").device
    cos, sin = rotary(
        torch.zeros(1, device=device), position_ids=torch.arange(n_positions, device=device)[None]
    )
    return cos[0].float().contiguous(), sin[0].float().contiguous()
