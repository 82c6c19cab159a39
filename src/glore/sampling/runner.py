"""Feeds a transformers model packed tokens through our attention, and finds out whether the model allows it.

`ModelRunner` knows tensors and the model, not requests: prompts in, next-token logits out.
Axes: B prompts, N packed tokens, R rows, V vocabulary, T tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from glore.sampling.attention import ATTENTION_NAME, Decode, KeyValueStore, Prefill, register

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ModelRunner", "supports_packed"]

_PREFILL_TOKENS = 4096
"""Padded prompt tokens of one forward pass."""
_log = logging.getLogger(__name__)


class ModelRunner:
    """One model and the keys and values of what it is reading."""

    def __init__(self, model: PreTrainedModel, max_rows: int) -> None:
        register()
        model.set_attn_implementation(ATTENTION_NAME)
        self.model = model
        self.device = next(model.parameters()).device
        self.store = KeyValueStore(max_rows)

    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[int]) -> torch.Tensor:
        """Read each prompt into its node slot. Returns the next-token logits [B, V] in float32."""
        self.store.reserve(max(slots) + 1, max(len(p) for p in prompts), 1)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        logits: list[torch.Tensor] = []
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(prompts[order[end]]) <= _PREFILL_TOKENS:
                end += 1
            chosen = order[start:end]
            logits.append(self._prefill([prompts[i] for i in chosen], [slots[i] for i in chosen]))
            start = end
        back = torch.empty(len(order), dtype=torch.int64)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(logits)[back.to(self.device)]

    def _prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[int]) -> torch.Tensor:
        lengths = np.array([len(p) for p in prompts])
        n_tokens = int(lengths.max())
        ends = np.cumsum(lengths)
        inside_BT = np.arange(n_tokens)[None] < lengths[:, None]
        pad_BT = np.where(inside_BT, (ends - lengths)[:, None] + np.arange(n_tokens)[None], 0)
        batch = Prefill(
            self.store,
            torch.from_numpy(pad_BT).to(self.device),
            torch.from_numpy(np.flatnonzero(inside_BT)).to(self.device),
            torch.tensor(slots, device=self.device),
        )
        positions = np.broadcast_to(np.arange(n_tokens), inside_BT.shape)[inside_BT]
        tokens = np.concatenate([np.asarray(p, np.int64) for p in prompts])
        return self._forward(tokens, positions, batch, torch.from_numpy(ends - 1).to(self.device))

    def decode(self, tokens: npt.NDArray[np.int64], positions: npt.NDArray[np.int64], batch: Decode) -> torch.Tensor:
        """One more token for each row [R]. Returns the next-token logits [R, V] in float32."""
        return self._forward(tokens, positions, batch, 0)

    @torch.inference_mode()
    def _forward(
        self,
        tokens: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        batch: Prefill | Decode,
        logits_to_keep: torch.Tensor | int,
    ) -> torch.Tensor:
        output = self.model(
            input_ids=torch.from_numpy(tokens).to(self.device)[None],
            position_ids=torch.from_numpy(positions).to(self.device)[None],
            use_cache=False,
            logits_to_keep=logits_to_keep,
            glore_batch=batch,
        )
        logits: torch.Tensor = output.logits[0]
        return logits.float()


def supports_packed(model: PreTrainedModel) -> bool:
    """Whether the model gives the same logits packed through our attention as in its plain forward pass (tried on a few tokens)."""
    before = model.config._attn_implementation
    if before == ATTENTION_NAME:
        return True
    rope = getattr(model.config, "rope_parameters", None) or {}
    if "dynamic" in str(rope) or "longrope" in str(rope):
        return False  # their frequencies depend on the longest position in the batch
    n_vocab = model.get_input_embeddings().weight.shape[0]
    prompts = [[(7 * i + 3) % n_vocab for i in range(5)], [(11 * i + 1) % n_vocab for i in range(8)]]
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            plain = [model(input_ids=torch.tensor([p], device=device), use_cache=False).logits[0].float() for p in prompts]
        runner = ModelRunner(model, max_rows=2)
        first = runner.prefill([p[:-1] for p in prompts], [0, 1])
        grid, node, place, write, rows, lengths, own = (
            torch.tensor(x, device=device) for x in ([[0], [1]], [0, 1], [0, 0], [0, 0], [0, 1], [4, 7], [1, 1])
        )
        batch = Decode(runner.store, grid, node, place, write, rows, lengths, own, n_node_tokens=7, n_own_tokens=1, one_to_one=False)
        second = runner.decode(np.array([p[-1] for p in prompts]), np.array([4, 7]), batch)
    except (NotImplementedError, TypeError, ValueError, RuntimeError, KeyError, AttributeError, AssertionError, IndexError) as error:
        _log.info("plain decoding for %s: %s", type(model).__name__, error)
        model.set_attn_implementation(before)
        return False
    tolerance = 1e-3 if plain[0].dtype == torch.float32 and next(model.parameters()).dtype == torch.float32 else 0.15
    close = all(
        torch.allclose(fast[i], plain[i][at], rtol=tolerance, atol=tolerance) for fast, at in ((first, -2), (second, -1)) for i in range(2)
    )
    if not close:
        model.set_attn_implementation(before)
    return close
