"""Settings of a training that depend on the device: attention, and the precision of float32
products.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from glore.training.packed_attention import attends_without_mask, use_attention_without_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["fast_products", "suitable_attention"]


@contextlib.contextmanager
def fast_products(on_cpu: bool) -> Iterator[None]:
    """On a GPU, compute float32 products in tf32 (10 bits of mantissa, several times as fast).

    Sums, weights and the optimiser's states stay float32.
    """
    if on_cpu:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def suitable_attention(
    model: PreTrainedModel, on_cpu: bool, bf16: bool, longest: int, packed: bool
) -> Iterator[None]:
    """Use the attention that suits the device: on a GPU one without a mask, if it computes what the
    model's own does.

    `bf16`: products are in bfloat16, whatever the weights are. `longest`: tokens of the longest
    row.
    """
    before = model.config._attn_implementation
    dtype = torch.bfloat16 if bf16 else next(model.parameters()).dtype
    if on_cpu:
        if bf16 and not packed:
            # torch's fused CPU attention is slow in bf16, above all in the backward pass: eager
            # attention took two thirds of its time here.
            model.set_attn_implementation("eager")
    elif attends_without_mask(model, longest, packed, dtype):
        use_attention_without_mask(model)
    try:
        yield
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)
