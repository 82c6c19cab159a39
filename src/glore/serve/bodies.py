"""The bodies of requests, as JSON.

Values have their exact types: `"1"` is no number. What OpenAI knows and this server does not do is
refused, unless it asks for nothing (`echo: false`) or is only a label (`user`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from glore.errors import shown
from glore.serve.failures import invalid
from glore.serve.served import MODELS

__all__ = [
    "ChatBody",
    "CompletionBody",
    "ErrorBody",
    "Message",
    "RefineBody",
    "SamplingBody",
    "ScoreBody",
    "check_extra",
]

LABELS = frozenset(
    ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
)
"""Parameters that change no answer."""
NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "echo": (False,),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "suffix": ("",),
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "parallel_tool_calls": (True, False),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        # What its_hub and clients of vLLM send with every request.
        "extra_body": ({},),
        "add_generation_prompt": (True,),
        "continue_final_message": (False,),
        "include_stop_str_in_output": (False,),
    }
)
"""Parameters that are not built → values with which they ask for nothing, besides null."""


class TextPart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @field_validator("content", mode="before")
    @classmethod
    def _is_text(cls, given: object) -> object:
        parts = given if isinstance(given, list) else []
        if any(isinstance(part, dict) and part.get("type") != "text" for part in parts):
            raise PydanticCustomError(
                "content", "a message has text alone: a string, or parts of the type 'text'"
            )
        return given

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """What a stream holds besides the answer."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingBody(BaseModel):
    """What completions and chats share."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str = Field(json_schema_extra={"enum": list(MODELS)})
    n: int | None = Field(None, description="Choices per prompt; default 1.")
    best_of: int | None = Field(
        None,
        description="Solutions to choose from, for the models best-of-n and majority; samples at "
        "most, for glore-cascade.",
    )
    stop: str | list[str] | None = None
    seed: int | None = None
    max_tokens: int | None = Field(None, description="Of every text that is sampled.")
    max_completion_tokens: int | None = Field(None, description="The same as max_tokens.")
    temperature: float | None = Field(None, allow_inf_nan=False)
    top_p: float | None = Field(None, allow_inf_nan=False)
    top_k: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class CompletionBody(SamplingBody):
    """`/v1/completions`: every prompt is a question."""

    prompt: str | list[str]
    logprobs: int | bool | None = Field(
        None,
        description="For the model student: 0 gives the log-probability of each drawn token; 1 "
        "also that of the likeliest, where that is the drawn one (temperature 0).",
    )

    @field_validator("prompt", mode="before")
    @classmethod
    def _is_text(cls, given: object) -> object:
        is_text = isinstance(given, str) or (
            isinstance(given, list) and all(isinstance(one, str) for one in given)
        )
        if not is_text:
            raise PydanticCustomError(
                "prompt", "a prompt is a string or a list of strings; token ids are not read"
            )
        return given


class ChatBody(SamplingBody):
    """`/v1/chat/completions`: the last message is the question."""

    messages: list[Message]
    logprobs: bool | None = Field(
        None, description="For the model student: give the log-probability of each drawn token."
    )
    top_logprobs: int | None = Field(
        None, description="Likeliest tokens beside each drawn one: 0, or 1 at temperature 0."
    )


class RefineBody(BaseModel):
    """`/v1/refine`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    question: str
    every_mark: bool | None = Field(
        None,
        description="Also refine from every step that some threshold would mark, and give all "
        "solutions with the scores of their steps.",
    )
    seed: int | None = None
    max_tokens: int | None = None
    temperature: float | None = Field(None, allow_inf_nan=False)
    top_p: float | None = Field(None, allow_inf_nan=False)
    top_k: int | None = None


class ScoreBody(BaseModel):
    """`/v1/score`."""

    model_config = ConfigDict(strict=True, extra="forbid")
    question: str
    steps: list[str]


class ErrorFields(BaseModel):
    """What an error says."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The answer to a request that is refused."""

    error: ErrorFields


def check_extra(body: SamplingBody) -> None:
    """Raises ApiError for a parameter that is not built."""
    for name, value in (body.model_extra or {}).items():
        # 0.0 is 0, but 0 is not false.
        same = [
            v
            for v in NEUTRAL.get(name, ())
            if type(v) is type(value) or (v == 0 == value and v is not False)
        ]
        if value is None or name in LABELS or value in same:
            continue
        known = "is not supported" if name in NEUTRAL else "is no parameter of this server"
        raise invalid(
            name, f"{shown(name)} {known}, got {shown(value)}; leave it out", "unsupported"
        )
