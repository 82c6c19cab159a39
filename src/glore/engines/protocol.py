"""The Engine protocol: many (prompt, seeds) → completions. Engines know tokens and models, not the
method.

Guarantees every engine gives (tests/parity holds them): a completion depends only on (model,
prompt, params, seed), never on batch size, batch mates, order, or restarts (up to floating-point
ties between engines and batch shapes, which can flip a token whose cumulative probability falls
within rounding error of the random number); with `stop` its text is what comes before the stop in
the text without it; `follow_up` may add requests as results arrive; results come as they finish, in
any order. An engine that has no log-probabilities, or can't stop, refuses such a request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from glore.errors import ModelError, shown

__all__ = [
    "Completion",
    "Engine",
    "FollowUp",
    "Request",
    "Result",
    "SamplingParams",
    "check_scores",
]


@dataclasses.dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw. `temperature` 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: off."""
    max_new_tokens: int = 300
    stop: str = ""
    """End a completion where its text first holds this, and leave this and what follows out; "":
    off (`glore.prompts.STEP_END`).
    """
    logprobs: bool = False
    """Whether to give `Completion.logprobs`."""


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
    """Tokens drawn, the end-of-text token and those of `SamplingParams.stop` included."""
    stop: str
    """`eos`; `stop` where the text came to `SamplingParams.stop`; `length` when `max_new_tokens`
    (or the model's context) ran out.
    """
    seed: int
    logprobs: tuple[float, ...] | None = None
    """Natural logarithm of each drawn token's probability [n_tokens], none if not asked for. As
    vLLM's default (`raw_logprobs`) it is the model's own probability: before temperature, top-k and
    top-p.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """All completions of one request, in the order of its seeds."""

    request: Request
    completions: tuple[Completion, ...]


FollowUp = Callable[[Result], Iterable[Request]]


class Engine(Protocol):
    """What every sampler does."""

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Draw every request's completions; `follow_up(result)` may return further requests (the
        backward scan does).
        """
        ...


def check_scores(model: str, question: str, scores: Sequence[float]) -> None:
    """Refuse scores of a solution's steps that are no probabilities: no record, label or choice may
    follow from them.

    Raises ModelError naming the reward model, the question, the step (1-based) and the value.
    """
    for step, value in enumerate(scores, start=1):
        if not 0 <= value <= 1:  # which NaN is not
            raise ModelError(
                f"the reward model {shown(model, 300)} gave {value} for step {step} of a solution "
                f"of {shown(question, 60)}, which is no probability; train it again (with a lower "
                "learning rate, or in float32), or set engine.dtype=float32"
            )
