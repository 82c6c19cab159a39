"""Reward models as rewards of RL trainers: TRL's and verl's signatures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import glore
from glore.errors import ConfigError, DataError
from glore.prompts import PARAGRAPH_END, StepFormat
from glore.rl_rewards.function import RewardFunction, question_of
from glore.rl_rewards.verl import StepRewardManager, step_ends
from support.reward_checkpoints import save_checkpoint
from support.step_tokenizers import step_tokenizer
from support.tiny_models import llama_like

CHAT = [
    {"role": "system", "content": "Reason."},
    {"role": "user", "content": "Is 3 > 2?"},
]


class Lengths:
    """Scores a step by its length, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.is_closed = False

    def score(self, items: Sequence[tuple[str, tuple[str, ...]]]) -> list[tuple[float, ...]]:
        self.asked += items
        return [tuple(len(step) / 100 for step in steps) for _, steps in items]

    def close(self) -> None:
        self.is_closed = True


def test_texts_and_conversations_become_questions_and_steps() -> None:
    scorer = Lengths()
    with RewardFunction(scorer, aggregate="min") as reward:
        rewards = reward(
            prompts=["Question: Is 3 > 2?\nAnswer:\n", CHAT, " Is 3 > 2? "],
            completions=["ab\n\nabcd\n", [{"role": "assistant", "content": "abc"}], "\n"],
            completion_ids=[[1], [2], [3]],
            trainer_state=None,
        )
    assert rewards == [0.02, 0.03, 0.0]
    assert scorer.asked == [
        ("Is 3 > 2?", ("ab", "abcd")),
        ("Is 3 > 2?", ("abc",)),
        ("Is 3 > 2?", ()),
    ]
    assert scorer.is_closed


def test_a_column_of_questions_goes_before_prompts() -> None:
    scorer = Lengths()
    assert RewardFunction(scorer)(["p"], ["a"], question=["Q?"]) == [0.01]
    assert scorer.asked == [("Q?", ("a",))]
    with pytest.raises(DataError, match="one completion per prompt, got 2 for 1 prompts"):
        RewardFunction(scorer)(["p"], ["a", "b"])


def test_worked_examples_before_a_question_are_left_out() -> None:
    prompt = "Question: one?\nAnswer:\n#### 1\n\nQuestion: two\nlines?\nAnswer:\n"
    assert question_of(prompt) == "two\nlines?"
    assert question_of("No frame. Answer:") == "No frame. Answer:"


@pytest.mark.parametrize("given", [[], [{"role": "user", "content": [1]}], [{"role": "user"}]])
def test_what_is_no_text_is_refused(given: Any) -> None:
    with pytest.raises(DataError, match="must be text or messages with text"):
        RewardFunction(Lengths())([given], ["a"])


def test_verl_asks_for_one_solution_by_its_own_signature() -> None:
    reward = RewardFunction(Lengths(), aggregate="mean")
    got = reward.compute_score(
        data_source="gsm8k",
        solution_str="a\nabc",
        ground_truth="3",
        extra_info={"question": "Q?", "num_turns": None},
    )
    assert got == pytest.approx(0.02)
    with pytest.raises(DataError, match="needs the question of a solution"):
        reward.compute_score("gsm8k", "a", "3", {})


class Batch:
    """verl's DataProto, as far as reward managers use it."""

    def __init__(self, tokenizer: Any, responses: list[str], **columns: list[Any]) -> None:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in responses]
        width = max(map(len, ids)) + 2
        prompt = tokenizer("Question: Q?\nAnswer:\n", add_special_tokens=False)["input_ids"]
        pad, n = tokenizer.pad_token_id, len(ids)
        self.batch = {
            "prompts": torch.tensor([[pad, *prompt]] * n),
            "responses": torch.tensor([i + [pad] * (width - len(i)) for i in ids]),
            "attention_mask": torch.tensor(
                [[0] + [1] * (len(prompt) + len(i)) + [0] * (width - len(i)) for i in ids]
            ),
        }
        self.non_tensor_batch = columns

    def __len__(self) -> int:
        return len(self.batch["responses"])


@pytest.mark.parametrize("name", ["qwen", "smollm2", "gemma"])
def test_verl_gets_each_steps_score_at_the_token_that_ends_it(name: str) -> None:
    tokenizer = step_tokenizer(name)
    sign = "é😀" if name != "gemma" else "ab"  # the small one in Gemma's manner lacks them
    texts = [f"Ann has 7.\nSo 7{sign}!\n\n#### 7", "\n", "#### 12"]
    scorer = Lengths()
    manager = StepRewardManager(tokenizer, 0, reward=RewardFunction(scorer))
    data = Batch(tokenizer, texts)
    found = manager(data, return_dict=True)
    assert [question for question, _ in scorer.asked] == ["Q?"] * 3
    rewards = found["reward_tensor"]
    assert rewards.shape == data.batch["responses"].shape
    assert rewards.dtype == torch.float32
    assert found["reward_extra_info"]["step_scores"] == [
        [0.1, 0.07, 0.06],
        [],
        [0.07],
    ]
    for row, text in enumerate(texts):
        steps = [line for line in text.split("\n") if line]
        places = rewards[row].nonzero()[:, 0].tolist()
        assert len(places) == len(steps)
        for place, step in zip(places, steps, strict=True):
            # The text up to that token ends with the step.
            ids = data.batch["responses"][row][: place + 1].tolist()
            assert tokenizer.decode(ids).rstrip("\n").endswith(step)
            assert not tokenizer.decode(ids[:-1]).rstrip("\ufffd\n").endswith(step)
            assert float(rewards[row, place]) == pytest.approx(len(step) / 100)
    assert torch.equal(manager(data), rewards)


def test_verl_may_have_one_reward_a_solution_and_questions_of_its_own() -> None:
    tokenizer = step_tokenizer("qwen")
    scorer = Lengths()
    reward = RewardFunction(scorer, aggregate="mean")
    manager = StepRewardManager(tokenizer, 0, None, "data_source", reward=reward, level="solution")
    data = Batch(
        tokenizer, ["a\nabc", "ab"], extra_info=[{"question": "R?"}, {}], raw_prompt=[CHAT] * 2
    )
    rewards = manager(data)
    assert [question for question, _ in scorer.asked] == ["R?", "Is 3 > 2?"]
    lengths = data.batch["attention_mask"][:, data.batch["prompts"].shape[1] :].sum(1)
    for row, (n, value) in enumerate(zip(lengths.tolist(), (0.02, 0.02), strict=True)):
        assert rewards[row].nonzero()[:, 0].tolist() == [n - 1]
        assert float(rewards[row, n - 1]) == pytest.approx(value)
    data.batch["rm_scores"] = torch.ones(2, 3)
    assert torch.equal(manager(data), torch.ones(2, 3))
    with pytest.raises(ConfigError, match="level must be step or solution"):
        StepRewardManager(tokenizer, 0, reward=reward, level="token")
    with pytest.raises(ConfigError, match="needs the folder of a reward model"):
        StepRewardManager(tokenizer, 0)


def test_steps_after_a_thought_and_paragraphs_are_found() -> None:
    tokenizer = step_tokenizer("qwen")
    text = "<think>a\nb</think>a b\nc\n\nb"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ends = step_ends(tokenizer, ids, text, StepFormat(PARAGRAPH_END, think_apart=True))
    assert [tokenizer.decode(ids[: end + 1])[-1] for end in ends] == ["c", "b"]
    assert ends == sorted(set(ends))


def test_steps_between_thoughts_end_at_their_own_tokens() -> None:
    tokenizer = step_tokenizer("qwen")
    text = "a b\n<think>a b\nc</think>c<think>a</think>b"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    form = StepFormat(think_apart=True)
    assert form.split(text) == ("a b", "c", "b")
    ends = step_ends(tokenizer, ids, text, form)
    assert [tokenizer.decode(ids[: end + 1]) for end in ends] == [
        "a b",
        "a b\n<think>a b\nc</think>c",
        text,
    ]


def test_a_reward_function_scores_as_the_scorer_does(tmp_path: Path) -> None:
    folder = save_checkpoint("trl", tmp_path / "prm")
    with glore.open_reward_model(folder) as scorer:
        [expected] = scorer.score([("Q?", ("Ann has 7.", "#### 7"))])
    with glore.reward_function(folder, aggregate="product") as reward:
        assert reward.__name__ == "glore_prm"
        [got] = reward(["Q?"], ["Ann has 7.\n#### 7\n"])
    assert got == pytest.approx(expected[0] * expected[1], abs=1e-5)
    with pytest.raises(ConfigError, match="aggregate must be one of final, mean"):
        glore.reward_function(folder, aggregate="max")


@pytest.mark.filterwarnings("ignore")
def test_trl_trains_with_it(tmp_path: Path) -> None:
    """Where TRL is installed: a few steps of GRPO on a tiny model."""
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    datasets = pytest.importorskip("datasets")
    from transformers import AutoModelForCausalLM

    tokenizer = step_tokenizer("smollm2")
    torch.manual_seed(0)
    config = llama_like(len(tokenizer), 32, 48, 2)["llama"]()
    config.max_position_embeddings = 512
    policy = AutoModelForCausalLM.from_config(config)
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    folder = save_checkpoint("trl", tmp_path / "prm")
    with glore.reward_function(folder) as reward:
        trainer = trl.GRPOTrainer(
            model=policy,
            reward_funcs=reward,
            args=trl.GRPOConfig(
                output_dir=str(tmp_path / "grpo"),
                per_device_train_batch_size=4,
                num_generations=4,
                max_completion_length=12,
                max_steps=3,
                learning_rate=1e-2,
                report_to=[],
                use_cpu=True,
                logging_steps=1,
                save_strategy="no",
                bf16=False,
            ),
            train_dataset=datasets.Dataset.from_list(
                [{"prompt": f"Is {n} > 2?"} for n in range(8)]
            ),
            processing_class=tokenizer,
        )
        trainer.train()
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logged) == 3
    assert all(0 < entry["rewards/glore_prm/mean"] < 1 for entry in logged)
    assert any(entry["reward_std"] > 0 for entry in logged)
    changed = [
        name
        for name, weight in trainer.model.named_parameters()
        if not torch.equal(weight, before[name])
    ]
    assert changed
