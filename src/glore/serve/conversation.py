"""The messages of a chat → the question, and the layout of its prompt."""

from __future__ import annotations

from collections.abc import Sequence

from glore.errors import has_lone_surrogate
from glore.prompts import PromptLayout
from glore.serve.bodies import ChatBody, Message
from glore.serve.failures import invalid, too_large
from glore.serve.limits import Limits
from glore.serve.served import COMPOSITE, STUDENT, Served

__all__ = ["check_unicode", "read_conversation"]


def read_conversation(served: Served, limits: Limits, body: ChatBody) -> tuple[str, PromptLayout]:
    """The question, and the layout of its prompt after the messages before it. Raises ApiError."""
    messages = body.messages
    if not messages or messages[-1].role != "user":
        raise invalid("messages", "the last message must be of the role user: the question")
    if sum(len(m.text) for m in messages) > limits.prompt_chars:
        raise too_large(
            "messages",
            "characters of a conversation",
            limits.prompt_chars,
            sum(len(m.text) for m in messages),
        )
    for message in messages:
        check_unicode("messages", message.text)
    before = messages[:-1]
    system = None
    if before and before[0].role in ("system", "developer"):
        # An empty one asks for nothing; optillm sends it with every request.
        system, before = before[0].text if before[0].text.strip() else None, before[1:]
    if system is None and all(m.role == "user" for m in before):
        if before and served.refiner.layout.chat is not None:
            raise invalid("messages", "turns of user and assistant must alternate")
        return messages[-1].text, served.refiner.layout
    layout = served.conversation(system, _turns(before))
    if body.model in COMPOSITE:
        raise invalid(
            "messages",
            f"the models of {body.model} were trained to judge and refine the answer to a "
            f"question alone; leave the other messages out, or ask {STUDENT}",
            "unsupported",
        )
    return messages[-1].text, layout


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


def check_unicode(param: str, text: str) -> None:
    """Raises ApiError for a text that no encoding holds."""
    if has_lone_surrogate(text):
        raise invalid(param, "the text holds half a Unicode character (a lone surrogate)")
