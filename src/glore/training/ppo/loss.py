"""The losses of PPO. Axes: N drawn tokens of a minibatch; no prompt and no padding among them."""

from __future__ import annotations

import torch

__all__ = ["clipped_share", "policy_loss", "value_loss"]


def policy_loss(
    log_p_N: torch.Tensor, old_N: torch.Tensor, advantages_N: torch.Tensor, clip: float
) -> torch.Tensor:
    """Mean over tokens of −min(ρ A, clamp(ρ, 1 − clip, 1 + clip) A), ρ = exp(log p − old).

    `old_N`: the log-probabilities of the policy that drew the tokens, without a gradient.
    """
    ratio_N = torch.exp(log_p_N - old_N)
    clamped_N = ratio_N.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio_N * advantages_N, clamped_N * advantages_N).mean()


def value_loss(values_N: torch.Tensor, returns_N: torch.Tensor) -> torch.Tensor:
    """Half of the mean squared error."""
    return 0.5 * (values_N - returns_N).square().mean()


def clipped_share(
    log_p_N: torch.Tensor, old_N: torch.Tensor, advantages_N: torch.Tensor, clip: float
) -> float:
    """Share of the tokens whose gradient the clip takes away."""
    ratio_N = torch.exp(log_p_N.detach() - old_N)
    beyond_N = torch.where(advantages_N > 0, ratio_N > 1 + clip, ratio_N < 1 - clip)
    return float((beyond_N & (advantages_N != 0)).float().mean())
