"""A reward model as a reward function: TRL's `reward_funcs`, verl's `compute_score`.

Neither library is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from glore.chat_template import step_format
from glore.config import EngineSettings, PromptSettings
from glore.engines.lifetime import ClosedAtExit
from glore.errors import ConfigError, DataError, shown
from glore.prompts import LINES, StepFormat
from glore.rerank import AGGREGATES
from glore.rerank import aggregate as aggregated
from glore.reward_models.open import open_reward_model
from glore.step_layouts.apart import GloreLayout
from glore.step_layouts.parts import Item, StepLayout

__all__ = ["RewardFunction", "StepScores", "question_of", "reward_function"]

Conversation = Sequence[Mapping[str, object]]
StepScores = list[tuple[float, ...]]
_BEGIN, _END = "Question: ", "\nAnswer:"


class _Scorer(Protocol):
    """What is used of an open reward model."""

    def score(self, items: Sequence[Item]) -> StepScores: ...

    def close(self) -> None: ...


def reward_function(
    path: str | Path,
    layout: str | StepLayout | None = None,
    aggregate: str = "final",
    engine: EngineSettings | None = None,
    prompt: PromptSettings | None = None,
) -> RewardFunction:
    """The reward model at `path` as a function of prompts and completions, for trainers:
    `GRPOTrainer(reward_funcs=glore.reward_function("runs/quickstart/models/sorm"), …)`.

    `aggregate`: how step scores become one reward, a key of `glore.rerank.AGGREGATES` such as
    `final`, `mean` or `min`. `prompt`: what a step of a completion is, and how a model of ours was
    trained to prompt (none: as the model's folder says, steps as lines elsewhere). The other
    arguments, and the errors raised, are those of `open_reward_model`; ConfigError for another
    `aggregate`.
    """
    if aggregate not in AGGREGATES:
        raise ConfigError(
            f"aggregate must be one of {', '.join(AGGREGATES)}, got {shown(aggregate)}"
        )
    scorer = open_reward_model(path, layout, engine, prompt)
    if prompt is not None:
        steps = step_format(prompt)
    else:
        steps = scorer.layout.prompt.steps if isinstance(scorer.layout, GloreLayout) else LINES
    return RewardFunction(scorer, steps, aggregate, f"glore_{Path(path).name}")


class RewardFunction(ClosedAtExit):
    """Prompts and completions → rewards in [0, 1]. A context manager; closing it closes the model.

    A completion without a step has the reward 0.
    """

    def __init__(
        self, scorer: _Scorer, steps: StepFormat = LINES, aggregate: str = "final", name: str = ""
    ) -> None:
        self.scorer, self.steps, self.aggregate = scorer, steps, aggregate
        self.__name__ = name or "glore_reward"
        """What trainers log it under."""

    def __call__(
        self,
        prompts: Sequence[str | Conversation],
        completions: Sequence[str | Conversation],
        **columns: object,
    ) -> list[float]:
        """TRL's signature: one reward per completion. Prompts and completions are texts or lists of
        messages; other columns of the dataset come by name. A column `question` is taken for the
        question; otherwise it is the user's last message, or the prompt without our frame.

        Raises DataError for prompts and completions that are no text.
        """
        questions = columns.get("question")
        if not isinstance(questions, Sequence) or isinstance(questions, str):
            questions = [question_of(prompt) for prompt in prompts]
        if not len(questions) == len(completions) == len(prompts):
            raise DataError(
                f"a reward function needs one completion per prompt, got {len(completions)} for "
                f"{len(prompts)} prompts and {len(questions)} questions"
            )
        texts = [_text(completion, "completion") for completion in completions]
        scores = self.step_scores(list(zip(map(str, questions), texts, strict=True)))
        return [aggregated(values, self.aggregate) for values in scores]

    def step_scores(self, items: Sequence[tuple[str, str]]) -> StepScores:
        """(question, text of a solution) → p(good) after each of its steps."""
        return self.scorer.score([(question, self.steps.split(text)) for question, text in items])

    def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: object,
        extra_info: Mapping[str, object] | None = None,
        **_: object,
    ) -> float:
        """verl's signature of a custom reward function: the reward of one solution, whose question
        is `extra_info["question"]`.

        Raises DataError without a question.
        """
        question = (extra_info or {}).get("question")
        if not isinstance(question, str):
            raise DataError(
                "a reward model needs the question of a solution, and extra_info has no text "
                f"`question` (data source {shown(data_source, 60)}); add it to the dataset"
            )
        [scores] = self.step_scores([(question, solution_str)])
        return aggregated(scores, self.aggregate)

    def close(self) -> None:
        """Free the reward model."""
        self.scorer.close()


def question_of(prompt: str | Conversation) -> str:
    """The question of a prompt: the user's last message, or the text without `Question: …
    Answer:`. Raises DataError for a prompt that is neither text nor messages.
    """
    if not isinstance(prompt, str):
        asked = [message for message in prompt if message.get("role") == "user"]
        return _text(asked[-1:], "prompt").strip()
    text = prompt.strip()
    if text.endswith(_END):
        begin = text.rfind(_BEGIN)  # worked examples stand before
        if begin >= 0:
            return text[begin + len(_BEGIN) : -len(_END)].strip()
    return text


def _text(given: str | Conversation, what: str) -> str:
    """The text of a completion or prompt: of messages, their contents."""
    if isinstance(given, str):
        return given
    contents = [message.get("content") for message in given]
    if not contents or not all(isinstance(content, str) for content in contents):
        raise DataError(
            f"a {what} for a reward function must be text or messages with text as content, got "
            f"{shown(given, 80)}"
        )
    return "\n".join(map(str, contents))
