"""How long a fuzz target runs: a moment in CI; GLORE_FUZZ_SECONDS seconds each where that is set,
with other inputs in every round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

__all__ = ["fuzz"]


def fuzz(
    attack: Callable[..., None], *inputs: st.SearchStrategy[object], examples: int = 150
) -> int:
    """Call `attack` with drawn inputs; what it raises is shrunk and shown. Returns the number of
    calls.

    The first round draws the same inputs every time, so that CI doesn't fail by chance.
    """
    end = time.monotonic() + float(os.environ.get("GLORE_FUZZ_SECONDS", "0"))
    n_calls = n_rounds = 0

    def counted(arguments: tuple[object, ...]) -> None:
        nonlocal n_calls
        n_calls += 1
        attack(*arguments)

    while n_rounds == 0 or time.monotonic() < end:
        options = settings(
            max_examples=examples,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        seed(n_rounds)(options(given(st.tuples(*inputs))(counted)))()
        n_rounds += 1
    print(f"{n_calls} inputs in {n_rounds} rounds")
    return n_calls
