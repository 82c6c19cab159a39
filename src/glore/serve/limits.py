"""What a server accepts. Whatever exceeds a limit is refused, never cut silently."""

from __future__ import annotations

import dataclasses

from glore.prompts import MAX_QUESTION_CHARS

__all__ = ["Limits"]


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request, of the queue and of time."""

    body_bytes: int = 2**20
    body_seconds: float = 30
    """For a client to send its body."""
    prompt_chars: int = MAX_QUESTION_CHARS
    """Of a question, and of the whole conversation before it."""
    prompts: int = 64
    """Prompts in a list."""
    n: int = 16
    samples: int = 64
    """Solutions to choose from (`best_of`)."""
    completions: int = 256
    """Prompts × n × `best_of`."""
    tokens: int = 2048
    """`max_tokens`: of every sampled text."""
    steps: int = 256
    """Steps of a solution to score."""
    stops: int = 16
    queue: int = 256
    """Requests that wait for the models."""
    seconds: float = 300
    """From a request's arrival to its answer."""
    drain_seconds: int = 60
    """After SIGTERM, for the requests that were accepted."""
