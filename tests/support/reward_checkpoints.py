"""Tiny random reward models in the files of others: names of weights, config.json, tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from support.step_tokenizers import step_tokenizer
from support.tiny_models import llama_like

TOKENIZERS = {
    "qwen": "qwen",
    "skywork": "qwen",
    "math_shepherd": "mistral",
    "rlhflow": "llama3",
    "trl": "qwen",
}
KINDS = {
    "qwen": "qwen2",
    "skywork": "qwen2",
    "math_shepherd": "mistral",
    "rlhflow": "llama",
    "trl": "qwen2",
}
CODE = "raise SystemExit('the code of a model folder was run')\n"


def tokenizer_of(layout: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a reward model of that layout."""
    tokenizer = step_tokenizer(TOKENIZERS[layout], ("<extra_0>",))
    if layout == "skywork":
        tokenizer.bos_token = "<|endoftext|>"
    # The date that Llama 3.1's template falls back on, and glore always writes.
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "strftime_now('%d %b %Y')", "'26 Jul 2024'"
    )
    return tokenizer


def _model(layout: str, tokenizer: PreTrainedTokenizerFast, hidden: int) -> PreTrainedModel:
    torch.manual_seed(5)
    config = llama_like(len(tokenizer), hidden, inner=48, n_layers=2)[KINDS[layout]]()
    config.max_position_embeddings = 1024
    if layout == "trl":
        config.num_labels = 2
        model = AutoModelForTokenClassification.from_config(config)
    else:
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(6.0)
    return model.eval()


def save_checkpoint(layout: str, folder: Path, hidden: int = 32) -> Path:
    """A random reward model of that layout, saved as its authors did."""
    tokenizer = tokenizer_of(layout)
    model = _model(layout, tokenizer, hidden)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if layout in ("qwen", "skywork"):
        heads = {
            "qwen": {
                "score.0.weight": torch.randn(hidden, hidden),
                "score.0.bias": torch.randn(hidden),
                "score.2.weight": torch.randn(2, hidden) * 0.1,
                "score.2.bias": torch.zeros(2),
            },
            "skywork": {
                "v_head.summary.weight": torch.randn(1, hidden) * 0.3,
                "v_head.summary.bias": torch.randn(1),
            },
        }
        weights = {k: v.clone() for k, v in model.state_dict().items()} | heads[layout]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = [
            "Qwen2ForProcessRewardModel" if layout == "qwen" else "Qwen2ForPrmModel"
        ]
        config["auto_map"] = {"AutoModel": f"modeling_qwen2_rm.{config['architectures'][0]}"}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "modeling_qwen2_rm.py").write_text(CODE)
    return folder
