"""Reading the answer of an OpenAI-compatible `/v1/completions`: the completions in it, or why they can't be taken."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from typing import NamedTuple, TypeGuard

from glore.errors import has_lone_surrogate, shown

__all__ = ["Answer", "Choice", "PassingError", "Payload", "SilentError", "read_answer"]

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
    """Of all choices together, as the server counts them; none where it doesn't say."""


class PassingError(Exception):
    """Another try may do. `wait`: seconds the server asked for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class SilentError(Exception):
    """The server does not tell what was asked for; another try won't help."""


def read_answer(body: bytes, n: int, payload: Payload) -> Answer:
    """The checked contents of an answer to `payload`.

    Raises PassingError (a proxy or a dying server may have cut it) and SilentError.
    """
    try:
        data = json.loads(body)
    except ValueError as error:
        raise PassingError(f"the answer is not JSON: {_start_of(body)}") from error
    except RecursionError as error:
        raise PassingError(f"the answer is JSON nested too deeply: {_start_of(body)}") from error
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or len(choices) != n or not all(isinstance(c, dict) for c in choices):
        raise PassingError(f"the answer has not the {n} choices asked for: {_start_of(body)}")
    if all(_is_whole(c.get("index")) for c in choices):
        if len({c["index"] for c in choices}) < n:
            raise PassingError(f"the answer has not the {n} choices asked for, but one index twice: {_start_of(body)}")
        choices = sorted(choices, key=lambda c: c["index"])
    return Answer(tuple(_choice(c, payload) for c in choices), _n_tokens(data.get("usage"), n, payload))


def _n_tokens(usage: object, n: int, payload: Payload) -> int | None:
    """How many tokens the server says it drew, if it does. Raises PassingError for more than it was allowed."""
    counted, most_tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None, payload["max_tokens"]
    assert isinstance(most_tokens, int)
    if not _is_whole(counted) or counted <= 0:
        return None
    if counted > n * most_tokens:
        raise PassingError(f"the answer counts {shown(counted, 40)} tokens where {n * most_tokens} were allowed (usage.completion_tokens)")
    return counted


def _is_whole(value: object) -> TypeGuard[int]:
    """Is it a number as JSON writes them? Python counts true and false among the integers."""
    return isinstance(value, int) and not isinstance(value, bool)


def _choice(choice: Mapping[str, object], payload: Payload) -> Choice:
    text, reason = choice.get("text"), choice.get("finish_reason")
    if not isinstance(text, str) or not isinstance(reason, str) or reason not in STOPS:
        raise PassingError(f"a choice with text {shown(text, 40)} and finish_reason {shown(reason, 40)}, not one of {', '.join(STOPS)}")
    if has_lone_surrogate(text):
        raise PassingError(f"a choice whose text holds half a Unicode character: {shown(text, 40)}")
    stop, logprobs = STOPS[reason], None
    if "logprobs" in payload:
        logprobs = _logprobs(choice.get("logprobs"))
        if logprobs is None:
            raise SilentError("the server gives no log-probabilities; sample without logprobs, or serve the model with vLLM")
        if not all(map(math.isfinite, logprobs)):
            raise PassingError("a choice with a log-probability that is no finite number")
    if stop == "eos" and "stop" in payload:
        # vLLM's word, or SGLang's: the stop string, else a token id or nothing.
        reasons = [choice[name] for name in ("stop_reason", "matched_stop") if name in choice]
        if not reasons:
            raise SilentError("the server does not tell the end of a text from a stop; sample without stop, or serve the model with vLLM")
        stop = "stop" if isinstance(reasons[0], str) else "eos"
    return Choice(text.partition(str(payload["stop"]))[0] if "stop" in payload else text, stop, logprobs)


def _logprobs(given: object) -> tuple[float, ...] | None:
    """The drawn tokens' log-probabilities in OpenAI's form, or in that of its chat interface (llama.cpp)."""
    if not isinstance(given, dict):
        return None
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
        values = given["token_logprobs"] if "token_logprobs" in given else [token["logprob"] for token in given["content"]]
        return tuple(float(x) for x in values)
    return None


def _start_of(body: bytes) -> str:
    return shown(body[:80].decode("utf-8", "replace"))
