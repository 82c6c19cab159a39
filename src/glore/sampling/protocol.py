"""The Engine protocol: many (prompt, seeds) → completions. Engines know tokens and models, not the method.

Guarantees every engine gives (tests/parity holds them): a completion depends only on (model, prompt, params, seed),
never on batch size, batch mates, order, or restarts (up to floating-point ties between engines and batch shapes, which
can flip a token whose cumulative probability falls within rounding error of the random number); `follow_up` may add
requests as results arrive; results come as they finish, in any order.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

__all__ = ["Completion", "Engine", "FollowUp", "Request", "Result", "SamplingParams", "stable_seed"]


@dataclasses.dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw. `temperature` 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: off."""
    max_new_tokens: int = 300


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One prompt and the seeds of its n completions."""

    id: str
    segments: tuple[str, ...]
    """The prompt in pieces, encoded one by one and joined (`glore.prompts`)."""
    seeds: tuple[int, ...]
    """One completion is drawn per seed; seeds are 63-bit non-negative integers."""
    params: SamplingParams


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """One drawn completion (special tokens removed from `text`)."""

    text: str
    n_tokens: int
    """Tokens drawn, the end-of-text token included."""
    stop: str
    """`eos`, or `length` when `max_new_tokens` (or the model's context) ran out."""
    seed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """All completions of one request, in the order of its seeds."""

    request: Request
    completions: tuple[Completion, ...]


FollowUp = Callable[[Result], Iterable[Request]]


class Engine(Protocol):
    """What every sampler does."""

    def run(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Result]:
        """Draw every request's completions; `follow_up(result)` may return further requests (the backward scan does)."""
        ...


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from the run's seed and names, the same on every machine and in every process."""
    digest = hashlib.blake2b("\x1f".join(str(p) for p in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
