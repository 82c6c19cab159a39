"""A completion's tokens as text, with their log-probabilities, for OpenAI's `logprobs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from glore.engines.protocol import Completion
from glore.tokenization import text_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["DrawnToken", "drawn_tokens", "token_ends"]

LEAST = -9999.0
"""What OpenAI says of a token that can hardly be drawn; JSON knows no minus infinity."""
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
Decode = Callable[[Sequence[int]], str]


class DrawnToken(NamedTuple):
    """A token that was drawn: its part of the text, and its log-probability (natural)."""

    text: str
    logprob: float


def drawn_tokens(
    tokenizer: PreTrainedTokenizerBase, completion: Completion, text: str
) -> tuple[DrawnToken, ...] | None:
    """Every token that was drawn for a completion; none where its engine does not give them.

    `text`: what is shown of the completion, its beginning. The tokens' texts joined are that text.
    """
    ids, logprobs = completion.tokens, completion.logprobs
    if ids is None or logprobs is None:
        return None
    ends = [0, *token_ends(partial(text_of, tokenizer), ids, text)]
    return tuple(
        DrawnToken(text[begin:end], max(logprob, LEAST))
        for (begin, end), logprob in zip(pairwise(ends), logprobs, strict=True)
    )


def token_ends(decode: Decode, ids: Sequence[int], text: str) -> list[int]:
    """How many characters of `text` there are after each token [tokens].

    `text`: a beginning of `decode(ids)`. A token that begins a character has none of it; the one
    that ends it has all of it. Special tokens, and what `text` leaves out at its end, have none.
    """
    if not ids:
        return []
    found = _by_windows(decode, ids, text)
    ends = _by_prefixes(decode, ids, text) if found is None else found
    # The last token has what no other has, such as half a character at the end.
    return [*ends[:-1], len(text)]


def _by_windows(decode: Decode, ids: Sequence[int], text: str) -> list[int] | None:
    """With a look at the last tokens alone, which takes a time linear in the tokens; none where a
    token changes text before those.
    """
    ends, whole = [], ""
    begin = read = 0
    for n in range(1, len(ids) + 1):
        before, now = decode(ids[begin:read]), decode(ids[begin:n])
        if not now.startswith(before):
            return None
        if len(now) > len(before) and not now.endswith(_UNFINISHED):
            whole += now[len(before) :]
            begin, read = read, n
        ends.append(min(len(whole), len(text)))
    if not (whole.startswith(text) or text.startswith(whole)):
        return None
    return ends


def _by_prefixes(decode: Decode, ids: Sequence[int], text: str) -> list[int]:
    ends, end = [], 0
    for n in range(1, len(ids) + 1):
        so_far = decode(ids[:n]).rstrip(_UNFINISHED)
        same = next(
            (i for i, (a, b) in enumerate(zip(so_far, text, strict=False)) if a != b),
            min(len(so_far), len(text)),
        )
        end = max(end, same)
        ends.append(end)
    return ends
