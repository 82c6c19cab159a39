"""verl's token-level rewards: each step's score at the token that ends it.

verl is not needed here: its batches are used by their fields (`DataProto.batch`,
`non_tensor_batch`). Source: verl/workers/reward_manager/abstract.py and naive.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glore.config import PromptSettings
from glore.errors import ConfigError
from glore.prompts import StepFormat
from glore.rerank import aggregate as aggregated
from glore.rl_rewards.function import RewardFunction, question_of, reward_function

__all__ = ["StepRewardManager", "step_ends"]


class StepRewardManager:
    """A reward manager of verl: its arguments, and those of `reward_function` by name (in verl's
    `reward_kwargs`).

    `level`: `step` gives each step's score at its last token, `solution` their aggregate at the
    last token. `reward`: a reward function that is open already.
    """

    def __init__(
        self,
        tokenizer: Any,  # of the policy
        num_examine: int,
        compute_score: Callable[..., Any] | None = None,
        reward_fn_key: str = "data_source",
        *,
        reward_model: str | Path | None = None,
        reward: RewardFunction | None = None,
        layout: str | None = None,
        aggregate: str = "final",
        prompt: Mapping[str, object] | None = None,
        level: str = "step",
        **_: object,
    ) -> None:
        if level not in ("step", "solution"):
            raise ConfigError(f"level must be step or solution, got {level!r}")
        if (reward is None) == (reward_model is None):
            raise ConfigError(
                "StepRewardManager needs the folder of a reward model (reward_model) or an open "
                "reward function (reward), and one of them"
            )
        self.tokenizer, self.num_examine, self.level = tokenizer, num_examine, level
        self.compute_score, self.reward_fn_key = compute_score, reward_fn_key
        asked = None if prompt is None else PromptSettings.model_validate(dict(prompt))
        self.reward = reward or reward_function(
            reward_model or "", layout, aggregate=aggregate, prompt=asked
        )

    def __call__(self, data: Any, return_dict: bool = False) -> Any:
        """A batch → rewards (B, T of the responses) in float32, zero where no score belongs; with
        `return_dict` also the step scores.
        """
        if "rm_scores" in data.batch:
            scores = data.batch["rm_scores"]
            return {"reward_tensor": scores, "reward_extra_info": {}} if return_dict else scores
        responses_BT = data.batch["responses"]
        rows, items = [], []
        for i in range(len(data)):
            ids = _valid_response(data, i)
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            rows.append((ids, text))
            items.append((self._question(data, i), text))
        rewards_BT = responses_BT.new_zeros(responses_BT.shape).float()
        scored = self.reward.step_scores(items)
        for i, ((ids, text), scores) in enumerate(zip(rows, scored, strict=True)):
            if not ids:
                continue
            if self.level == "solution":
                rewards_BT[i, len(ids) - 1] = aggregated(scores, self.reward.aggregate)
                continue
            for place, score in zip(
                step_ends(self.tokenizer, ids, text, self.reward.steps), scores, strict=True
            ):
                rewards_BT[i, place] += score
        extra = {"step_scores": [list(scores) for scores in scored]}
        return (
            {"reward_tensor": rewards_BT, "reward_extra_info": extra} if return_dict else rewards_BT
        )

    def _question(self, data: Any, i: int) -> str:
        fields = data.non_tensor_batch
        extra = fields["extra_info"][i] if "extra_info" in fields else None
        if isinstance(extra, Mapping) and isinstance(extra.get("question"), str):
            return str(extra["question"])
        if "raw_prompt" in fields:
            return question_of(list(fields["raw_prompt"][i]))
        n_prompt = data.batch["prompts"].shape[-1]
        mask = data.batch["attention_mask"][i][:n_prompt].bool()
        ids = data.batch["prompts"][i][mask].tolist()
        return question_of(self.tokenizer.decode(ids, skip_special_tokens=True))


def _valid_response(data: Any, i: int) -> list[int]:
    """The response's tokens without padding."""
    n_prompt = data.batch["prompts"].shape[-1]
    n_valid = int(data.batch["attention_mask"][i][n_prompt:].sum())
    return [int(token) for token in data.batch["responses"][i][:n_valid]]


def step_ends(tokenizer: Any, ids: Sequence[int], text: str, steps: StepFormat) -> list[int]:
    """The index of the token that ends each step of a response. `text`: the response, decoded
    without special tokens.
    """
    said = steps.said(text)
    ends, at = [], 0
    for step in steps.split(text):
        last_line = step.rpartition("\n")[2]
        at = said.text.index(last_line, at) + len(last_line)
        ends.append(_token_reaching(tokenizer, ids, said.ends[at]))
    return ends


def _token_reaching(tokenizer: Any, ids: Sequence[int], n_chars: int) -> int:
    """The index of the first token with which the decoded text has that many characters."""
    low, high = 0, len(ids) - 1
    while low < high:
        middle = (low + high) // 2
        text = tokenizer.decode(ids[: middle + 1], skip_special_tokens=True)
        # The end of a character that is cut in two is decoded as a sign of its own.
        if len(text.rstrip("\ufffd")) >= n_chars:
            high = middle
        else:
            low = middle + 1
    return low
