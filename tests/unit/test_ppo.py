"""PPO by value: losses and gradients against numbers made by hand, masks, penalties, resuming, and
a reward that goes up.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glore.config import RunConfig
from glore.engines.local.engine import TorchEngine
from glore.engines.protocol import Engine, Request, SamplingParams
from glore.pipeline import StageContext
from glore.progress import SilentProgress
from glore.prompts import LINES, StepFormat
from glore.seeds import stable_seed
from glore.stages.policy_gradient import RoundStats, draw, in_turns, train_ppo
from glore.training.ppo.advantages import advantages_and_returns, penalised, whitened
from glore.training.ppo.episodes import (
    Episode,
    PolicyTokens,
    at_the_end,
    at_the_steps,
    step_ends,
)
from glore.training.ppo.loss import clipped_share, policy_loss, value_loss
from glore.training.ppo.policy import Policy, batch_of
from glore.training.ppo.settings import PpoSettings
from glore.training.ppo.state import load_policy
from glore.training.ppo.update import learn, targets_of, update_policy
from support.tiny_models import tiny_lm, tiny_tokenizer

FLOATS = st.floats(-3, 3, width=32)


def episode(
    prompt: Sequence[int], response: Sequence[int], rewards: Sequence[float] | None = None
) -> Episode:
    paid = tuple(rewards) if rewards is not None else (0.0,) * len(response)
    return Episode(
        "e", "p", "solution", tuple(prompt), tuple(response), paid, "right", "", False, 1
    )


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_clipped_loss_and_its_gradient_by_hand() -> None:
    ratios = [1.0, 1.5, 1.5, 0.5, 0.5]
    advantages = tensor(2.0, 2.0, -2.0, 2.0, -2.0)
    log_p = tensor(*map(math.log, ratios)).requires_grad_()
    loss = policy_loss(log_p, torch.zeros(5, dtype=torch.float64), advantages, 0.2)
    # min(ρA, clamp(ρ)A): 2, 1.2·2, −1.5·2, 0.5·2, −0.8·2
    assert loss.item() == pytest.approx(-(2.0 + 2.4 - 3.0 + 1.0 - 1.6) / 5)
    loss.backward()
    # d/dlogp of −ρA/5; nothing where the clip binds: the ratio went too far in the good direction.
    assert log_p.grad.tolist() == pytest.approx([-0.4, 0.0, 0.6, -0.2, 0.0])
    share = clipped_share(log_p, torch.zeros(5, dtype=torch.float64), advantages, 0.2)
    assert share == pytest.approx(2 / 5)


def test_the_value_loss_by_hand() -> None:
    values = tensor(1.0, -1.0).requires_grad_()
    loss = value_loss(values, tensor(0.0, 2.0))
    assert loss.item() == pytest.approx(0.5 * (1 + 9) / 2)
    loss.backward()
    assert values.grad.tolist() == pytest.approx([0.5, -1.5])


def test_divergence_is_paid_for_token_by_token() -> None:
    rewards = penalised(np.array([0.0, 1.0]), np.array([-1.0, -2.0]), np.array([-3.0, -1.5]), 0.1)
    assert rewards.tolist() == pytest.approx([-0.2, 1.05])


def test_advantages_by_hand() -> None:
    advantages, returns = advantages_and_returns(
        np.array([0.0, 1.0]), np.array([0.5, 0.25]), discount=0.9, gae=0.8
    )
    last = 1.0 - 0.25
    first = 0.0 + 0.9 * 0.25 - 0.5 + 0.9 * 0.8 * last
    assert advantages.tolist() == pytest.approx([first, last])
    assert returns.tolist() == pytest.approx([first + 0.5, 1.0])


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=8), st.floats(0.1, 1))
def test_with_lambda_one_returns_are_sums_of_rewards_whatever_the_values(
    pairs: list[tuple[float, float]], discount: float
) -> None:
    rewards, values = (np.array(x, dtype=np.float64) for x in zip(*pairs, strict=True))
    advantages, returns = advantages_and_returns(rewards, values, discount, 1.0)
    expected = [
        sum(discount**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))
    ]
    assert returns.tolist() == pytest.approx(expected, abs=1e-9)
    assert (returns - advantages).tolist() == pytest.approx(values.tolist())


@given(st.lists(st.lists(FLOATS, min_size=1, max_size=5), min_size=1, max_size=5))
def test_whitening_moves_and_scales_and_keeps_the_order(rows: list[list[float]]) -> None:
    before = np.concatenate([np.array(r, dtype=np.float64) for r in rows])
    after = np.concatenate(whitened([np.array(r, dtype=np.float64) for r in rows]))
    if before.std() <= 1e-9 * max(1, abs(before.mean())):
        assert not after.any()
        return
    assert after.mean() == pytest.approx(0, abs=1e-6)
    assert after.std() == pytest.approx(1)
    assert np.all(np.diff(after[np.argsort(before, kind="stable")]) >= 0)


def test_prompts_and_padding_say_and_learn_nothing() -> None:
    """The log-probabilities are those of transformers on each row alone; only drawn tokens have
    any, and changing the padding changes nothing.
    """
    model = tiny_lm("llama")
    episodes = [episode([5, 6, 7], [8, 1]), episode([9], [10, 11, 12, 1])]
    policy = Policy(model, temperature=0.7)
    read = policy(batch_of(episodes, pad_id=0))
    other = policy(batch_of(episodes, pad_id=3))
    expected, entropies = [], []
    for e in episodes:
        ids = torch.tensor([[*e.prompt_ids, *e.response_ids]])
        at = slice(len(e.prompt_ids) - 1, -1)
        logs = torch.log_softmax(model(input_ids=ids).logits[0, at] / 0.7, -1)
        expected += logs[range(len(e.response_ids)), list(e.response_ids)].tolist()
        entropies += (-(logs.exp() * logs).sum(-1)).tolist()
    assert read.log_p.tolist() == pytest.approx(expected, abs=1e-5)
    assert read.entropy.tolist() == pytest.approx(entropies, abs=1e-5)
    assert read.log_p.tolist() == other.log_p.tolist()
    assert read.values.tolist() == [0.0] * 6
    read.values.sum().backward()
    assert all(p.grad is None for p in model.parameters()), "the value does not move the policy"
    read.log_p.sum().backward()
    embedding = model.get_input_embeddings().weight.grad
    assert embedding[0].abs().sum() == 0, "padding gets no gradient"


def test_the_gradient_of_a_step_is_that_of_the_advantages() -> None:
    """At the first step the ratio is 1, so the gradient is that of −mean(A log p)."""
    episodes = [episode([5, 6], [8, 9, 1]), episode([7], [10, 1])]
    advantages = [np.array([1.0, -2.0, 0.5]), np.array([0.25, -1.0])]
    policy, other = Policy(tiny_lm("llama")), Policy(tiny_lm("llama"))
    read = policy(batch_of(episodes, 0))
    given_A = torch.tensor(np.concatenate(advantages), dtype=torch.float32)
    policy_loss(read.log_p, read.log_p.detach(), given_A, 0.2).backward()
    log_p = other(batch_of(episodes, 0)).log_p
    (-(given_A * log_p).sum() / 5).backward()
    for a, b in zip(policy.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_the_report_of_a_round_by_hand() -> None:
    episodes = [episode([5], [8, 1], [0.0, 1.0]), episode([5], [9], [0.0])]
    drawn = [
        (np.array([-1.0, -2.0]), np.array([0.5, 0.7]), np.array([0.0, 0.0])),
        (np.array([-3.0]), np.array([0.9]), np.array([0.0])),
    ]
    reference = [np.array([-1.5, -2.5]), np.array([-2.0])]
    how = PpoSettings(kl=0.1, gae=1.0, discount=1.0)
    targets, report = targets_of(episodes, drawn, reference, how)
    assert report.kl == pytest.approx((0.5 + 0.5 - 1.0) / 2)
    assert report.entropy == pytest.approx(0.7)
    # Rewards: −0.05, 1 − 0.05; +0.1. Returns: 0.9, 0.95; 0.1. The value is 0 and explains nothing.
    assert np.concatenate([t.returns for t in targets]).tolist() == pytest.approx([0.9, 0.95, 0.1])
    assert report.explained == pytest.approx(0.0)
    assert np.concatenate([t.advantages for t in targets]).mean() == pytest.approx(0)


def texts(pieces: Sequence[str]) -> object:
    return lambda ids: "".join(pieces[i] for i in ids)


def test_steps_end_where_their_line_is_complete() -> None:
    pieces = ["1 + 1", " = 2", "\n", "\n2", "#", " 4\n#### 4", ""]
    ends = step_ends([0, 1, 2, 2, 4, 5, 6], texts(pieces), LINES)  # type: ignore[arg-type]
    #                 step 1: place 2; "# 4": place 5, which begins the next; the last: 6
    assert ends == [2, 5, 6]
    assert step_ends([0, 3, 1], texts(pieces), LINES) == [1, 2]  # type: ignore[arg-type]
    paragraphs = StepFormat(end="\n\n")
    assert step_ends([0, 2, 1, 2, 2, 4], texts(pieces), paragraphs) == [4, 5]  # type: ignore[arg-type]
    assert at_the_steps(4, [1, 3, 3], [0.5, 1.0, 0.25]) == (0.0, 0.5, 0.0, 1.25)
    assert at_the_end(3, -1.0) == (0.0, 0.0, -1.0)


@given(st.lists(st.sampled_from(["a", "\n", " b\n", "\nc", " ", "d\n\n", "e"]), max_size=12))
@settings(deadline=None)
def test_every_step_of_a_text_ends_once_and_in_order(pieces: list[str]) -> None:
    ids = list(range(len(pieces)))
    ends = step_ends(ids, texts(pieces), LINES)  # type: ignore[arg-type]
    steps = LINES.split("".join(pieces))
    assert len(ends) == len(steps)
    assert ends == sorted(ends)
    for n, end in enumerate(ends, start=1):
        assert LINES.split("".join(pieces[: end + 1]))[:n] == steps[:n], "the step is whole there"


def saved(folder: Path, seed: int = 0) -> Path:
    tiny_lm("llama", seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def round_of(folder: Path, number: int, samples: int = 16) -> list[Episode]:
    """Drawn by an engine; every token of the upper half of the vocabulary earns 1."""
    params = SamplingParams(max_new_tokens=6, logprobs=True)
    requests = [
        Request(
            f"r{i}",
            (f"w{i + 20} w7",),
            tuple(stable_seed(number, i, k) for k in range(samples)),
            params,
        )
        for i in range(4)
    ]
    tokenizer = tiny_tokenizer()
    with TorchEngine(folder, _engine_settings()) as engine:
        return [
            episode(
                tokenizer("".join(r.request.segments))["input_ids"],
                c.tokens,
                [float(token >= 30) for token in c.tokens],
            )
            for r in sorted(engine.run(requests), key=lambda r: r.request.id)
            for c in r.completions
        ]


def _engine_settings() -> object:
    from glore.config import TorchEngineSettings

    return TorchEngineSettings(device="cpu")


HOW = PpoSettings(
    rounds=4, minibatch=16, epochs=2, learning_rate=6e-3, kl=0.0, value_learning_rate=1e-2
)


def train(start: Path, work: Path, how: PpoSettings, rounds: int | None = None) -> list[float]:
    folder, model, rewards = start, start, []
    for number in range(rounds or how.rounds):
        episodes = round_of(model, number)
        rewards.append(float(np.mean([np.mean(e.rewards) for e in episodes])))
        target = work / f"round-{number}"
        update_policy(episodes, folder, start, target, how, round_=number, seed=0, device="cpu")
        folder, model = target, target / "model"
    return rewards


def test_a_reward_goes_up_and_the_penalty_holds_it_back(tmp_path: Path) -> None:
    start = saved(tmp_path / "start")
    free = train(start, tmp_path / "free", HOW)
    assert free[-1] > free[0] + 0.2
    held = train(start, tmp_path / "held", HOW.model_copy(update={"kl": 5.0}))
    assert held[-1] < free[-1] - 0.1


def test_a_round_again_writes_the_same_bytes(tmp_path: Path) -> None:
    start = saved(tmp_path / "start")
    for name in ("a", "b"):
        train(start, tmp_path / name, HOW, rounds=2)
    files = ["round-1/model/model.safetensors", "round-1/state.safetensors"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    # The state goes on: AdamW has counted the steps of both rounds.
    _, optimizer, _ = load_policy(tmp_path / "a" / "round-1", HOW, "cpu")
    steps = {float(state["step"]) for state in optimizer.state.values()}
    assert steps == {2 * 2 * math.ceil(4 * 16 / 16)}


def test_a_round_without_advantages_changes_nothing_but_the_value(tmp_path: Path) -> None:
    policy, optimizer, _ = load_policy(saved(tmp_path / "start"), HOW, "cpu")
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    episodes = [episode([5], [8, 1], [0.0, 0.0])] * 4
    drawn = [(np.zeros(2), np.zeros(2), np.zeros(2))] * 4
    targets, _ = targets_of(episodes, drawn, [np.zeros(2)] * 4, HOW)
    learned = learn(policy, optimizer, episodes, targets, HOW, 0, 0, 0)
    assert learned.gradient == 0
    for name, p in policy.model.named_parameters():
        assert torch.equal(p, before[name])


class Killed(BaseException):
    """Stands for a kill."""


def stage(folder: Path, start: Path) -> StageContext:
    config = RunConfig.model_validate(
        {"name": "t", "runs_dir": str(folder), "student": {"max_new_tokens": 8}}
    )
    made = {"start": start, "better": folder / "models" / "better"}
    (folder / "stage").mkdir(parents=True, exist_ok=True)
    return StageContext(
        config,
        name="better",
        run_dir=folder,
        folder=folder / "stage",
        inputs={},
        models=made,
        makes=("better",),
        progress=SilentProgress(),
    )


def play_stage(folder: Path, start: Path, killed_at: str = "") -> list[RoundStats]:
    """Three rounds of a stage; killed in an update or in a drawing where asked."""
    how = PpoSettings(rounds=3, prompts=3, samples=4, minibatch=8, learning_rate=1e-3)
    tokens = PolicyTokens(start)
    with contextlib.closing(stage(folder, start)) as ctx:

        def play(engine: Engine, r: int, prompts: Sequence[str]) -> list[Episode]:
            if killed_at == f"draw{r}":
                raise Killed
            found = draw(ctx, engine, {p: (p,) for p in prompts}, how, r)
            return [
                Episode(
                    *(f"{p}/{k}", p, "solution", tokens.prompt((p,)), c.tokens),
                    *(at_the_end(c.n_tokens, float(c.tokens[0] >= 30)), "right", "", False, 1),
                )
                for p, completions in found.items()
                for k, c in enumerate(completions)
            ]

        items = in_turns(ctx, [f"w{i} w7" for i in range(20, 25)], str, how.prompts)
        if killed_at.startswith("update"):
            before = ctx.once

            def once(name: str, work: Callable[[], None]) -> None:
                def cut() -> None:
                    work()
                    if name == killed_at:
                        raise Killed  # the policy is on the disk, the mark is not

                before(name, cut)

            ctx.once = once  # type: ignore[method-assign]
        return train_ppo(ctx, "better", start, how, items, play)


def test_a_killed_stage_goes_on_and_writes_the_same_bytes(tmp_path: Path) -> None:
    start = saved(tmp_path / "start")
    whole = play_stage(tmp_path / "whole", start)
    for killed_at in ("draw1", "update001", "update002"):
        folder = tmp_path / killed_at
        with pytest.raises(Killed):
            play_stage(folder, start, killed_at)
        assert play_stage(folder, start) == whole
        for name in ("models/better/model.safetensors", "models/better/README.md"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert [s.round for s in whole] == [1, 2, 3]
    assert whole[0].kl == pytest.approx(0, abs=1e-5), "the first policy is the reference"
    assert whole[2].kl != pytest.approx(0, abs=1e-5)
    assert [p.name for p in (tmp_path / "whole/stage/work").iterdir()] == ["round002"]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6))
def test_all_items_have_their_turn_before_one_has_two(n_items: int, n: int, rounds: int) -> None:
    ctx = SimpleNamespace(seed=1, name="s")
    items = in_turns(ctx, [f"i{k}" for k in range(n_items)], str, n)  # type: ignore[arg-type]
    found = [items(r) for r in range(rounds)]
    assert all(len(set(f)) == len(f) <= n for f in found)
    if n_items % n == 0:
        counts = Counter(i for f in found for i in f)
        assert max(counts.values()) - min(counts.get(f"i{k}", 0) for k in range(n_items)) <= 1
