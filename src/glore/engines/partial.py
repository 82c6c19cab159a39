"""The text of completions while they are drawn, for engines that draw token by token, and each
completion of a request before the request is complete.

It is one-way: whoever listens can't change what is drawn. A request that nobody wants any more can
be given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from glore.engines.protocol import Completion, FollowUp, Request, Result

__all__ = ["IsWanted", "ListenerOf", "OnCompletion", "OnText", "StreamsText", "certain"]

OnText = Callable[[int, str], None]
"""Is told, in the thread of the run and several times: the index of a seed, and the text of its
completion so far. Each text is the beginning of the completion's final text. A later one may be
shorter than an earlier one, where a completion had to be drawn again.
"""
OnCompletion = Callable[[Request, int, Completion], None]
"""Is told, in the thread of the run: a request, the index of a seed, and its finished completion.
Completions end in any order.
"""
ListenerOf = Callable[[Request], OnText | None]
"""A request → who listens to its completions; none: nobody."""
IsWanted = Callable[[Request], bool]
"""Whether somebody still waits for a request's result."""
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What decoders make of the first bytes of a character."""


@runtime_checkable
class StreamsText(Protocol):
    """What engines may do besides `glore.engines.protocol.Engine`."""

    def stream(
        self,
        requests: Iterable[Request],
        follow_up: FollowUp | None,
        listener_of: ListenerOf,
        is_wanted: IsWanted | None = None,
        on_completion: OnCompletion | None = None,
    ) -> Iterator[Result]:
        """As `Engine.run`, with the same results, and listeners are told what is drawn meanwhile.

        `listener_of` is asked once for each request. `is_wanted` is asked again and again: once a
        request is not wanted, its rows go to others, and its completions end where they are, as if
        by length. `on_completion` is told every completion once, before its request's result.
        """
        ...


def certain(text: str, stops: Sequence[str] = ()) -> str:
    """The beginning of a text in progress that nothing can change any more, whatever is drawn.

    Left out: half a character at the end; a stop string and what follows it; and the end of the
    text, as long as it may be the beginning of a stop string.
    """
    text = text.rstrip(_UNFINISHED)
    end = len(text)
    for stop in stops:
        found = text.find(stop)
        if found >= 0:
            end = min(end, found)
        else:
            most = min(len(stop) - 1, len(text))
            n = next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
            end = min(end, len(text) - n)
    return text[:end]
