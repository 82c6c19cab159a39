"""What every engine asks of a request before it draws: a prompt with tokens in it, and parameters that mean something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glore.errors import EngineError, shown
from glore.sampling.protocol import Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["check", "checked_tokens"]


def checked_tokens(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    """The prompt's token ids, segment by segment. Raises EngineError naming the request."""
    from glore.models import encode_segments

    tokens = encode_segments(tokenizer, request.segments)
    check(request, len(tokens))
    return tokens


def check(request: Request, n_tokens: int) -> None:
    """Refuse a request whose parameters mean nothing or whose prompt has no tokens. Raises EngineError naming the request."""
    params = request.params
    if params.max_new_tokens < 1 or params.temperature < 0 or params.top_k < 0 or not 0 < params.top_p <= 1:
        raise EngineError(
            f"request {shown(request.id)}: max_new_tokens >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1 needed, got {params}"
        )
    if not n_tokens:
        raise EngineError(f"request {shown(request.id)}: the prompt is empty; a model needs at least one token to continue")
