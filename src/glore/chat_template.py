"""The chat template of a model's tokenizer → the text around a turn of the user.

The template is rendered around a text that stands for the user's words. It is refused if it does
more with them than to strip them, since the text around a question would then depend on the
question. Templates can ask for the date: it is always 26 July 2024, as in Llama 3's own fallback,
so that a prompt doesn't depend on the day. transformers renders templates in a sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glore.errors import ModelError, shown
from glore.prompts import (
    BAD_MARK,
    PARAGRAPH_END,
    STEP_END,
    THINK,
    ChatTemplate,
    PromptLayout,
    Shot,
    StepFormat,
)
from glore.tokenization import PAD_MARK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from glore.config import PromptSettings

__all__ = ["dated_template", "prompt_layout", "read_chat_template", "step_format"]

_WORDS = "the words of the user 9f3a6c"
_PROBES = ("x", 'Two lines,\nof {{ text }}: 5 < 6 & "7".', "é <b>\\n</b> " * 40 + "end")
"""Words that a template must leave as they are."""
_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"


def step_format(settings: PromptSettings) -> StepFormat:
    """How a solution is written, by the settings."""
    end = STEP_END if settings.steps == "line" else PARAGRAPH_END
    return StepFormat(end, settings.think == "apart", settings.max_solution_chars)


def prompt_layout(
    settings: PromptSettings, model: str | Path, shots: tuple[Shot, ...] = ()
) -> PromptLayout:
    """The layout of prompts for the model at this path, with these examples before the question.

    Reads the model's tokenizer where prompts are a chat. Raises ModelError.
    """
    steps = step_format(settings)
    if settings.style == "plain":
        return PromptLayout(steps, None, shots)
    from glore.models import load_tokenizer

    turns = [(q.strip(), "".join(map(steps.text, solution)).strip()) for q, solution in shots]
    chat = read_chat_template(load_tokenizer(model), settings.system, turns)
    if steps.think_apart and chat.after.rstrip().endswith(THINK):
        raise ModelError(
            f"the chat template of {shown(str(model), 300)} opens {THINK} itself, so the steps "
            "of a solution can't follow a prompt without the thought; set prompt.think=keep"
        )
    return PromptLayout(steps, chat)


def read_chat_template(
    tokenizer: PreTrainedTokenizerBase,
    system: str | None = None,
    shots: Sequence[tuple[str, str]] = (),
) -> ChatTemplate:
    """The tokenizer's chat template around one turn of the user.

    `system`: the system prompt; `shots`: earlier turns of the user and the assistant, of which
    those that spell a special token are left out. Raises ModelError for a tokenizer without a
    template, and for a template that can't be used so.
    """
    name = shown(str(tokenizer.name_or_path), 300)
    special = tuple(
        dict.fromkeys(
            (
                *tokenizer.all_special_tokens,
                *(t.content for t in tokenizer.added_tokens_decoder.values() if t.special),
                BAD_MARK,
                PAD_MARK,
            )
        )
    )
    shots = [shot for shot in shots if not any(token in s for s in shot for token in special)]
    text = _rendered(tokenizer, name, system, shots, _WORDS)
    if system and system.strip() and text == _rendered(tokenizer, name, "", shots, _WORDS):
        raise ModelError(
            f"the chat template of {name} leaves out the system prompt; set prompt.system=null, or "
            "write it into the questions"
        )
    before, words, after = text.partition(_WORDS)
    if not words or _WORDS in after:
        raise ModelError(
            f"the chat template of {name} does not repeat the user's words once and unchanged; set "
            "prompt.style=plain"
        )
    for probe in _PROBES:
        if _rendered(tokenizer, name, system, shots, probe) != before + probe + after:
            raise ModelError(
                f"the chat template of {name} writes other text around {shown(probe, 40)} than "
                "around other words, so prompts can't share their beginning; set prompt.style=plain"
            )
    return ChatTemplate(before, after, special)


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    system: str | None,
    shots: Sequence[tuple[str, str]],
    words: str,
) -> str:
    """The text of the prompt in which the user says these words. Raises ModelError."""
    turns = [
        *([] if system is None else [("system", system)]),
        *(turn for q, a in shots for turn in (("user", q), ("assistant", a))),
        ("user", words),
    ]
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {name} has no chat template, which prompt.style=chat needs; use an "
            "instruction-tuned model, or set prompt.style=plain"
        )
    try:
        text = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns],
            tokenize=False,
            add_generation_prompt=True,
            chat_template=dated_template(tokenizer.get_chat_template()),
        )
    except Exception as error:  # whatever a stranger's template raises
        if system is not None:
            _rendered(tokenizer, name, None, shots, words)  # or the system prompt is not the cause
        fix = "prompt.style=plain" if system is None else "prompt.system=null"
        raise ModelError(
            f"the chat template of {name} refuses a conversation of the roles "
            f"{', '.join(role for role, _ in turns)} ({shown(str(error), 80)}); set {fix}"
        ) from error
    return str(text)


def dated_template(template: str) -> str:
    """The template with a date that is always the same, whatever its format."""
    return _DATE + template if "strftime_now" in template else template
