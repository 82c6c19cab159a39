"""Loading models and tokenizers (minimal stand-in by engineer C so that sampling runs; engineer B's file replaces it whole)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glore.errors import ModelError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["encode_segments", "load_causal_lm", "load_step_model", "load_tokenizer", "pick_device"]


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer at `path`. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"can't load a tokenizer from {shown(str(path))}: {' '.join(str(error).split())[:200]}") from error


def load_causal_lm(path: str | Path, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """The causal language model at `path`. Raises ModelError."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(str(path), dtype=getattr(torch, dtype)).to(device).eval()
    except (OSError, ValueError) as error:
        raise ModelError(f"can't load a model from {shown(str(path))}: {' '.join(str(error).split())[:200]}") from error


def load_step_model(path: str | Path, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """The step classifier at `path` (labels 0 = bad, 1 = good). Raises ModelError."""
    import torch
    from transformers import AutoModelForTokenClassification

    try:
        return AutoModelForTokenClassification.from_pretrained(str(path), dtype=getattr(torch, dtype), num_labels=2).to(device).eval()
    except (OSError, ValueError) as error:
        raise ModelError(f"can't load a model from {shown(str(path))}: {' '.join(str(error).split())[:200]}") from error


def encode_segments(tokenizer: PreTrainedTokenizerBase, segments: Sequence[str]) -> list[int]:
    """Each segment by itself without special tokens; BOS once in front if the tokenizer puts one there."""
    ids: list[int] = []
    probe = tokenizer("a")["input_ids"]
    if tokenizer.bos_token_id is not None and probe and probe[0] == tokenizer.bos_token_id:
        ids.append(int(tokenizer.bos_token_id))
    for segment in segments:
        ids.extend(tokenizer(segment, add_special_tokens=False)["input_ids"])
    return ids


def pick_device(name: str) -> str:
    """`auto`: cuda when there is one, else cpu."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
