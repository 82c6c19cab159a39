"""A tiny Llama as a GGUF file, written as llama.cpp's converter does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from gguf import GGUFWriter
from transformers import LlamaConfig, LlamaForCausalLM

TOKENS = ["<eos>", "a", "b", "c", "Ġ", "d", "e", "1", "2", "ab"]


def tiny_llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def write_gguf(
    model: LlamaForCausalLM,
    path: Path,
    without: tuple[str, ...] = (),
    more: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """`without`: tensors that the file lacks, `more`: those that it has in addition, by their
    names in the file.
    """
    config = model.config
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    weights = {name: w.numpy() for name, w in model.state_dict().items()}
    tensors = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
        "output.weight": weights["lm_head.weight"],
    }
    for n in range(config.num_hidden_layers):
        layer = f"model.layers.{n}."
        for ours, theirs in (
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "ffn_norm"),
        ):
            matrix = weights[f"{layer}{ours}.weight"]
            kind = theirs[-1]
            if theirs in ("attn_q", "attn_k"):
                matrix = _interleaved(matrix, heads[kind])
            tensors[f"blk.{n}.{theirs}.weight"] = np.ascontiguousarray(matrix)
    for name, tensor in {**tensors, **more}.items():
        if name not in without:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(matrix: np.ndarray, n_heads: int) -> np.ndarray:
    """llama.cpp keeps the two halves of a rotary pair side by side."""
    rows, columns = matrix.shape
    return (
        matrix.reshape(n_heads, 2, rows // n_heads // 2, columns)
        .swapaxes(1, 2)
        .reshape(rows, columns)
    )
