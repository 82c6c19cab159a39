"""Bodies of requests → work for the models, checked before anything is sampled."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from typing import Protocol

from glore.config.section import MAX_TEMPERATURE, MAX_TOP_K, MIN_TEMPERATURE
from glore.errors import has_lone_surrogate, shown
from glore.prompts import PromptLayout
from glore.serve.bodies import (
    ChatBody,
    CompletionBody,
    Message,
    RefineBody,
    SamplingBody,
    ScoreBody,
    check_extra,
)
from glore.serve.failures import ApiError, invalid, too_large
from glore.serve.limits import Limits
from glore.serve.served import BEST_OF_N, COMPOSITE, GLORE, MAJORITY, MODELS, STUDENT, Served
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
        return self._sampling(body, [self._prompt("prompt", text, layout) for text in prompts])

    def chat(self, body: ChatBody) -> Sampling:
        """`/v1/chat/completions`: the last message of the user is the question."""
        question, layout = self._conversation(body)
        return self._sampling(body, [self._prompt("messages", question, layout)])

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

    def _conversation(self, body: ChatBody) -> tuple[str, PromptLayout]:
        """The question, and the layout of its prompt after the messages before it."""
        messages = body.messages
        if not messages or messages[-1].role != "user":
            raise invalid("messages", "the last message must be of the role user: the question")
        if sum(len(m.text) for m in messages) > self._limits.prompt_chars:
            raise too_large(
                "messages",
                "characters of a conversation",
                self._limits.prompt_chars,
                sum(len(m.text) for m in messages),
            )
        for message in messages:
            _check_unicode("messages", message.text)
        before = messages[:-1]
        system = None
        if before and before[0].role in ("system", "developer"):
            # An empty one asks for nothing; optillm sends it with every request.
            system, before = before[0].text if before[0].text.strip() else None, before[1:]
        if system is None and all(m.role == "user" for m in before):
            if before and self._served.refiner.layout.chat is not None:
                raise invalid("messages", "turns of user and assistant must alternate")
            return messages[-1].text, self._served.refiner.layout
        layout = self._served.conversation(system, _turns(before))
        if body.model in COMPOSITE:
            raise invalid(
                "messages",
                f"the models of {body.model} were trained to judge and refine the answer to a "
                f"question alone; leave the other messages out, or ask {STUDENT}",
                "unsupported",
            )
        return messages[-1].text, layout

    def _prompt(self, param: str, text: str, layout: PromptLayout) -> Prompt:
        most = self._limits.prompt_chars
        if len(text) > most:
            raise too_large(param, "characters of a question", most, len(text))
        _check_unicode(param, text)
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
        chooses = body.model in (BEST_OF_N, MAJORITY)
        best_of = 1
        if chooses:
            best_of = self._count(
                "best_of", body.best_of, self._served.best_of, self._limits.samples
            )
        elif body.best_of not in (None, 1):
            raise invalid("best_of", f"best_of is for {BEST_OF_N} and {MAJORITY}", "unsupported")
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
        return Sampling(body.model, tuple(prompts), n, best_of, draw)

    def _draw(
        self, model: str, body: _Drawing, max_tokens: int | None, stops: tuple[str, ...]
    ) -> Draw:
        served, limits = self._served, self._limits
        tokens = self._count(
            "max_tokens",
            max_tokens,
            min(served.refiner.options.max_new_tokens, limits.tokens),
            limits.tokens,
        )
        chooses = model in (BEST_OF_N, MAJORITY)
        default = (served.temperature, served.top_p, served.top_k) if chooses else (0.0, 1.0, 0)
        draw = Draw(
            default[0] if body.temperature is None else body.temperature,
            default[1] if body.top_p is None else body.top_p,
            default[2] if body.top_k is None else max(0, body.top_k),
            tokens,
            stops,
            secrets.randbits(63) if body.seed is None else body.seed,
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
            _check_unicode("stop", text)
        return stops

    def _count(self, name: str, given: int | None, default: int, most: int) -> int:
        value = default if given is None else given
        if value < 1:
            raise invalid(name, f"{name} is at least 1, got {value}")
        if value > most:
            raise too_large(name, name, most, value)
        return value


def _turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Earlier messages → pairs of a user's and the assistant's turn. Raises ApiError."""
    roles = [message.role for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise invalid(
            "messages",
            "messages are: one of the system if any, then user and assistant in turn, and the "
            f"question; got {', '.join([*roles, 'user'])[:200]}",
        )
    texts = [message.text for message in messages]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _check_unicode(param: str, text: str) -> None:
    if has_lone_surrogate(text):
        raise invalid(param, "the text holds half a Unicode character (a lone surrogate)")
