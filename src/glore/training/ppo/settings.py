"""The settings of PPO."""

from __future__ import annotations

from pydantic import Field

from glore.config.section import Settings, Temperature

__all__ = ["PpoSettings"]


class PpoSettings(Settings):
    """How a policy is improved."""

    rounds: int = Field(10, ge=1, le=999)
    """Times that completions are drawn and learned from."""
    prompts: int = Field(64, ge=1)
    """Prompts of a round, other ones in every round as far as there are."""
    samples: int = Field(2, ge=1)
    """Completions of a prompt."""
    temperature: Temperature = 1.0
    """Of the policy: it draws at this temperature, and its log-probabilities are those of it."""
    epochs: int = Field(2, ge=1)
    """Passes over the completions of a round."""
    minibatch: int = Field(64, ge=1)
    """Completions of an optimiser step."""
    learning_rate: float = Field(1e-4, gt=0)
    """Of AdamW at the beginning. The default is for a million weights; 1e-5 suits a pretrained
    model.
    """
    min_learning_rate_ratio: float = Field(0.01, ge=0, le=1)
    """The cosine ends at this share of it (App. C: 5e-5 → 5e-7)."""
    value_learning_rate: float = Field(1e-3, gt=0)
    """Of the value, constant."""
    clip: float = Field(0.2, gt=0, lt=1)
    """Ratios beyond 1 ± clip earn nothing more."""
    kl: float = Field(0.05, ge=0)
    """What a nat of divergence from the reference costs, in units of the reward."""
    discount: float = Field(1.0, gt=0, le=1)
    """γ, per token."""
    gae: float = Field(1.0, ge=0, le=1)
    """λ: 1 takes whole returns, 0 trusts the value after one token."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Longer gradients are shortened to this norm."""
