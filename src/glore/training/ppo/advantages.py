"""Rewards of drawn tokens → advantages and returns. Axes: R drawn tokens of an episode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "advantages_and_returns", "penalised", "whitened"]

Floats = npt.NDArray[np.float64]


def penalised(rewards_R: Floats, log_p_R: Floats, reference_R: Floats, kl: float) -> Floats:
    """Each token's reward minus `kl` times its log-ratio to the reference.

    `log_p_R`, `reference_R`: log-probabilities of the drawn tokens under policy and reference.
    """
    penalised_R: Floats = rewards_R - kl * (log_p_R - reference_R)
    return penalised_R


def advantages_and_returns(
    rewards_R: Floats, values_R: Floats, discount: float, gae: float
) -> tuple[Floats, Floats]:
    """Generalised advantage estimation over one episode, which ends after its last token.

    `values_R`: the value before each token is drawn. With `gae` 1 and `discount` 1 a token's
    advantage is the sum of the rewards from it on, minus the value. The return is advantage plus
    value.
    """
    advantages_R = np.zeros_like(rewards_R)
    following, value_after = 0.0, 0.0
    for t in range(len(rewards_R) - 1, -1, -1):
        surprise = rewards_R[t] + discount * value_after - values_R[t]
        following = float(surprise + discount * gae * following)
        advantages_R[t], value_after = following, float(values_R[t])
    return advantages_R, advantages_R + values_R


def whitened(advantages: Sequence[Floats]) -> list[Floats]:
    """The advantages of all tokens of a round, moved to mean 0 and scaled to deviation 1. If all
    are equal, they become 0.
    """
    everything = np.concatenate(advantages)
    mean, deviation = float(everything.mean()), float(everything.std())
    # Below rounding there is nothing to tell apart, and scaling would make noise of it.
    if deviation <= 1e-9 * max(1.0, abs(mean)):
        return [np.zeros_like(a) for a in advantages]
    return [(a - mean) / deviation for a in advantages]
