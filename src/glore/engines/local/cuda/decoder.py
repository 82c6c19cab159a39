"""The forward pass of Llama and its kin in eight kernels a layer.

transformers' own layers around our attention launch some thirty, most of them for a few numbers
each, and a decode step is mostly their launching. Here norms take the residual sum with them,
attention the rotation and the storing of keys and values, and matrices with the same input are one.
Axes: N queries, S selected queries, I hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from glore.engines.local.cuda.inputs import Inputs
from glore.engines.local.cuda.kv_cache import CudaKVCache
from glore.engines.local.cuda.launch import Rotation, add_norm, attend, gated
from glore.engines.local.llama_weights import LayerWeights, angles, llama_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Decoder"]

_POSITIONS = 4096
"""Rotations that are kept at first."""


class DecoderLayer(NamedTuple):
    """Weights of one layer; those with the same input as one matrix."""

    weights: LayerWeights
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    gate_up: torch.Tensor


class Decoder:
    """A Llama, Mistral, Qwen2 or Qwen3 model.

    The model's own parameters become views of the joined matrices, so no weight is held twice, and
    what is written to them is used. Raises NotImplementedError for any other model, and for layers
    that are not plain (`torch.nn.Linear`), such as quantized ones or adapters.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._weights = llama_weights(model)
        self._model = model
        for name, module in model.named_modules():
            if name.endswith("_proj") and type(module) is not torch.nn.Linear:
                raise NotImplementedError(f"{name} of the type {type(module).__name__}")
        dtypes = {p.dtype for p in model.parameters()}
        if len(dtypes) > 1:
            raise NotImplementedError(f"weights of the types {', '.join(map(str, dtypes))}")
        self.layers = [
            DecoderLayer(
                x, _joined(x.qkv), _joined(x.qkv_bias) if x.qkv_bias else None, _joined(x.gate_up)
            )
            for x in self._weights.layers
        ]
        self._angles = angles(model, _POSITIONS)
        if self._angles[0].shape[1] != self._weights.head_size:
            raise NotImplementedError("rotations of a part of each head")

    def has_angles(self, n_positions: int) -> bool:
        """Whether the rotations of so many positions are there already.

        If not, they are computed and stand elsewhere in memory, so graphs are to be recorded anew.
        """
        if n_positions <= self._angles[0].shape[0]:
            return True
        self._angles = angles(self._model, 2 * n_positions)
        return False

    def forward(
        self,
        inputs: Inputs,
        pages: CudaKVCache,
        is_step: bool,
        n_block: int,
        selected: torch.Tensor | None,
    ) -> torch.Tensor:
        """Logits [S, V] of the selected queries (none: of all [N, V]); keys and values go to the
        pages.
        """
        w = self._weights
        n_q, n_kv = w.n_heads * w.head_size, w.n_kv_heads * w.head_size
        scaling = w.head_size**-0.5
        stream = torch.nn.functional.embedding(inputs["tokens"], w.embedding)
        x = add_norm(None, stream, self.layers[0].weights.input_norm, w.eps)
        next_norms = [layer.weights.input_norm for layer in self.layers[1:]] + [w.final_norm]
        for n, (layer, next_norm) in enumerate(zip(self.layers, next_norms, strict=True)):
            one = layer.weights
            q, k, v = (
                part.view(part.shape[0], -1, w.head_size)
                for part in _linear(x, layer.qkv, layer.qkv_bias).split([n_q, n_kv, n_kv], 1)
            )
            out = attend(
                q, k, v, *pages.layer(n, k), inputs, n_block, scaling, one.window or None, None,
                is_step, Rotation(*self._angles, one.q_norm, one.k_norm, w.eps),
            )  # fmt: skip
            x = add_norm(
                _linear(out.flatten(1), one.out, one.out_bias), stream, one.mlp_norm, w.eps
            )
            x = add_norm(
                _linear(gated(_linear(x, layer.gate_up)), one.down), stream, next_norm, w.eps
            )
        return _linear(x if selected is None else x[selected], w.head, w.head_bias)


def _linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    return torch.nn.functional.linear(x, weight, bias)


@torch.no_grad()
def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The parts one below another in one piece of memory, which they are views of from now on."""
    whole = _already_joined(parts)
    if whole is None:
        whole = torch.cat([p.detach() for p in parts])
        rows = whole.split([p.shape[0] for p in parts])
        for part, view in zip(parts, rows, strict=True):
            part.data = view
    return whole


def _already_joined(parts: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The whole, where another engine over the same model has joined its parts before."""
    first = parts[0]
    at = first.storage_offset()
    for part in parts:
        same = part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (same and part.is_contiguous() and part.storage_offset() == at):
            return None
        at += part.numel()
    size = (sum(p.shape[0] for p in parts), *first.shape[1:])
    return first.detach().as_strided(size, first.stride(), first.storage_offset())
