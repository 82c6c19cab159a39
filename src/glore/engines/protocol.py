"""The Engine protocol: many (prompt, seeds) → completions. Engines know tokens and models, not the
method.

Every engine guarantees the following (tests/parity holds it):
- A completion depends only on (model, prompt, params, seed), never on batch size, batch mates,
  order or restarts. Floating-point rounding differs between engines and batch shapes; it can flip a
  token whose cumulative probability is within rounding error of the random number.
- With `stop`, the text is what comes before the stop in the text without it.
- `follow_up` may add requests as results arrive. Results come as they are complete, in any order.
- An engine without log-probabilities or stops refuses a request for them.
- `close` leaves no process and no memory behind. A closed engine refuses to draw; closing twice is
  fine. Engines are context managers: `with open_engine(…) as engine`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from glore.errors import ModelError, shown

if TYPE_CHECKING:
    from glore.config.section import SamplingSettings

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
    """End a completion where its text first contains this string, which is left out; "": off. Such
    as `glore.prompts.STEP_END`.
    """
    logprobs: bool = False
    """Whether to give `Completion.logprobs`."""

    @classmethod
    def of(cls, settings: SamplingSettings | None, max_new_tokens: int) -> SamplingParams:
        """The parameters that a section of the settings asks for; none: greedy."""
        if settings is None:
            return cls(temperature=0.0, max_new_tokens=max_new_tokens)
        return cls(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_new_tokens=max_new_tokens,
        )


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
    """Why it ended: `eos` by the end-of-text token, `stop` by `SamplingParams.stop`, `length` by
    `max_new_tokens` or the model's context.
    """
    seed: int
    logprobs: tuple[float, ...] | None = None
    """Natural logarithm of each drawn token's probability [n_tokens]; none if not asked for. The
    probability is the model's own, before temperature, top-k and top-p, as in vLLM by default
    (`raw_logprobs`).
    """
    tokens: tuple[int, ...] | None = None
    """With `logprobs`: the ids of the drawn tokens [n_tokens]; none where the engine gets only text
    (`kind: http`).
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """All completions of one request, in the order of its seeds."""

    request: Request
    completions: tuple[Completion, ...]


FollowUp = Callable[[Result], Iterable[Request]]


class Engine(Protocol):
    """What every sampler does. `glore.engines.lifetime.Closable` has all but `run`, `backend`."""

    @property
    def backend(self) -> str:
        """What reads the model, in words: `native int8`, `fallback float32 (reason)`, `vllm`, …"""
        ...

    @property
    def warning(self) -> str:
        """Why a slower backend is used, and what that costs; "" if the best one is used."""
        ...

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Draw every request's completions and yield the results as they become complete.

        `follow_up(result)` may return further requests, as the backward scan does. Raises
        EngineError after `close`.
        """
        ...

    def close(self) -> None:
        """End what was started for the engine and free its memory."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the engine."""
        ...


def check_scores(model: str, question: str, scores: Sequence[float]) -> None:
    """Refuse scores of a solution's steps that are no probabilities.

    Raises ModelError naming the reward model, the question, the step (1-based) and the value.
    """
    for step, value in enumerate(scores, start=1):
        if not 0 <= value <= 1:  # which NaN is not
            raise ModelError(
                f"the reward model {shown(model, 300)} gave {value} for step {step} of a solution "
                f"of {shown(question, 60)}, which is no probability; train it again (with a lower "
                "learning rate, or in float32), or set engine.dtype=float32"
            )
