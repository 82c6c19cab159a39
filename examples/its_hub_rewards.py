"""A served run as the reward model of its_hub: `score(prompt, steps)` and best of n.

pip install 'its_hub[lm]' httpx2
glore serve runs/quickstart &
python examples/its_hub_rewards.py "Jan had 4 pens, …"
"""

from __future__ import annotations

import asyncio
import sys

import httpx2
from its_hub.api import (
    AbstractOutcomeRewardModel,
    AbstractProcessRewardModel,
    ChatMessage,
    ChatMessages,
)
from its_hub.core.algorithms.bon import BestOfN
from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel

Prompt = str | list[ChatMessage] | ChatMessages


def scores(url: str, key: str, question: str, steps: list[str]) -> dict[str, object]:
    """What the server at `url` (…/v1) says of a solution's steps."""
    headers = {"Authorization": f"Bearer {key}"}
    body = {"question": question, "steps": steps}
    answer = httpx2.post(f"{url}/score", json=body, headers=headers, timeout=300)
    answer.raise_for_status()
    return answer.json()


def text_of(prompt: Prompt) -> str:
    """The last message of a prompt: the question."""
    return (
        ChatMessages.from_prompt_or_messages(prompt).to_chat_messages()[-1].extract_text_content()
    )


class GloreSteps(AbstractProcessRewardModel):
    """The SORM: for every step, the probability that the solution can still come out right."""

    def __init__(self, url: str, key: str = "any") -> None:
        self._url, self._key = url, key

    def score(self, prompt_or_messages: Prompt, steps: list[str]) -> list[float]:
        """One probability for each step, which is a line without its end."""
        return scores(self._url, self._key, text_of(prompt_or_messages), steps)["sorm"]

    async def ascore(self, prompt_or_messages: Prompt, steps: list[str]) -> list[float]:
        """The same, without holding up the event loop."""
        return await asyncio.to_thread(self.score, prompt_or_messages, steps)


class GloreSolutions(AbstractOutcomeRewardModel):
    """The reranker's score of whole solutions."""

    def __init__(self, url: str, key: str = "any") -> None:
        self._url, self._key = url, key

    def score(self, messages: list[list[ChatMessage]], **_: object) -> list[float]:
        """One score for each conversation, whose last two messages are question and solution."""
        found = []
        for *_before, question, solution in messages:
            steps = [line for line in solution.extract_text_content().splitlines() if line.strip()]
            asked = question.extract_text_content()
            found.append(scores(self._url, self._key, asked, steps)["score"])
        return found

    async def ascore(self, messages: list[list[ChatMessage]], **_: object) -> list[float]:
        """The same, without holding up the event loop."""
        return await asyncio.to_thread(self.score, messages)


if __name__ == "__main__":
    server = "http://127.0.0.1:8000/v1"
    student = OpenAICompatibleLanguageModel(server, "any", "student", temperature=1.0)
    best = BestOfN(GloreSolutions(server)).infer(student, sys.argv[1], budget=4)
    print(best["content"])
