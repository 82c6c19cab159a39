"""Episodes: a prompt, the tokens that the policy drew after it, a reward for each of them.

The tokens are those that were drawn. Text that is encoded again may have other tokens, and those
were never drawn.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Sequence

from glore.prompts import StepFormat

__all__ = ["Episode", "PolicyTokens", "at_the_end", "at_the_steps", "step_ends"]


@dataclasses.dataclass(frozen=True, slots=True)
class Episode:
    """One drawn completion and what it earned."""

    id: str
    problem_id: str
    kind: str
    """What was drawn: `solution`, `draft` or `refinement`."""
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """[R]: the drawn tokens, the end-of-text token included."""
    rewards: tuple[float, ...]
    """[R]: what each drawn token earned, before the penalty for divergence."""
    correct: str
    """The verdict on it: `right`, `wrong` or `unknown`."""
    draft_correct: str
    """Of a refinement, the verdict on its draft; else empty."""
    copied: bool
    """Whether a refinement repeats its draft."""
    n_steps: int

    def __post_init__(self) -> None:
        assert len(self.rewards) == len(self.response_ids) > 0, "a reward for each drawn token"
        assert self.prompt_ids, "the first drawn token follows something"


class PolicyTokens:
    """The tokenizer of a policy: prompts → tokens, drawn tokens → text."""

    def __init__(self, folder: object) -> None:
        """`folder`: of the model. Raises ModelError."""
        from glore.models import load_tokenizer

        self._tokenizer = load_tokenizer(str(folder))

    def prompt(self, segments: Sequence[str]) -> tuple[int, ...]:
        """A prompt's tokens, encoded segment by segment as engines do."""
        from glore.tokenization import encode_segments

        return tuple(encode_segments(self._tokenizer, segments))

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of drawn tokens, special ones left out, as engines give it."""
        from glore.tokenization import text_of

        return text_of(self._tokenizer, token_ids)


def at_the_end(n_tokens: int, reward: float) -> tuple[float, ...]:
    """The whole reward at the last of n tokens."""
    return (*(0.0,) * (n_tokens - 1), reward)


def at_the_steps(n_tokens: int, ends: Sequence[int], rewards: Sequence[float]) -> tuple[float, ...]:
    """A reward for each step at its last token (`step_ends`); several at one token add up."""
    found = [0.0] * n_tokens
    for place, reward in zip(ends, rewards, strict=True):
        found[place] += reward
    return tuple(found)


def step_ends(
    token_ids: Sequence[int], text_of: Callable[[Sequence[int]], str], steps: StepFormat
) -> list[int]:
    """The 0-based place of the last token of every step of drawn tokens: the one that completes its
    line (or paragraph); of a step that nothing ends, the last token.
    """
    n_steps = len(steps.split(text_of(token_ids)))

    def n_complete(n_tokens: int) -> int:
        whole, end, _ = text_of(token_ids[:n_tokens]).rpartition(steps.end)
        return len(steps.split(whole + end)) if end else 0

    lengths = range(len(token_ids) + 1)
    last = len(token_ids) - 1
    return [
        min(bisect.bisect_left(lengths, step, key=n_complete) - 1, last)
        for step in range(1, n_steps + 1)
    ]
