"""A language model with a value before every token that it draws.

Axes: B episodes, T tokens, N drawn tokens of a batch, D hidden size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn

from glore.training.ppo.episodes import Episode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Batch", "Policy", "Read", "batch_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Episodes side by side, padded on the right. Under causal attention no drawn token sees the
    padding, so the model gets no mask.
    """

    ids: torch.Tensor
    """[B, T]"""
    places: torch.Tensor
    """[N]: where drawn tokens are predicted, counted through B × T: one place before each."""
    drawn: torch.Tensor
    """[N]: the drawn tokens, episode by episode."""


def batch_of(episodes: Sequence[Episode], pad_id: int, device: str = "cpu") -> Batch:
    """The batch of these episodes."""
    lengths = [len(e.prompt_ids) + len(e.response_ids) for e in episodes]
    width = max(lengths)
    ids_BT = np.full((len(episodes), width), pad_id, dtype=np.int64)
    places: list[int] = []
    drawn: list[int] = []
    for row, (e, length) in enumerate(zip(episodes, lengths, strict=True)):
        ids_BT[row, :length] = (*e.prompt_ids, *e.response_ids)
        start = row * width + len(e.prompt_ids) - 1
        places += range(start, start + len(e.response_ids))
        drawn += e.response_ids
    tensors = (torch.from_numpy(ids_BT), torch.tensor(places), torch.tensor(drawn))
    return Batch(*(tensor.to(device) for tensor in tensors))


class Read(NamedTuple):
    """What a policy says of the drawn tokens of a batch, [N] each."""

    log_p: torch.Tensor
    """Natural logarithm of each drawn token's probability."""
    entropy: torch.Tensor
    """Of the distribution that it was drawn from, in nats, without a gradient."""
    values: torch.Tensor
    """The value before it was drawn."""


class Policy(nn.Module):
    """A causal language model and a linear value of its last hidden state."""

    def __init__(self, model: PreTrainedModel, temperature: float = 1.0) -> None:
        """The value begins as 0 everywhere."""
        super().__init__()
        self.model, self.temperature = model, temperature
        self.head: nn.Module = model.get_output_embeddings()
        weight = next(self.head.parameters())
        self.value = nn.Linear(weight.shape[1], 1, device=weight.device)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, batch: Batch) -> Read:
        """Read the drawn tokens of a batch. The head computes their logits alone."""
        kept: list[torch.Tensor] = []

        def cut(_: nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            kept.append(hidden[0].flatten(0, 1).index_select(0, batch.places))
            return (kept[0].unsqueeze(0), *hidden[1:])

        handle = self.head.register_forward_pre_hook(cut)
        try:
            logits = self.model(input_ids=batch.ids).logits
        finally:
            handle.remove()
        log_probs_NV = torch.log_softmax(logits.flatten(0, -2).float() / self.temperature, dim=-1)
        log_p_N = log_probs_NV.gather(1, batch.drawn[:, None]).squeeze(1)
        with torch.no_grad():
            entropy_N = -(log_probs_NV.exp() * log_probs_NV).sum(-1)
        values_N = self.value(kept[0].detach().float()).squeeze(-1)
        return Read(log_p_N, entropy_N, values_N)
