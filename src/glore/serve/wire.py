"""Answers → OpenAI's JSON objects, and the pieces of a stream."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from glore.serve.drawn_tokens import DrawnToken
from glore.serve.served import COMPOSITE
from glore.serve.work import Answer, Choice, Sampling

__all__ = ["Wire", "event", "model_entry", "models_list", "trace"]

Json = dict[str, object]


@dataclasses.dataclass(frozen=True)
class Wire:
    """The answer to one request. `is_chat`: a chat completion, not a text completion."""

    work: Sampling
    is_chat: bool
    include_usage: bool = False
    """Whether a stream ends with the numbers of tokens."""
    id: str = dataclasses.field(default_factory=lambda: secrets.token_hex(12))
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> Json:
        """The answer as one object."""
        choices = [self._choice(i, choice) for i, choice in enumerate(answer.choices)]
        return {**self._head(False), "choices": choices, "usage": usage(self.work, answer)}

    def opening(self) -> Iterator[Json]:
        """What a stream says before the models have answered: the role of each choice."""
        if self.is_chat:
            for index in range(len(self.work.prompts) * self.work.n):
                yield self._piece(index, {"role": "assistant", "content": ""})

    def part(self, index: int, text: str) -> Json:
        """A part of a choice's text that has been drawn, or of the work of a composite model."""
        is_work = self.work.model in COMPOSITE
        return self._piece(index, {"reasoning_content" if is_work else "content": text})

    def pieces(self, answer: Answer, sent: Mapping[int, int]) -> Iterator[Json]:
        """The answer as a stream, line by line; a composite model's work first. `sent`: characters
        of each choice that were sent as parts.
        """
        is_work = self.work.model in COMPOSITE
        for index, choice in enumerate(answer.choices):
            if choice.tokens is not None:  # nothing of it was sent
                yield from self._token_pieces(index, choice.tokens)
                yield self._piece(index, {}, choice.finish_reason)
                continue
            begin = sent.get(index, 0)
            for text in choice.work[begin if is_work else 0 :].splitlines(keepends=True):
                yield self._piece(index, {"reasoning_content": text})
            for text in choice.text[0 if is_work else begin :].splitlines(keepends=True):
                yield self._piece(index, {"content": text})
            yield self._piece(index, {}, choice.finish_reason)
        if self.include_usage:
            yield {**self._head(True), "choices": [], "usage": usage(self.work, answer)}

    def _head(self, streams: bool) -> Json:
        kind = "chat.completion" if self.is_chat else "text_completion"
        if self.is_chat and streams:
            kind += ".chunk"
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.work.model,
        }

    def _choice(self, index: int, choice: Choice) -> Json:
        work = {"reasoning_content": choice.work} if choice.work else {}
        content: Json = (
            {"message": {"role": "assistant", "content": choice.text, "refusal": None, **work}}
            if self.is_chat
            else {"text": choice.text, **work}
        )
        return {
            "index": index,
            **content,
            "logprobs": None if choice.tokens is None else self._logprobs(choice.tokens),
            "finish_reason": choice.finish_reason,
        }

    def _token_pieces(self, index: int, tokens: Sequence[DrawnToken]) -> Iterator[Json]:
        offset = 0
        for token in tokens:
            logprobs = self._logprobs([token], offset)
            yield self._piece(index, {"content": token.text}, logprobs=logprobs)
            offset += len(token.text)

    def _logprobs(self, tokens: Sequence[DrawnToken], offset: int = 0) -> Json:
        """Log-probabilities of drawn tokens. `offset`: where the first one begins in the text."""
        if self.is_chat:
            shown = bool(self.work.draw.n_logprobs)
            entries: list[Json] = [
                {"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in tokens
            ]
            content = [{**e, "top_logprobs": [e] if shown else []} for e in entries]
            return {"content": content, "refusal": None}
        ends = accumulate((len(t.text) for t in tokens), initial=offset)
        return {
            "tokens": [t.text for t in tokens],
            "token_logprobs": [t.logprob for t in tokens],
            "top_logprobs": [{t.text: t.logprob} for t in tokens],
            "text_offset": list(ends)[:-1],
        }

    def _piece(
        self,
        index: int,
        delta: Json,
        finish_reason: str | None = None,
        logprobs: Json | None = None,
    ) -> Json:
        content: Json = {"delta": delta}
        if not self.is_chat:
            content = {"text": delta.pop("content", ""), **delta}
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish_reason}
        last: Json = {"usage": None} if self.include_usage else {}
        return {**self._head(True), "choices": [choice], **last}


def usage(work: Sampling, answer: Answer) -> Json:
    """The numbers of tokens. Those of the completion are all that were sampled."""
    prompt = sum(p.n_tokens for p in work.prompts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": prompt + answer.completion_tokens,
    }


def trace(work: Sampling, answer: Answer) -> Json:
    """Every value of a refinement; with `every_mark`, also `solutions` (`work.Candidate`)."""
    (choice,) = answer.choices
    assert choice.refinement is not None
    more = bool(choice.candidates)
    return {
        "object": "refinement",
        **{k: v for k, v in dataclasses.asdict(choice.refinement).items() if k != "problem_id"},
        "text": choice.text,
        "finish_reason": choice.finish_reason,
        "usage": usage(work, answer),
        **({"solutions": list(map(dataclasses.asdict, choice.candidates))} if more else {}),
    }


def models_list(names: tuple[str, ...], created: int) -> Json:
    """The list of models."""
    return {"object": "list", "data": [model_entry(name, created) for name in names]}


def model_entry(name: str, created: int) -> Json:
    """One model of the list."""
    return {"id": name, "object": "model", "created": created, "owned_by": "glore"}


def event(value: Json | str) -> str:
    """One server-sent event."""
    return f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n"
