"""Reads the answer of an OpenAI-compatible `/v1/completions`: bytes in, checked completions out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

from glore.errors import has_lone_surrogate, shown

__all__ = ["Answer", "Choice", "MissingFieldError", "Payload", "TransientError", "read_answer"]

Payload = dict[str, object]
"""What was sent."""

STOPS = {"stop": "eos", "eos": "eos", "eos_token": "eos", "length": "length"}
"""The server's `finish_reason` → ours."""


class Choice(NamedTuple):
    """One completion as the server gave it."""

    text: str
    stop: str
    """`eos`, `stop` or `length`."""
    logprobs: tuple[float, ...] | None = None
    """Of the drawn tokens, where they were asked for."""


class Answer(NamedTuple):
    """The completions of a call, in the order of their index."""

    choices: tuple[Choice, ...]
    n_tokens: int | None
    """Of all choices together, as the server counts them; none if it doesn't."""


class TransientError(Exception):
    """A failure after which another try may succeed. `wait`: seconds the server asked for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class MissingFieldError(Exception):
    """The server's answers lack a field that is needed; another try won't help."""


def read_answer(body: bytes, n: int, payload: Payload) -> Answer:
    """The checked contents of an answer to `payload`, which asked for `n` choices.

    Raises TransientError for a malformed answer (a proxy or a dying server may have cut it), and
    MissingFieldError.
    """
    try:
        data = json.loads(body)
    except ValueError as error:
        raise TransientError(f"the answer is not JSON: {_start_of(body)}") from error
    except RecursionError as error:
        raise TransientError(f"the answer is JSON nested too deeply: {_start_of(body)}") from error
    choices = data.get("choices") if isinstance(data, dict) else None
    if (
        not isinstance(choices, list)
        or len(choices) != n
        or not all(isinstance(c, dict) for c in choices)
    ):
        raise TransientError(f"the answer has not the {n} choices asked for: {_start_of(body)}")
    choices = _in_order(choices, body)
    return Answer(
        tuple(_choice(c, payload) for c in choices), _n_tokens(data.get("usage"), n, payload)
    )


def _in_order(choices: list[dict[str, object]], body: bytes) -> list[dict[str, object]]:
    """The choices by their index, if they have one. Raises TransientError."""
    given = [c.get("index") for c in choices]
    if all(index is None for index in given):
        return choices
    numbers = [_whole(index) for index in given]
    if sorted(x for x in numbers if x is not None) == list(range(len(choices))):
        return [
            c for _, c in sorted(zip(numbers, choices, strict=True), key=lambda pair: pair[0] or 0)
        ]
    if None in numbers:
        wrong = f"the index {shown(given[numbers.index(None)], 40)}"
    else:
        wrong = (
            "one index twice"
            if len(set(numbers)) < len(numbers)
            else f"the indices {shown(numbers, 40)}"
        )
    raise TransientError(
        f"the answer has not the {len(choices)} choices asked for, but {wrong}: {_start_of(body)}"
    )


def _n_tokens(usage: object, n: int, payload: Payload) -> int | None:
    """The number of tokens that the server counts; none if it doesn't.

    Raises TransientError for an impossible number.
    """
    counted, most_tokens = (
        usage.get("completion_tokens") if isinstance(usage, dict) else None,
        payload["max_tokens"],
    )
    assert isinstance(most_tokens, int)
    if usage is not None and not isinstance(usage, dict):
        raise TransientError(f"the answer's usage is no object with counts: {shown(usage, 40)}")
    if counted is None:
        return None
    number = _whole(counted)
    if number is None or number < 0:
        raise TransientError(
            f"the answer counts {shown(counted, 40)} tokens, which is no whole number "
            "(usage.completion_tokens)"
        )
    if number > n * most_tokens:
        raise TransientError(
            f"the answer counts {shown(counted, 40)} tokens where {n * most_tokens} were allowed "
            "(usage.completion_tokens)"
        )
    return number or None


def _whole(value: object) -> int | None:
    """A whole number of JSON, or none. `true` is not one, though Python takes it for 1."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _choice(choice: Mapping[str, object], payload: Payload) -> Choice:
    text, reason = choice.get("text"), choice.get("finish_reason")
    if not isinstance(text, str) or not isinstance(reason, str) or reason not in STOPS:
        raise TransientError(
            f"a choice with text {shown(text, 40)} and finish_reason {shown(reason, 40)}, not one "
            f"of {', '.join(STOPS)}"
        )
    if has_lone_surrogate(text):
        raise TransientError(
            f"a choice whose text holds half a Unicode character: {shown(text, 40)}"
        )
    stop, logprobs = STOPS[reason], None
    if "logprobs" in payload:
        logprobs = _logprobs(choice.get("logprobs"))
        if logprobs is None:
            raise MissingFieldError(
                "the server gives no log-probabilities; sample without logprobs, or serve the "
                "model with vLLM"
            )
        if not all(map(math.isfinite, logprobs)):
            raise TransientError("a choice with a log-probability that is no finite number")
    if stop == "eos" and "stop" in payload:
        # vLLM's name, or SGLang's: the stop string, or a token id or null.
        reasons = [choice[name] for name in ("stop_reason", "matched_stop") if name in choice]
        if not reasons:
            raise MissingFieldError(
                "the server does not tell the end of a text from a stop; sample without stop, or "
                "serve the model with vLLM"
            )
        if not (
            reasons[0] is None or isinstance(reasons[0], str) or _whole(reasons[0]) is not None
        ):
            raise TransientError(
                f"a choice whose stop_reason is no text, token or null: {shown(reasons[0], 40)}"
            )
        stop = "stop" if isinstance(reasons[0], str) else "eos"
    return Choice(
        text.partition(str(payload["stop"]))[0] if "stop" in payload else text, stop, logprobs
    )


def _logprobs(given: object) -> tuple[float, ...] | None:
    """The drawn tokens' log-probabilities; none if there are none.

    They come in OpenAI's format, or in that of its chat interface (llama.cpp).
    """
    if not isinstance(given, dict):
        return None
    values = given.get("token_logprobs")
    if values is None:
        content = given.get("content")
        if content is None:
            return None
        values = (
            [token.get("logprob") if isinstance(token, dict) else token for token in content]
            if isinstance(content, list)
            else content
        )
    if isinstance(values, list) and None in values:
        return None
    if not isinstance(values, list) or not all(
        isinstance(x, int | float) and not isinstance(x, bool) for x in values
    ):
        raise TransientError(
            f"a choice whose log-probabilities are no list of numbers: {shown(values, 40)}"
        )
    try:
        return tuple(float(x) for x in values)
    except OverflowError as error:
        raise TransientError("a choice with a log-probability that is no finite number") from error


def _start_of(body: bytes) -> str:
    return shown(body[:80].decode("utf-8", "replace"))
