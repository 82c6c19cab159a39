"""What every engine asks of a request before it draws: a prompt with tokens in it, and parameters that mean something."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from glore.errors import EngineError, shown
from glore.sampling.protocol import Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["check", "checked_tokens"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


def checked_tokens(tokenizer: PreTrainedTokenizerBase, request: Request, lacks: Mapping[str, str] = _NOTHING) -> list[int]:
    """The prompt's token ids, segment by segment. `lacks`: see `check`. Raises EngineError naming the request."""
    from glore.models import encode_segments

    tokens = encode_segments(tokenizer, request.segments)
    check(request, len(tokens), lacks)
    return tokens


def check(request: Request, n_tokens: int, lacks: Mapping[str, str] = _NOTHING) -> None:
    """Refuse a request whose parameters mean nothing or whose prompt has no tokens. Raises EngineError naming the request.

    `lacks`: parameters that the engine does not know, and why (and what to do).
    """
    params = request.params
    if params.max_new_tokens < 1 or params.temperature < 0 or params.top_k < 0 or not 0 < params.top_p <= 1:
        raise EngineError(
            f"request {shown(request.id)}: max_new_tokens >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1 needed, got {params}"
        )
    for name, why in lacks.items():
        if getattr(params, name):
            raise EngineError(f"request {shown(request.id)}: this engine does not know {name}: {why}")
    if not n_tokens:
        raise EngineError(f"request {shown(request.id)}: the prompt is empty; a model needs at least one token to continue")
