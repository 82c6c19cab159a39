"""Step scores from a reward model: the probability of "good" after every step, all steps of a solution in one forward pass.

Method 2: two-class token classification read at the last token of each step. Batches hold solutions of like length up to a
budget of padded tokens; padding stands on the right, where a causal model never looks back from, so no mask is needed and a
batched score equals a single one up to rounding.
Axes: B solutions, T tokens, S steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from glore.errors import EngineError
from glore.prompts import solve_segments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from glore.config import EngineSettings

__all__ = ["StepScorer"]

_GOOD = 1


class StepScorer:
    """Scores solutions with a token-classification model (`AutoModelForTokenClassification`, labels 0 = bad, 1 = good)."""

    def __init__(self, model_path: str | Path, settings: EngineSettings) -> None:
        from glore.models import load_step_model, load_tokenizer, pick_device

        tokenizer = load_tokenizer(str(model_path))
        model = load_step_model(str(model_path), dtype=settings.dtype, device=str(pick_device(settings.device)))
        self._set_up(model, tokenizer, settings.scoring_tokens)

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, scoring_tokens: int = 16384) -> StepScorer:
        """A scorer over a model that is loaded already."""
        scorer = cls.__new__(cls)
        scorer._set_up(model, tokenizer, scoring_tokens)
        return scorer

    def _set_up(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, scoring_tokens: int) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.scoring_tokens = scoring_tokens
        self._context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)

    def score(self, items: Sequence[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        """For each (question, steps): p(good) after each step, in the order given. No steps: an empty tuple.

        Raises EngineError when a solution does not fit into the model's context.
        """
        scores: list[tuple[float, ...]] = [()] * len(items)
        encoded = self._encode({i: solve_segments(question, steps) for i, (question, steps) in enumerate(items) if steps})
        order = sorted(encoded, key=lambda i: len(encoded[i][0]))
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(encoded[order[end]][0]) <= self.scoring_tokens:
                end += 1
            chosen = order[start:end]
            for i, values in zip(chosen, self._batch([encoded[i] for i in chosen]), strict=True):
                scores[i] = values
            start = end
        return scores

    def _encode(self, inputs: dict[int, tuple[str, ...]]) -> dict[int, tuple[list[int], list[int]]]:
        """Per solution: token ids, and the index of each step's last token."""
        from glore.models import encode_many

        heads = encode_many(self.tokenizer, [segments[:1] for segments in inputs.values()])
        steps = iter(encode_many(self.tokenizer, [(s,) for segments in inputs.values() for s in segments[1:]], bos=False))
        encoded = {}
        for (index, segments), ids in zip(inputs.items(), heads, strict=True):
            ends = []
            for _ in segments[1:]:
                ids.extend(next(steps))
                ends.append(len(ids) - 1)
            if len(ids) > self._context:
                raise EngineError(
                    f"solution {index} of the batch has {len(ids)} tokens with its question and the reward model's context is "
                    f"{self._context}; leave it out, or use a model with a longer context"
                )
            encoded[index] = ids, ends
        return encoded

    @torch.inference_mode()
    def _batch(self, encoded: list[tuple[list[int], list[int]]]) -> list[tuple[float, ...]]:
        longest = max(len(ids) for ids, _ in encoded)
        ids_BT = np.zeros((len(encoded), longest), np.int64)
        for row, (ids, _) in enumerate(encoded):
            ids_BT[row, : len(ids)] = ids
        device = next(self.model.parameters()).device
        logits_BTC = self.model(input_ids=torch.from_numpy(ids_BT).to(device), use_cache=False).logits
        rows = torch.tensor([row for row, (_, ends) in enumerate(encoded) for _ in ends], device=device)
        at = torch.tensor([end for _, ends in encoded for end in ends], device=device)
        good = torch.softmax(logits_BTC[rows, at].float(), dim=-1)[:, _GOOD].cpu().tolist()
        values = iter(good)
        return [tuple(next(values) for _ in ends) for _, ends in encoded]
