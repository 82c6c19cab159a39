"""Rotated weights, for products of 8-bit integers.

A few channels of a real model's hidden states are far larger than the others, so they set the scale
of a token's integers, and the others lose their precision. A rotation mixes all channels. It goes
into the weights: what writes hidden states is rotated, and what reads them expects them rotated, so
the model computes the same function. Norms allow it once their weights are part of the matrix
behind them, since a rotation leaves a vector's length as it is. Source: QuaRot (arXiv 2404.00456).

Axes: I inputs, O outputs.
"""

from __future__ import annotations

import dataclasses

import torch

from glore.engines.local.llama_weights import LayerWeights, LlamaWeights

__all__ = ["rotated", "rotated_ends", "rotated_layer"]

_LANES = 16
"""As in forward.c: numbers that it computes side by side, whatever the processor."""


def rotated(x: torch.Tensor, lanes: int = 1) -> torch.Tensor:
    """The last axis of x, in float32, times a symmetric orthogonal matrix.

    `lanes`: of neighbouring channels that are not mixed with each other. The matrix is the
    Kronecker product of a reflection (I - 2 / n, in every place), Hadamard's matrix of the largest
    power of two that fits, and the identity of the lanes. Every number is computed in a fixed
    order, so the result does not depend on the number of threads.
    """
    size = x.shape[-1] // lanes
    power = size & -size
    n = size // power
    y = x.detach().to(torch.float32, copy=True).reshape(-1, n, power * lanes)
    width = lanes
    while width < power * lanes:
        pairs = y.view(y.shape[0], -1, 2, width)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        total = first + second
        torch.sub(first, second, out=second)
        first.copy_(total)
        width *= 2
    y *= power**-0.5
    if n > 1:
        total = y[:, 0].clone()
        for i in range(1, n):
            total += y[:, i]
        y -= (total * (2 / n))[:, None]
    return y.view(x.shape)


def rotated_ends(weights: LlamaWeights) -> LlamaWeights:
    """The embedding, final norm and head, rotated; the layers are left as they are."""
    return dataclasses.replace(
        weights,
        embedding=rotated(weights.embedding),
        final_norm=torch.ones_like(weights.final_norm),
        head=_reading(weights.head, weights.final_norm),
    )


def rotated_layer(layer: LayerWeights) -> LayerWeights:
    """A layer that reads and writes rotated hidden states."""
    return dataclasses.replace(
        layer,
        input_norm=torch.ones_like(layer.input_norm),
        qkv=tuple(_reading(w, layer.input_norm) for w in layer.qkv),
        out=_writing(layer.out),
        out_bias=None if layer.out_bias is None else rotated(layer.out_bias),
        mlp_norm=torch.ones_like(layer.mlp_norm),
        gate_up=tuple(_reading(w, layer.mlp_norm) for w in layer.gate_up),
        down=rotated(_writing(layer.down), lanes_of(layer.down.shape[1])),
    )


def lanes_of(size: int) -> int:
    """Lanes of the rotation that forward.c computes: its inputs of `down` have this size."""
    return _LANES if size % _LANES == 0 else 1


def _reading(weight_OI: torch.Tensor, norm_I: torch.Tensor) -> torch.Tensor:
    return rotated(weight_OI.detach().float() * norm_I.detach().float())


def _writing(weight_OI: torch.Tensor) -> torch.Tensor:
    return rotated(weight_OI.detach().float().T.contiguous()).T
