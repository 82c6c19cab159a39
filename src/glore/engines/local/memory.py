"""How much is decoded at once: planned before the start, halved when memory runs out.

Pages of keys and values that are in use and run short are another matter: the scheduler preempts
its youngest rows (`glore.engines.local.scheduler`) and nothing gets smaller.
"""

from __future__ import annotations

import dataclasses
import gc
import logging

from glore.engines.local.prefix_tree import PAGE_SIZE
from glore.errors import EngineError
from glore.own_process import release_freed_memory

__all__ = ["Limits", "affordable_pages", "free_unused", "halved", "plan_pages"]

_log = logging.getLogger(__name__)
_TOKENS_PER_ROW = 256
"""Room for keys and values, where nothing else is asked for."""
_MOST_TOKENS_PER_ROW = 4096
"""On a GPU, more room is taken only if `cache_tokens` asks for it."""
_MEMORY_SHARE = 0.85
"""Of a GPU's free memory, for keys, values and logits."""
_WORDS_PER_LOGIT = 6
"""32-bit words for a row's logits, held twice, and for what filtered drawing sorts."""
_TOO_SMALL = "not enough memory for a single completion; use a smaller model or another machine"


def plan_pages(
    max_rows: int, context: int, cache_tokens: int | None, affordable: int | None
) -> int:
    """Pages of keys and values for an engine with `max_rows` rows.

    `context`: the model's longest text in tokens. `cache_tokens`: room that is asked for; none: by
    the number of rows. `affordable`: pages that a GPU has memory for; none: not known.
    """
    # At least one text of full length must fit; its segments may leave some pages half empty.
    least = 2 * min(context, _MOST_TOKENS_PER_ROW)
    n_pages = -(-(cache_tokens or max(max_rows * _TOKENS_PER_ROW, least)) // PAGE_SIZE)
    if affordable is None or cache_tokens is not None:
        return n_pages
    # What the GPU has room for, up to what rows of full length can use.
    full = -(-max_rows * min(context, _MOST_TOKENS_PER_ROW) // PAGE_SIZE)
    return min(affordable, full + n_pages)


def affordable_pages(free_bytes: int, bytes_per_page: int, max_rows: int, n_vocab: int) -> int:
    """Pages that fit into a GPU's free memory beside what `max_rows` rows need; at least one."""
    rows = max_rows * n_vocab * 4 * _WORDS_PER_LOGIT
    return max(1, int((free_bytes * _MEMORY_SHARE - rows) // bytes_per_page))


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a scheduler holds at once."""

    max_rows: int
    n_pages: int
    """Pages of keys and values."""
    prompt_tokens: int
    """Prompt tokens of one forward pass."""

    def halved(self, longest: int, error: BaseException) -> Limits:
        """Half of everything, after `error`.

        Pages for the longest completion in progress (`longest`) remain. Raises EngineError when
        nothing is left to halve.
        """
        least = min(self.n_pages, longest)
        smaller = Limits(
            max(1, self.max_rows // 2),
            max(least, self.n_pages // 2),
            max(PAGE_SIZE, self.prompt_tokens // 2),
        )
        if smaller == self:
            raise EngineError(_TOO_SMALL) from error
        _log.warning(
            "out of memory; continuing with %d rows and %d tokens' keys and values",
            smaller.max_rows,
            smaller.n_pages * PAGE_SIZE,
        )
        return smaller


def halved(
    n: int, unit: str, error: BaseException, least: int = 1, too_small: str = _TOO_SMALL
) -> int:
    """Half of `n` rows or tokens (`unit`), after `error`.

    Raises EngineError with the message `too_small` when `n` is not above `least`.
    """
    if n <= least:
        raise EngineError(too_small) from error
    _log.warning("out of memory; continuing with %d %s at a time", n // 2, unit)
    return n // 2


def free_unused() -> None:
    """Give memory that nothing refers to any more back to the GPU and the system.

    A model's modules refer to one another, so the garbage collector runs first.
    """
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    release_freed_memory()
