"""From logits to tokens: temperature, top-k, top-p, then the inverse of the distribution function
at one uniform number.

Axes: R rows of logits, C completions that draw from them, V vocabulary. A token of probability zero
(filtered out) is never drawn.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from glore.engines.local.noise import uniforms
from glore.errors import EngineError

__all__ = [
    "DrawSettings",
    "Drawn",
    "Draws",
    "NotFiniteError",
    "draw",
    "draw_each",
    "log_probs",
    "not_finite",
    "on_drawing_device",
]


@dataclasses.dataclass(frozen=True, slots=True)
class DrawSettings:
    """Per row or completion [R]: temperature (0: greedy), top_k (0: off), top_p (1: off)."""

    temperature: npt.NDArray[np.float32]
    top_k: npt.NDArray[np.int64]
    top_p: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Draws:
    """How completions [C] draw one token each. Those of one row have the same settings."""

    row: npt.NDArray[np.int64]
    """The row of logits."""
    seeds: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int64]
    """Tokens drawn before."""
    settings: DrawSettings

    @property
    def is_filtered(self) -> bool:
        """Whether top-k or top-p cuts any distribution."""
        return bool((self.settings.top_k > 0).any() or (self.settings.top_p < 1).any())

    def uniforms(self) -> npt.NDArray[np.float32]:
        """The random number of each (`glore.engines.local.noise`)."""
        return uniforms(self.seeds, self.counts)


class Drawn:
    """Drawn tokens, which a device may still be copying."""

    def __init__(self, logits_RV: torch.Tensor, tokens_C: torch.Tensor) -> None:
        self.logits = logits_RV
        """What they were drawn from."""
        self._tokens = tokens_C

    def tokens(self) -> npt.NDArray[np.int64]:
        """One token id for each completion [C]. Waits for the device."""
        tokens: npt.NDArray[np.int64] = self._tokens.cpu().numpy()
        return tokens


def on_drawing_device(logits: torch.Tensor) -> torch.Tensor:
    """The logits where tokens are drawn from them: on their own device, or for an Apple GPU on the
    CPU, since torch has not all of the operations there.
    """
    return logits.cpu() if logits.device.type == "mps" else logits


def draw_each(
    logits_RV: torch.Tensor,
    row_C: npt.NDArray[np.int64],
    uniform_C: npt.NDArray[np.float32],
    settings: DrawSettings,
) -> torch.Tensor:
    """`draw` for completions that may share rows: one token id per completion [C] int64.

    It draws for at most R completions at a time, so it needs no more memory than `draw` does.
    """
    n_rows = logits_RV.shape[0]
    if row_C.size == n_rows and (row_C == np.arange(n_rows)).all():
        return draw(logits_RV, uniform_C, settings)
    parts = []
    for at in range(0, max(row_C.size, 1), n_rows):
        part = slice(at, at + n_rows)
        chosen = DrawSettings(
            settings.temperature[part], settings.top_k[part], settings.top_p[part]
        )
        parts.append(
            draw(
                logits_RV[torch.from_numpy(row_C[part]).to(logits_RV.device)],
                uniform_C[part],
                chosen,
            )
        )
    return torch.cat(parts)


def draw(
    logits_RV: torch.Tensor, uniform_R: npt.NDArray[np.float32], settings: DrawSettings
) -> torch.Tensor:
    """One token id per row [R] int64. Greedy takes the lowest id among equals.

    Raises EngineError on NaN or infinite logits.
    """
    hot = settings.temperature > 0
    if not hot.any():
        best = logits_RV.argmax(dim=-1)
        if not bool(torch.isfinite(logits_RV.gather(1, best[:, None])).all()):
            raise not_finite()
        return best
    device = logits_RV.device
    if (settings.temperature == 1).all():
        probs_RV = torch.softmax(logits_RV, dim=-1, dtype=torch.float32)
    else:
        temperature = torch.from_numpy(np.where(hot, settings.temperature, np.float32(1))).to(
            device
        )
        probs_RV = torch.softmax(logits_RV.float() / temperature[:, None], dim=-1)
    if (settings.top_k > 0).any() or (settings.top_p < 1).any():
        probs_RV = _filter(probs_RV, settings)
    cdf_RV = probs_RV.cumsum(dim=-1)
    total_R = cdf_RV[:, -1]
    if not bool(torch.isfinite(total_R).all()):
        raise not_finite()
    # Strictly below the total, so that the last token with a positive probability is the last that
    # can come out.
    point_R = torch.minimum(
        torch.from_numpy(uniform_R).to(device) * total_R,
        torch.nextafter(total_R, torch.zeros_like(total_R)),
    )
    tokens_R = torch.searchsorted(cdf_RV, point_R[:, None], right=True)[:, 0]
    if hot.all():
        return tokens_R
    return torch.where(torch.from_numpy(hot).to(device), tokens_R, logits_RV.argmax(dim=-1))


def log_probs(logits_RV: torch.Tensor, tokens_R: torch.Tensor) -> torch.Tensor:
    """Natural logarithm of each row's token under the model's own distribution (temperature 1, no
    filter) [R] float32.
    """
    logits_RV = logits_RV.float()
    return logits_RV.gather(1, tokens_R[:, None])[:, 0] - logits_RV.logsumexp(dim=-1)


def _filter(probs_RV: torch.Tensor, settings: DrawSettings) -> torch.Tensor:
    """Zero what lies outside top-k, then outside the smallest set whose (renormalised) mass reaches
    top-p.
    """
    n_vocab = probs_RV.shape[-1]
    device = probs_RV.device
    sorted_RV, order_RV = torch.sort(probs_RV, dim=-1, descending=True, stable=True)
    top_k = torch.from_numpy(
        np.where(settings.top_k > 0, np.minimum(settings.top_k, n_vocab), n_vocab)
    ).to(device)
    kept_RV = torch.arange(n_vocab, device=device)[None] < top_k[:, None]
    sorted_RV = torch.where(kept_RV, sorted_RV, 0.0)
    before_RV = sorted_RV.cumsum(dim=-1) - sorted_RV
    top_p = torch.from_numpy(settings.top_p).to(device)[:, None] * sorted_RV.sum(
        dim=-1, keepdim=True
    )
    outside_RV = (before_RV >= top_p) & (torch.from_numpy(settings.top_p < 1).to(device)[:, None])
    outside_RV[:, 0] = False
    sorted_RV = torch.where(outside_RV, 0.0, sorted_RV)
    return torch.zeros_like(probs_RV).scatter_(1, order_RV, sorted_RV)


class NotFiniteError(EngineError):
    """A model's logits are not finite."""


def not_finite() -> NotFiniteError:
    """The error for a distribution that can't be drawn from."""
    return NotFiniteError(
        "the model gave NaN or infinite logits, so nothing can be drawn; check its weights and "
        "dtype (float32 is the safe one)"
    )
