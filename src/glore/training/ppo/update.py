"""One round's update: episodes in, a better policy out.

Axes: R drawn tokens of an episode, N of a minibatch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from glore.devices import pick_device
from glore.errors import ModelError
from glore.model_cards import model_card
from glore.models import load_causal_lm, load_tokenizer, save_model
from glore.seeds import stable_seed
from glore.training.device_settings import fast_products
from glore.training.examples import TrainReport
from glore.training.ppo.advantages import (
    Floats,
    advantages_and_returns,
    penalised,
    whitened,
)
from glore.training.ppo.episodes import Episode
from glore.training.ppo.loss import clipped_share, policy_loss, value_loss
from glore.training.ppo.policy import Policy, Read, batch_of
from glore.training.ppo.settings import PpoSettings
from glore.training.ppo.state import is_finite, load_policy, save_policy

__all__ = [
    "Learned",
    "Targets",
    "UpdateReport",
    "learn",
    "save_last",
    "targets_of",
    "update_policy",
]


@dataclasses.dataclass(frozen=True, slots=True)
class UpdateReport:
    """What an update measured. The first four describe the policy that drew the episodes."""

    kl: float
    """Its divergence from the reference in nats: the log-ratios of an episode's drawn tokens added
    up, averaged over the episodes (an unbiased estimate, which may be negative).
    """
    entropy: float
    """Of its distributions, mean over the drawn tokens, in nats."""
    explained: float
    """Share of the returns' variance that the value explains; 0 where they don't vary."""
    penalty: float
    """What divergence cost, mean over the episodes."""
    clipped: float
    """Share of the drawn tokens whose gradient the clip took away, mean over the steps."""
    policy_loss: float
    """Mean over the steps."""
    value_loss: float
    gradient: float
    """Norm of the gradient before it was shortened, mean over the steps."""
    n_steps: int
    n_tokens: int
    """Tokens that were read, prompts included, all epochs together."""


@dataclasses.dataclass(frozen=True, slots=True)
class Targets:
    """What one episode's tokens are learned with, [R] each."""

    log_p: Floats
    """Log-probabilities under the policy that drew them."""
    advantages: Floats
    returns: Floats


class Learned(NamedTuple):
    """The fields of the report that the minibatches measure."""

    clipped: float
    policy_loss: float
    value_loss: float
    gradient: float
    n_steps: int


def update_policy(
    episodes: Sequence[Episode],
    policy: Path,
    reference: Path,
    target: Path,
    settings: PpoSettings,
    *,
    round_: int,
    seed: int,
    device: str = "auto",
) -> UpdateReport:
    """Improve the policy in folder `policy` on what it drew, and write it to `target`.

    `policy`: as `save_policy` writes it, or any causal language model; `reference`: the model that
    it must stay near to; `round_`: 0-based. The result depends on the arguments alone. Raises
    ModelError for weights that can't be read or are no longer finite.
    """
    device = pick_device(device)
    with fast_products(on_cpu=device == "cpu"):
        reference_of = _reference(episodes, reference, settings, device)
        found, optimizer, tokenizer = load_policy(policy, settings, device)
        pad_id = int(tokenizer.pad_token_id)
        drawn = list(_split(read_all(found, episodes, settings.minibatch, pad_id, device)))
        targets, report = targets_of(episodes, drawn, reference_of, settings)
        learned = learn(found, optimizer, episodes, targets, settings, pad_id, round_, seed, device)
    if not is_finite(found):
        raise ModelError(
            f"PPO: the weights are not finite after round {round_ + 1}; lower learning_rate "
            f"({settings.learning_rate:g})"
        )
    save_policy(found, optimizer, tokenizer, target)
    n_tokens = sum(len(e.prompt_ids) + len(e.response_ids) for e in episodes)
    return dataclasses.replace(
        report, **learned._asdict(), n_tokens=n_tokens * (settings.epochs + 2)
    )


def save_last(
    folder: Path,
    target: Path,
    what: str,
    settings: PpoSettings,
    report: TrainReport,
    seed: int,
    dtype: str,
) -> None:
    """Save the model in `folder` as `target` in this dtype, with a card; `what` describes it."""
    card = model_card(target.name, what, "causal", settings, report, seed)
    save_model(load_causal_lm(folder, dtype), load_tokenizer(folder), target, card)


def _reference(
    episodes: Sequence[Episode], folder: Path, settings: PpoSettings, device: str
) -> list[Floats]:
    """Log-probabilities of the drawn tokens under the reference, which is freed again."""
    model = load_causal_lm(folder, "float32", device)
    model.config.use_cache = False
    pad_id = int(load_tokenizer(folder).pad_token_id)
    policy = Policy(model, settings.temperature)
    found = read_all(policy, episodes, settings.minibatch, pad_id, device)
    return [_float64(read.log_p) for read in found]


def read_all(
    policy: Policy, episodes: Sequence[Episode], size: int, pad_id: int, device: str
) -> list[Read]:
    """What the policy says of each episode's drawn tokens, in their order, without gradients.

    Episodes of similar length are read together, `size` at a time.
    """
    order = sorted(range(len(episodes)), key=lambda i: (_length(episodes[i]), i))
    found: dict[int, Read] = {}
    with torch.inference_mode():
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            read = policy(batch_of([episodes[i] for i in chosen], pad_id, device))
            counts = [len(episodes[i].response_ids) for i in chosen]
            parts = zip(*(tensor.cpu().split(counts) for tensor in read), strict=True)
            found |= {i: Read(*part) for i, part in zip(chosen, parts, strict=True)}
    return [found[i] for i in range(len(episodes))]


def _split(found: Sequence[Read]) -> Iterator[tuple[Floats, Floats, Floats]]:
    for read in found:
        yield _float64(read.log_p), _float64(read.entropy), _float64(read.values)


def targets_of(
    episodes: Sequence[Episode],
    drawn: Sequence[tuple[Floats, Floats, Floats]],
    reference: Sequence[Floats],
    settings: PpoSettings,
) -> tuple[list[Targets], UpdateReport]:
    """What to learn, and the first fields of the report.

    `drawn`: per episode log-probabilities, entropies and values under the policy that drew it, [R]
    each; `reference`: log-probabilities under the reference.
    """
    advantages, returns = [], []
    for e, (log_p_R, _, values_R), reference_R in zip(episodes, drawn, reference, strict=True):
        rewards_R = penalised(np.asarray(e.rewards), log_p_R, reference_R, settings.kl)
        of_tokens = advantages_and_returns(rewards_R, values_R, settings.discount, settings.gae)
        advantages.append(of_tokens[0])
        returns.append(of_tokens[1])
    log_p = [log_p_R for log_p_R, _, _ in drawn]
    kl = float(np.mean([(p - r).sum() for p, r in zip(log_p, reference, strict=True)]))
    all_returns, errors = np.concatenate(returns), np.concatenate(advantages)
    variance = float(all_returns.var())
    report = UpdateReport(
        kl=kl,
        entropy=float(np.concatenate([entropy_R for _, entropy_R, _ in drawn]).mean()),
        explained=1 - float(errors.var()) / variance if variance > 1e-12 else 0.0,
        penalty=settings.kl * kl,
        clipped=0.0,
        policy_loss=0.0,
        value_loss=0.0,
        gradient=0.0,
        n_steps=0,
        n_tokens=0,
    )
    made = zip(log_p, whitened(advantages), returns, strict=True)
    return [Targets(*target) for target in made], report


def learn(
    policy: Policy,
    optimizer: torch.optim.AdamW,
    episodes: Sequence[Episode],
    targets: Sequence[Targets],
    settings: PpoSettings,
    pad_id: int,
    round_: int,
    seed: int,
    device: str = "cpu",
) -> Learned:
    """A few epochs of minibatches."""
    n_steps = settings.epochs * math.ceil(len(episodes) / settings.minibatch)
    trained = list(policy.model.parameters())
    sums = dict.fromkeys(("clipped", "policy_loss", "value_loss", "gradient"), 0.0)
    for step, chosen in enumerate(_minibatches(len(episodes), settings, round_, seed)):
        done = (round_ + step / n_steps) / settings.rounds
        optimizer.param_groups[0]["lr"] = settings.learning_rate * _cosine(
            done, settings.min_learning_rate_ratio
        )
        old_N, advantages_N, returns_N = (
            torch.from_numpy(np.concatenate([getattr(targets[i], name) for i in chosen]))
            .float()
            .to(device)
            for name in ("log_p", "advantages", "returns")
        )
        read = policy(batch_of([episodes[i] for i in chosen], pad_id, device))
        loss = policy_loss(read.log_p, old_N, advantages_N, settings.clip)
        of_value = value_loss(read.values, returns_N)
        optimizer.zero_grad()
        (loss + of_value).backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        optimizer.step()
        sums["clipped"] += clipped_share(read.log_p, old_N, advantages_N, settings.clip)
        sums["policy_loss"] += float(loss.detach())
        sums["value_loss"] += float(of_value.detach())
        sums["gradient"] += float(norm)
    return Learned(n_steps=n_steps, **{name: total / n_steps for name, total in sums.items()})


def _minibatches(
    n_episodes: int, settings: PpoSettings, round_: int, seed: int
) -> Iterator[list[int]]:
    """Indices of the episodes of every step, shuffled anew in each epoch."""
    for epoch in range(settings.epochs):
        rng = np.random.default_rng(stable_seed(seed, "ppo", round_, epoch))
        order = rng.permutation(n_episodes).tolist()
        for start in range(0, n_episodes, settings.minibatch):
            yield order[start : start + settings.minibatch]


def _cosine(done: float, least: float) -> float:
    """The learning rate's share after this share of the training."""
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done))


def _length(episode: Episode) -> int:
    return len(episode.prompt_ids) + len(episode.response_ids)


def _float64(tensor: torch.Tensor) -> Floats:
    found: Floats = tensor.double().numpy()
    return found
