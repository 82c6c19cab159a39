"""What is served: the models of a run, and the layout of a conversation's prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glore.errors import ModelError
from glore.prompts import PromptLayout, Shot
from glore.refiner import Refiner
from glore.serve.failures import invalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from glore.config import RunConfig

__all__ = [
    "BEST_OF_N",
    "CASCADE",
    "COMPOSITE",
    "GLORE",
    "ITERATED",
    "MAJORITY",
    "MODELS",
    "REFINING",
    "SAMPLING",
    "STUDENT",
    "Served",
]

STUDENT, GLORE, ITERATED, CASCADE = "student", "glore", "glore-iterated", "glore-cascade"
BEST_OF_N, MAJORITY = "best-of-n", "majority"
MODELS = (STUDENT, GLORE, ITERATED, CASCADE, BEST_OF_N, MAJORITY)
COMPOSITE = MODELS[1:]
"""Models that sample more than they answer."""
REFINING = (GLORE, ITERATED, CASCADE)
"""Models that begin with a draft and refine it."""
SAMPLING = (BEST_OF_N, MAJORITY, CASCADE)
"""Models that draw samples, as many as `best_of` of the request says."""


@dataclasses.dataclass(frozen=True)
class Served:
    """The models of a run, open, and the run's way to sample.

    `refiner` holds the engines and scorers. `tokenizer` is the student's; it counts the tokens of
    prompts.
    """

    refiner: Refiner
    tokenizer: PreTrainedTokenizerBase
    system: str | None = None
    """The run's own system prompt, where its prompts are chats."""
    temperature: float = 1.0
    """Of the solutions to choose from, if a request has none."""
    top_p: float = 1.0
    top_k: int = 0
    best_of: int = 3
    """Solutions to choose from, if a request does not say."""
    context: int | None = None
    """Tokens that the student can read and write; none: not known."""

    @classmethod
    def of(
        cls,
        refiner: Refiner,
        tokenizer: PreTrainedTokenizerBase,
        config: RunConfig,
        context: int | None,
    ) -> Served:
        """The open models of a run with these settings."""
        sampling = config.evaluation
        return cls(
            refiner,
            tokenizer,
            config.prompt.system,
            sampling.temperature,
            sampling.top_p,
            sampling.top_k,
            sampling.best_of,
            context,
        )

    def n_tokens(self, segments: Sequence[str]) -> int:
        """Tokens of a prompt."""
        from glore.tokenization import encode_segments

        return len(encode_segments(self.tokenizer, segments))

    def conversation(self, system: str | None, turns: Sequence[tuple[str, str]]) -> PromptLayout:
        """The layout of a question after a conversation. `turns`: earlier (user, assistant) pairs.

        Raises ApiError where prompts are plain, or the conversation spells a special token: it
        would not be text there.
        """
        layout = self.refiner.layout
        if system is None and not turns:
            return layout
        if layout.chat is None:
            raise invalid(
                "messages",
                "the prompts of this run are plain, so only messages of the role user can be "
                "read, the last of them as the question; leave the others out",
                "unsupported",
            )
        for text in (system or "", *(text for turn in turns for text in turn)):
            spelt = next((token for token in layout.chat.special if token in text), None)
            if spelt is not None:
                raise invalid(
                    "messages",
                    f"a message before the question spells the special token {spelt!r}; leave it "
                    "out (in the question itself it is text)",
                )
        from glore.chat_template import read_chat_template

        shots: list[tuple[str, str]] = list(turns)
        try:
            chat = read_chat_template(
                self.tokenizer, self.system if system is None else system, shots
            )
        except ModelError as error:
            raise invalid("messages", str(error)) from error
        return PromptLayout(layout.steps, chat, _NO_SHOTS)


_NO_SHOTS: tuple[Shot, ...] = ()
