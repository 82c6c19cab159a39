"""Rounds of PPO as numbers of a study: a point of each curve for every round, with intervals over
the questions whose completions were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from glore.pipeline import StageContext
from glore.stages.policy_gradient import read_episodes, read_rounds
from glore.statistics import Resampler
from glore.studies.measured import Measured, number, share
from glore.training.ppo.episodes import Episode

__all__ = ["OF_EPISODES", "OF_ROUNDS", "of_rounds", "round_curves", "round_rows"]

OF_EPISODES: Mapping[str, Callable[[Episode], float]] = MappingProxyType(
    {
        "right": lambda e: float(e.correct == "right"),
        "copied": lambda e: float(e.copied),
        "reward": lambda e: sum(e.rewards),
    }
)
"""Column → what it is the mean of."""
OF_ROUNDS: Mapping[str, str] = MappingProxyType(
    {
        "reward": "reward",
        "kl": "KL",
        "entropy": "entropy",
        "explained": "value explains",
        "clipped": "clipped",
        "n_steps": "steps",
        "n_tokens": "tokens",
    }
)
"""Field of `RoundStats` → column."""


def of_rounds(
    ctx: StageContext,
    rows: str,
    curves: str,
    trained: Mapping[str, str],
    shares: tuple[str, ...],
) -> list[Measured]:
    """The rounds of several trainings (stage → its name in the tables): `round_rows` in the table
    `rows`, `round_curves` in `curves`.
    """
    return [
        m
        for stage, about in trained.items()
        for m in (
            *round_rows(ctx, rows, stage, about, shares),
            *round_curves(ctx, curves, stage, about),
        )
    ]


def round_curves(ctx: StageContext, table: str, stage: str, about: str) -> list[Measured]:
    """The curves of one training: every column of `OF_EPISODES`, and `kl`, over the rounds. Reads
    `evaluation.bootstrap_samples`.
    """
    found: list[Measured] = []
    for r, stats in enumerate(read_rounds(ctx, stage)):
        episodes = read_episodes(ctx, stage, r)
        units = [e.problem_id for e in episodes]
        resampler = Resampler(
            units, n_draws=ctx.config.evaluation.bootstrap_samples, seed=ctx.seed, keeps=True
        )
        x = float(stats.round)
        for column, value in OF_EPISODES.items():
            mean = resampler.mean(units, [value(e) for e in episodes])
            found.append(share(table, about, column, mean, x))
        found.append(number(table, about, "kl", stats.kl, x))
    return found


def round_rows(
    ctx: StageContext, table: str, stage: str, about: str, shares: tuple[str, ...]
) -> list[Measured]:
    """The first and the last round of one training as rows: these shares of `RoundStats` in
    percent, then the columns of `OF_ROUNDS`.
    """
    rounds = read_rounds(ctx, stage)
    found: list[Measured] = []
    for name, stats in {"first": rounds[0], "last": rounds[-1]}.items():
        row = (about, name)
        found += [
            number(table, row, f"{s.replace('_', ' ')}, %", 100 * float(getattr(stats, s)))
            for s in shares
        ]
        found += [
            number(table, row, column, float(getattr(stats, field)))
            for field, column in OF_ROUNDS.items()
        ]
    return found
