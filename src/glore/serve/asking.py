"""Bodies of requests → work for the models, checked before anything is sampled."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from typing import Protocol

from glore.cascade import N_SAMPLES
from glore.config.section import MAX_TEMPERATURE, MAX_TOP_K, MIN_TEMPERATURE
from glore.errors import shown
from glore.prompts import PromptLayout
from glore.serve.bodies import (
    ChatBody,
    CompletionBody,
    RefineBody,
    SamplingBody,
    ScoreBody,
    check_extra,
)
from glore.serve.conversation import check_unicode, read_conversation
from glore.serve.failures import ApiError, invalid, too_large
from glore.serve.limits import Limits
from glore.serve.served import (
    CASCADE,
    GLORE,
    MODELS,
    SAMPLING,
    STUDENT,
    Served,
)
from glore.serve.work import Draw, Prompt, Sampling, Scoring

__all__ = ["Asking"]


class _Drawing(Protocol):
    """The settings of sampling that bodies share."""

    seed: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None


class Asking:
    """Reads bodies for these models, within these limits. Every method raises ApiError."""

    def __init__(self, served: Served, limits: Limits) -> None:
        self._served, self._limits = served, limits

    def completion(self, body: CompletionBody) -> Sampling:
        """`/v1/completions`: every prompt is a question."""
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if not prompts:
            raise invalid("prompt", "the list of prompts is empty; give at least one")
        if len(prompts) > self._limits.prompts:
            raise too_large("prompt", "prompts in a list", self._limits.prompts, len(prompts))
        layout = self._served.refiner.layout
        if body.logprobs is True:
            raise invalid("logprobs", "logprobs is a number here: 0 for those of the drawn tokens")
        n_logprobs = None if body.logprobs is False else body.logprobs
        made = [self._prompt("prompt", text, layout) for text in prompts]
        return self._with_logprobs(self._sampling(body, made), "logprobs", n_logprobs)

    def chat(self, body: ChatBody) -> Sampling:
        """`/v1/chat/completions`: the last message of the user is the question."""
        question, layout = read_conversation(self._served, self._limits, body)
        most = body.top_logprobs or 0
        if most and not body.logprobs:
            raise invalid("top_logprobs", "top_logprobs needs logprobs=true")
        work = self._sampling(body, [self._prompt("messages", question, layout)])
        return self._with_logprobs(work, "top_logprobs", most if body.logprobs else None)

    def refine(self, body: RefineBody) -> Sampling:
        """`/v1/refine`."""
        prompt = self._prompt("question", body.question, self._served.refiner.layout)
        draw = self._draw(GLORE, body, body.max_tokens, ())
        return Sampling(GLORE, (prompt,), 1, 1, draw, every_mark=bool(body.every_mark))

    def score(self, body: ScoreBody) -> Scoring:
        """`/v1/score`."""
        layout = self._served.refiner.layout
        question = self._prompt("question", body.question, layout).question
        if len(body.steps) > self._limits.steps:
            raise too_large("steps", "steps of a solution", self._limits.steps, len(body.steps))
        steps = tuple(step.strip() for step in body.steps)
        n_chars = sum(map(len, steps))
        if n_chars > layout.steps.max_chars:
            raise too_large("steps", "characters of a solution", layout.steps.max_chars, n_chars)
        for number, step in enumerate(steps, start=1):
            if layout.steps.split(step) != (step,):
                what = "line" if layout.steps.end == "\n" else "paragraph"
                raise invalid("steps", f"step {number} is not one {what}: {shown(step, 60)}")
        return Scoring(question, steps)

    def _prompt(self, param: str, text: str, layout: PromptLayout) -> Prompt:
        most = self._limits.prompt_chars
        if len(text) > most:
            raise too_large(param, "characters of a question", most, len(text))
        check_unicode(param, text)
        question = text.strip()
        if not question:
            raise invalid(param, "the question is empty; give the text of a problem")
        n_tokens, context = self._served.n_tokens(layout.solve(question)), self._served.context
        if context is not None and n_tokens >= context:
            raise invalid(
                param,
                f"the prompt has {n_tokens} tokens and the student's context is {context}; "
                "shorten the question",
                "context_length_exceeded",
            )
        return Prompt(question, layout, n_tokens)

    def _sampling(self, body: SamplingBody, prompts: Sequence[Prompt]) -> Sampling:
        if body.model not in MODELS:
            raise ApiError(
                404,
                f"there is no model {shown(body.model)}; the models are {', '.join(MODELS)}",
                param="model",
                code="model_not_found",
            )
        check_extra(body)
        if body.stream_options is not None and not body.stream:
            raise invalid("stream_options", "stream_options needs stream=true")
        n = self._count("n", body.n, 1, self._limits.n)
        best_of = 1
        if body.model in SAMPLING:
            default = N_SAMPLES if body.model == CASCADE else self._served.best_of
            best_of = self._count("best_of", body.best_of, default, self._limits.samples)
        elif body.best_of not in (None, 1):
            raise invalid("best_of", f"best_of is for {', '.join(SAMPLING)}", "unsupported")
        total = len(prompts) * n * best_of
        if total > self._limits.completions:
            raise too_large(
                "n", "prompts × n × best_of of a request", self._limits.completions, total
            )
        given = body.max_tokens, body.max_completion_tokens
        if None not in given and given[0] != given[1]:
            raise invalid("max_tokens", "max_tokens and max_completion_tokens differ; give one")
        tokens = given[1] if given[0] is None else given[0]
        draw = self._draw(body.model, body, tokens, self._stops(body.stop))
        samples = None
        if body.model == CASCADE:
            samples = draw
            draw = self._draw(STUDENT, body, tokens, samples.stops, samples.seed)
        return Sampling(body.model, tuple(prompts), n, best_of, draw, samples)

    def _with_logprobs(self, work: Sampling, param: str, n_logprobs: int | None) -> Sampling:
        """The same work with log-probabilities: of the drawn tokens, and of so many likeliest ones.

        The engine knows the first. At temperature 0 the drawn token is the likeliest.
        """
        if n_logprobs is None:
            return work
        if work.model != STUDENT:
            raise invalid(
                "logprobs",
                f"log-probabilities are those of a text as it is drawn, and {work.model} chooses "
                f"among several; leave logprobs out, or ask {STUDENT}",
                "unsupported",
            )
        most = 1 if work.draw.temperature == 0 else 0
        if not 0 <= n_logprobs <= most:
            raise invalid(
                param,
                f"{param} is 0 or, at temperature 0, 1: the engine gives the log-probability of "
                f"the token that is drawn, and of no other; got {n_logprobs}",
                "unsupported",
            )
        return dataclasses.replace(work, draw=dataclasses.replace(work.draw, n_logprobs=n_logprobs))

    def _draw(
        self,
        model: str,
        body: _Drawing,
        max_tokens: int | None,
        stops: tuple[str, ...],
        seed: int | None = None,
    ) -> Draw:
        """How to draw for a model. `seed`: if the body has none; none: a new one."""
        served, limits = self._served, self._limits
        tokens = self._count(
            "max_tokens",
            max_tokens,
            min(served.refiner.options.max_new_tokens, limits.tokens),
            limits.tokens,
        )
        default: tuple[float, float, int] = (0.0, 1.0, 0)
        if model in SAMPLING:
            default = served.temperature, served.top_p, served.top_k
        if body.seed is not None:
            seed = body.seed
        draw = Draw(
            default[0] if body.temperature is None else body.temperature,
            default[1] if body.top_p is None else body.top_p,
            default[2] if body.top_k is None else max(0, body.top_k),
            tokens,
            stops,
            secrets.randbits(63) if seed is None else seed,
        )
        if draw.temperature != 0 and not MIN_TEMPERATURE <= draw.temperature <= MAX_TEMPERATURE:
            raise invalid(
                "temperature",
                f"temperature is 0 (greedy) or from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}, "
                f"got {draw.temperature:g}",
            )
        if draw.top_p == 0:  # OpenAI's range includes it: the likeliest token alone
            draw = dataclasses.replace(draw, top_p=1.0, temperature=0.0)
        if not 0 < draw.top_p <= 1:
            raise invalid("top_p", f"top_p is from 0 to 1, got {draw.top_p:g}")
        if not -1 <= (body.top_k or 0) <= MAX_TOP_K:
            raise invalid("top_k", f"top_k is from 0 (off) to {MAX_TOP_K}, got {body.top_k}")
        if not -(2**63) <= draw.seed < 2**63:
            raise invalid("seed", "seed is a 64-bit integer")
        return draw

    def _stops(self, stop: str | list[str] | None) -> tuple[str, ...]:
        stops = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
        stops = tuple(dict.fromkeys(s for s in stops if s))
        if len(stops) > self._limits.stops:
            raise too_large("stop", "stops", self._limits.stops, len(stops))
        for text in stops:
            check_unicode("stop", text)
        return stops

    def _count(self, name: str, given: int | None, default: int, most: int) -> int:
        value = default if given is None else given
        if value < 1:
            raise invalid(name, f"{name} is at least 1, got {value}")
        if value > most:
            raise too_large(name, name, most, value)
        return value
