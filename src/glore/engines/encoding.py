"""Checks of a request that every engine makes: its prompt has tokens, its parameters are valid."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from glore.config.section import MAX_TEMPERATURE, MAX_TOP_K, MIN_TEMPERATURE
from glore.engines.protocol import Request
from glore.errors import EngineError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["check", "checked_tokens", "new_tokens"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


def checked_tokens(
    tokenizer: PreTrainedTokenizerBase, request: Request, lacks: Mapping[str, str] = _NOTHING
) -> list[int]:
    """The prompt's token ids, encoded segment by segment.

    `lacks`: see `check`. Raises EngineError naming the request.
    """
    from glore.tokenization import encode_segments

    tokens = encode_segments(tokenizer, request.segments)
    check(request, len(tokens), lacks)
    return tokens


def check(request: Request, n_tokens: int, lacks: Mapping[str, str] = _NOTHING) -> None:
    """Check a request whose prompt has `n_tokens` tokens.

    `lacks`: parameters that the engine does not know → why, and what to do. Raises EngineError
    naming the request and the rule.
    """
    params = request.params
    warm = MIN_TEMPERATURE <= params.temperature <= MAX_TEMPERATURE
    temperatures = f"temperature is 0 (greedy) or from {MIN_TEMPERATURE} to {MAX_TEMPERATURE}"
    bounds = {
        "max_new_tokens is at least 1": params.max_new_tokens >= 1,
        temperatures: warm or params.temperature == 0,
        f"top_k is from 0 (off) to {MAX_TOP_K}": 0 <= params.top_k <= MAX_TOP_K,
        "top_p is above 0 and at most 1": 0 < params.top_p <= 1,
        "seeds are 63-bit non-negative integers": all(0 <= seed < 2**63 for seed in request.seeds),
    }
    for rule, kept in bounds.items():
        if not kept:
            raise EngineError(
                f"request {shown(request.id)}: {rule}, got {shown(str(params))} and the seeds "
                f"{shown(str(request.seeds))}"
            )
    for name, why in lacks.items():
        if getattr(params, name):
            raise EngineError(
                f"request {shown(request.id)}: this engine does not know {name}: {why}"
            )
    if not n_tokens:
        raise EngineError(
            f"request {shown(request.id)}: the prompt is empty; a model needs at least one token "
            "to continue"
        )


def new_tokens(request: Request, n_tokens: int, context: int) -> int:
    """How many tokens may be drawn after `n_tokens` of a prompt: `max_new_tokens`, or what is left
    of the context. Raises EngineError where nothing is left.
    """
    if n_tokens >= context:
        raise EngineError(
            f"request {shown(request.id)}: the prompt has {n_tokens} tokens and the model's "
            f"context is {context}; shorten the prompt or use a model with a longer context"
        )
    return min(request.params.max_new_tokens, context - n_tokens)
