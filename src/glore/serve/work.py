"""What a request asks the models for, and what it gets back."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future

from glore.engines.protocol import SamplingParams
from glore.prompts import PromptLayout
from glore.records import Refinement
from glore.serve.drawn_tokens import DrawnToken
from glore.serve.failures import ApiError

__all__ = [
    "Answer",
    "Candidate",
    "Choice",
    "Draw",
    "Job",
    "Prompt",
    "Sampling",
    "Scores",
    "Scoring",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Draw:
    """How to sample."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stops: tuple[str, ...]
    seed: int
    """All else being equal, the same seed gives the same answer, whatever else is sampled."""
    n_logprobs: int | None = None
    """Likeliest tokens to show beside each drawn one, with their log-probabilities; none: those of
    the drawn tokens are not wanted either.
    """

    def params(self, stop: bool = False) -> SamplingParams:
        """The engine's parameters. `stop`: whether the engine is to look for a single stop."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_tokens,
            stop=self.stops[0] if stop and len(self.stops) == 1 else "",
            logprobs=self.n_logprobs is not None,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """A question and its layout."""

    question: str
    layout: PromptLayout
    n_tokens: int
    """Of the student's prompt."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """Answers of one model to one or several questions."""

    model: str
    prompts: tuple[Prompt, ...]
    n: int
    best_of: int
    """Solutions to choose from; for glore-cascade, samples at most."""
    draw: Draw
    samples: Draw | None = None
    """For glore-cascade: how to draw the samples; `draw` is how to draw the draft."""
    every_mark: bool = False
    """For the model glore: also refine from every step that some threshold would mark."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scoring:
    """A solution to score."""

    question: str
    steps: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A solution that some threshold lets the reranker choose from."""

    kind: str
    """`draft`, `global` or `local`."""
    marked_step: int | None
    """Of a local refinement: the 0-based step that `[BAD]` preceded."""
    steps: tuple[str, ...]
    orm: tuple[float, ...]
    """Probability after every step."""
    sorm: tuple[float, ...]
    score: float
    """The reranker's."""
    answer: str | None
    n_tokens: int
    finish_reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """One answer to one question."""

    text: str
    finish_reason: str
    """`stop`, or `length` where the text was cut by `max_tokens` or the model's context."""
    work: str = ""
    """What a composite model did, as text; empty for the student."""
    refinement: Refinement | None = None
    """Every value on the way, for the model glore."""
    tokens: tuple[DrawnToken, ...] | None = None
    """Every token that was drawn for the text, where `Draw.n_logprobs` asks for them."""
    candidates: tuple[Candidate, ...] = ()
    """With `Sampling.every_mark`: the draft, its global refinement, then local ones by their mark.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a `Sampling`: n choices of the first question, then of the second, …"""

    choices: tuple[Choice, ...]
    completion_tokens: int
    """Everything that was sampled, not only what is shown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """The answer to a `Scoring`: probabilities after every step."""

    orm: tuple[float, ...]
    sorm: tuple[float, ...]


@dataclasses.dataclass(eq=False)
class Job:
    """A request that waits or is worked on. Its future gets an Answer or Scores.

    `on_text` is told, in the worker's thread, the index of a choice and the beginning of its text,
    where the engine can say (`glore.engines.partial`); of a composite model's, of its `work`.
    """

    work: Sampling | Scoring
    on_text: Callable[[int, str], None] | None = None
    submitted: int = dataclasses.field(default_factory=time.time_ns)
    """Nanoseconds since 1970."""
    begun: int | None = None
    """When the models took it."""
    is_wanted: bool = True
    """Whether the client still waits."""
    future: Future[Answer | Scores] = dataclasses.field(default_factory=Future)

    def give_up(self) -> None:
        """Nobody waits for it any more: it is not begun, and what is drawn for it ends."""
        self.is_wanted = False
        self.future.cancel()

    def end_unwanted(self) -> None:
        """End it with an error, if nobody waits and it has no answer."""
        if not self.is_wanted and not self.future.done():
            self.future.set_exception(ApiError(499, "the client went away"))
